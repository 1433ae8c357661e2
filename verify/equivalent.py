"""Mutants that nobody can notice, each with the argument why. At most 2 % of all; checked by the hunt."""

from __future__ import annotations

EQUIVALENT: dict[str, str] = {}
