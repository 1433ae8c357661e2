"""The context that is used when the user names none: the example in `examples/flights`.

Your own stands in a folder of your own, named by `--context FOLDER` or `SYNERGY_CONTEXT`; `launch.py new FOLDER`
writes a small one to begin with.
"""

from __future__ import annotations

from examples.flights.process_context import process_context, queue_context, timetable_context

__all__ = ["process_context", "queue_context", "timetable_context"]
