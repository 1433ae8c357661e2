"""`docs/state-machines.md`, made from the tables of `scheduler/core/lifecycle.py` by `generate_docs.py`.

The tables are the only place that says which state follows which. The page shows each twice, as a table of all cells
and as a diagram, so it cannot say anything else. What stands around them (who causes a verb, what a state means) is
written here, and a verb or a state without its words is an error.
"""

from __future__ import annotations

from scheduler.core.lifecycle import JOB, PROCESS, UOW, Lifecycle

HEAD = """\
# The three state machines

<!-- made by scripts/generate_docs.py: change the code, then run it -->

This page is made from the tables in `scheduler/core/lifecycle.py`; a test compares the two.

An empty cell is an illegal verb: it raises `InvalidTransition`, which names the verb, the state and what is allowed
there, and changes nothing. How a job gets from one verb to the next (machines, blocking types, triggers) is told in
[architecture.md](architecture.md#how-a-managed-process-is-governed).
"""

STATES = {
    "job": {
        "embryo": "the period has a row; nothing was requested for it yet",
        "in_progress": "a unit of work was requested; more may follow",
        "final_run": "the last unit of work is requested or runs; its outcome decides the job",
        "processed": "finished, with a result",
        "skipped": "finished, without one; `reason` says why",
        "noop": "finished, there was nothing to do",
    },
    "unit of work": {
        "requested": "saved, and published or about to be",
        "in_progress": "accepted by a worker, under a lease",
        "processed": "the work was done",
        "noop": "the worker found nothing to do",
        "invalid": "an attempt failed; it will be retried or given up",
        "canceled": "given up, or canceled by a person or a cascade",
    },
    "process": {
        "new": "known, and never scheduled",
        "scheduled": "new units of work are requested",
        "suspended": "nothing new starts; what runs goes on; failed units of work wait",
        "expired": "nothing new starts any more; failed units of work are given up",
        "deleted": "as expired, and the name is free for a new definition",
    },
}

VERBS = {
    "job": {
        "dispatch": "the scheduler requests a unit of work",
        "dispatch_final": "the scheduler requests the unit of work that decides the job",
        "complete": "the deciding unit of work was processed",
        "no_data": "the deciding unit of work found nothing to do, and none before it since the last reprocess did",
        "skip": "a person skips or kills it, its work was given up, or what it stands on was skipped",
        "reprocess": "a person, late data, or a cascade from what it stands on",
        "mark_done": "a person declares it done",
    },
    "unit of work": {
        "accept": "a worker takes it, with a lease and a token",
        "succeed": "the worker: the code returned",
        "no_data": "the worker: the code answered `Noop`",
        "fail": "the worker: the code raised, or ran into its time-out; the scheduler: its lease ran out,"
        " or nobody took it within `wait_timeout_s`",
        "retry": "the scheduler, when the delay is over; at once after a lost worker",
        "release": "a worker that drains gives it back; the attempt does not count",
        "give_up": "the scheduler: no retries are left, or a retry would not help",
        "cancel": "a person, a cascade, or the code with `Cancel`",
    },
    "process": {
        "schedule": "registration, or a person",
        "suspend": "a person, or `is_on=False` at registration",
        "resume": "a person",
        "expire": "a person, or the process left the context",
        "delete": "a person",
    },
}

NOTES = {
    "job": """\
A job that is reprocessed while it is an embryo stays as it is: nothing is written, and no event is. *Kill* is `skip`
of a job with an unfinished unit of work, with the reason `killed`. A job is *open* while it is unfinished, and also
while a canceled unit of work of it is still held by a worker; parents and dependants wait for *open* to end.
""",
    "unit of work": """\
Terminal states stay terminal: a re-run is a new unit of work with the next `run`. `requested → invalid` happens by
`wait_timeout_s` alone. A unit of work of kind `check` asks a readiness predicate; it uses the same table, and is
never retried but asked again.
""",
    "process": """\
A verb that leads to the state that is there already answers 200 with `changed: false` and writes no event; the table
has a cell for each of those.
""",
}


def state_machines_page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(lifecycle) for lifecycle in (JOB, UOW, PROCESS))])


def _section(lifecycle: Lifecycle) -> str:
    name = lifecycle.name
    lines = [f"## The {name}", "", "| state | meaning |", "|---|---|"]
    lines += [f"| `{state}` | {STATES[name][state]} |" for state in lifecycle.states]
    lines += ["", "| verb | who, and when |", "|---|---|"]
    lines += [f"| `{verb}` | {VERBS[name][verb]} |" for verb in lifecycle.all_verbs]
    lines += ["", *_table(lifecycle), "", NOTES[name], *_diagram(lifecycle), ""]
    return "\n".join(lines)


def _table(lifecycle: Lifecycle) -> list[str]:
    """All cells: a row for each state, a column for each verb."""
    head = "| | " + " | ".join(f"`{verb}`" for verb in lifecycle.all_verbs) + " |"
    rows = [head, "|---" * (len(lifecycle.all_verbs) + 1) + "|"]
    for state in lifecycle.states:
        cells = [lifecycle.cells.get((state, verb), "") for verb in lifecycle.all_verbs]
        rows.append(f"| **{state}** | " + " | ".join(cells) + " |")
    return rows


def _diagram(lifecycle: Lifecycle) -> list[str]:
    """The same as a picture; verbs with the same ends share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (source, verb), target in lifecycle.cells.items():
        arrows.setdefault((source, target), []).append(verb)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {lifecycle.initial}"]
    lines += [
        f"    {source} --> {target} : {', '.join(sorted(verbs, key=lifecycle.all_verbs.index))}"
        for (source, target), verbs in sorted(
            arrows.items(),
            key=lambda arrow: (lifecycle.states.index(arrow[0][0]), lifecycle.states.index(arrow[0][1])),
        )
    ]
    return [*lines, "```"]
