"""The deterministic simulation: the shipped engine and worker runner in a faulty, virtual world.

Nothing of the product is re-implemented here: scheduler, runner, store and broker are the shipped ones,
the store and the broker in memory. Played are time, the user's code, operators, and everything that goes
wrong. A seed determines all of it, so that a failing seed is a recipe.

What must hold is checked by `checker`, which derives what it believes from the events and from its own
arithmetic (`almanac`), not from the core's functions.
"""

from __future__ import annotations
