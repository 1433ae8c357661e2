"""decide(input, slice) -> what follows: everything that happens is decided here.

An input (`Item`) is looked at by the rule of its kind; the rule writes what it decides into the
slice's overlay and returns further items: what became possible by it (the job, its parent, its
dependants, the next period). The engine goes on with those in the same turn, breadth first.
`commands.decide_command` is the rule for what people and programs ask.
"""

from __future__ import annotations

from scheduler.core.act import evaluate
from scheduler.core.attempt import resend, see_uow
from scheduler.core.firing import fire
from scheduler.core.new_periods import advance
from scheduler.core.open_jobs import fill, scan
from scheduler.core.slice import Item, Slice


def decide(s: Slice, item: Item) -> list[Item]:
    """Apply the rule for one input; returns what to look at next. May raise Absent: gather, then again."""
    match item.kind:
        case "uow":
            return see_uow(s, item.what)
        case "job":
            return evaluate(s, item.what)
        case "fill":
            return fill(s, item.what, item.after)
        case "advance":
            return advance(s, item.what)
        case "scan":
            return scan(s, item.what, item.after)
        case "fire":
            return fire(s, item.what)
        case "resend":
            return resend(s, item.what)
    raise AssertionError(f"no rule for {item}")
