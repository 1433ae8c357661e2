"""`delete PROCESS`: forget a process, or an entry; its history stays."""

from __future__ import annotations

from commands.operate import process_verb

add_arguments, run = process_verb("delete")
