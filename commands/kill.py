"""`kill PROCESS PERIOD…`: what runs for jobs is ended, and they are skipped."""

from __future__ import annotations

from commands.operate import jobs_verb

add_arguments, run = jobs_verb("kill")
