"""What the rule of a command returns: what to look at next, the outcome for who asked, and it in a sentence."""

from __future__ import annotations

from typing import Any

from scheduler.core.slice import Item

Result = tuple[list[Item], dict[str, Any], str]
