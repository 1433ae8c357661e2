"""`reset PROCESS`: forget what was set by hand; it is as the context says again."""

from __future__ import annotations

from commands.operate import process_verb

add_arguments, run = process_verb("reset")
