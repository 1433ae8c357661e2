"""`expire PROCESS`: it is over, nothing of it runs any more, and nobody waits for it."""

from __future__ import annotations

from commands.operate import process_verb

add_arguments, run = process_verb("expire")
