"""The commands of `launch.py`, one module a verb; `dispatch` is their table.

Nothing but these names may be here: the modules `list` and `set` become attributes of this package, and would hide the
builtins from any code in this file.
"""

from __future__ import annotations

from commands.dispatch import VERBS, available, extras_of, is_answered_alone, main

__all__ = ["VERBS", "available", "extras_of", "is_answered_alone", "main"]
