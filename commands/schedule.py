"""`schedule PROCESS`: a process that is new is put on the timetable."""

from __future__ import annotations

from commands.operate import process_verb

add_arguments, run = process_verb("schedule")
