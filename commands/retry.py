"""`retry PROCESS PERIOD…`: failed units of work that wait for their retry are tried again now."""

from __future__ import annotations

from commands.operate import jobs_verb

add_arguments, run = jobs_verb("retry")
