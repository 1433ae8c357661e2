"""`reprocess PROCESS PERIOD…`: jobs and all that stands on them are done again; `--plan` shows what that is."""

from __future__ import annotations

from commands.operate import jobs_verb

add_arguments, run = jobs_verb("reprocess", has_plan=True)
