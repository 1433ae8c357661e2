"""Why a job is not done: all blockers at the root, and what would unblock each.

The reasons are `assess`'s own, so an operator is never told a second opinion. A job that waits for
others is explained by them: the walk goes down to those that wait for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from scheduler.core.errors import NotFound
from scheduler.core.facts import LOOK
from scheduler.core.inputs import Blocker
from scheduler.core.job import Job
from scheduler.core.slice import Slice
from scheduler.core.strategy import assess

DEPTH_MAX = 50
ROOTS_MAX = 100
OLDER_MAX = 5


@dataclass(frozen=True, slots=True)
class Explanation:
    """The state of one job in words, its own blockers, and those at the root."""

    job: str
    state: str
    act: str | None  # what the next turn does with it, if nothing is in the way
    own: tuple[Blocker, ...]
    roots: tuple[tuple[str, Blocker], ...]  # (job, blocker) that waits for nobody else
    cycle: tuple[str, ...] = ()  # jobs that wait for each other, if there are any


def explain(s: Slice, id_: str) -> Explanation:
    """Explain one job. Raises NotFound; may raise Absent."""
    job = s.job(id_)
    if job is None:
        raise NotFound(f"there is no job {id_!r}")
    found = assess(s, job, everything=True)
    own = tuple(_with_older(s, job, blocker) for blocker in found.blockers)
    roots: dict[tuple[str, Blocker], None] = {}
    cycle: list[str] = []
    _walk(s, id_, [], roots, cycle, set())
    return Explanation(id_, job.state, found.act, own, tuple(roots)[:ROOTS_MAX], tuple(cycle))


def _with_older(s: Slice, job: Job, blocker: Blocker) -> Blocker:
    """A place that is lacking goes to older ready jobs first: name them."""
    if blocker.code != "place":
        return blocker
    ids, _ = s.window(job.process, None, LOOK)
    older = []
    for id_ in ids:
        other = s.job(id_)
        if other is None or other.start >= job.start:
            break
        found = assess(s, other)
        if found.act is not None or {b.code for b in found.blockers} == {"place"}:
            older.append(id_)
    if not older:
        return blocker
    names = ", ".join(older[:OLDER_MAX]) + (" …" if len(older) > OLDER_MAX else "")
    return replace(blocker, sentence=f"{blocker.sentence}; first come older ones that are ready: {names}")


def _walk(
    s: Slice,
    id_: str,
    path: list[str],
    roots: dict[tuple[str, Blocker], None],
    cycle: list[str],
    seen: set[str],
) -> None:
    if id_ in path:
        if not cycle:
            cycle.extend([*path[path.index(id_) :], id_])
        return
    if id_ in seen or len(path) > DEPTH_MAX or len(roots) >= ROOTS_MAX:
        return
    seen.add(id_)
    job = s.job(id_)
    if job is None:
        return
    for blocker in assess(s, job, everything=True).blockers:
        waits_for = blocker.job if blocker.code in ("children", "dependency") else None
        if waits_for is not None and s.job(waits_for) is not None:
            _walk(s, waits_for, [*path, id_], roots, cycle, seen)
        else:
            roots[id_, _with_older(s, job, blocker)] = None
