"""`mark-done PROCESS PERIOD…`: a person vouches for jobs; what stands on skipped ones is done again."""

from __future__ import annotations

from commands.operate import jobs_verb

add_arguments, run = jobs_verb("mark_done")
