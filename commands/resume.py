"""`resume PROCESS`: a suspended process goes on."""

from __future__ import annotations

from commands.operate import process_verb

add_arguments, run = process_verb("resume")
