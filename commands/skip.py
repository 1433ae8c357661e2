"""`skip PROCESS PERIOD…`: jobs are given up, with what cannot be without them; `--plan` shows what that is."""

from __future__ import annotations

from commands.operate import jobs_verb

add_arguments, run = jobs_verb("skip", has_plan=True)
