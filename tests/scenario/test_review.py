"""What a hostile reading of the design's rules turned up; each test names the rule it holds the code to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from scheduler import control
from scheduler.core.errors import ConfigError
from scheduler.core.ports import Change
from scheduler.core.process import Retry, after, context, freerun, managed, tree
from scheduler.core.records import Fact, ProcessRow
from scheduler.core.slice import Item
from scheduler.core.timetable import Timetable
from scheduler.core.uow import Uow
from tests.world import World, at

NOW = "2020-05-02T00:10:00"


def hourly(now: str = "2020-05-01T03:10:00", **more: Any) -> World:
    return World([managed("h", "m:f", "hourly", **more)], start="2020050100", now=now)


def pyramid(**more: Any) -> World:
    more.setdefault("max_active", 30)
    return World(
        [managed("h", "m:f", "hourly", **more), managed("d", "m:f", "daily", blocking="children")],
        [tree("t", ["h", "d"])],
        start="2020050100",
        now=NOW,
    )


def together(w: World, *commands: tuple[str, dict[str, Any], dict[str, Any]]) -> list[Any]:
    """Several commands in one batch; returns their rows."""
    ids = []
    for n, (verb, target, arguments) in enumerate(commands):
        ids.append(
            control.submit(
                w.store, w.broker, verb, target, actor="anna", arguments=arguments, key=f"k{n:04d}"
            )
        )
    w.settle()
    return [control.wait(w.store, id_, 0) for id_ in ids]


# -- commands ---------------------------------------------------------------------------------------


def test_commands_of_one_batch_are_decided_in_their_order() -> None:
    """§5: order is (submitted_at, id); each sees what those before it decided, also where facts are missing."""
    w = World(
        [managed("d", "m:f", "daily", trigger="at 06:00")], start="2020050100", now="2020-05-02T00:10:00"
    )
    first, second = together(w, ("run_now", {"jobs": ["d@2020050100"]}, {}), ("hold", {"scope": "*"}, {}))
    assert (first.status, second.status) == (200, 200), first.message
    assert [u.id for u in w.open_uows()] == ["d@2020050100#1"]


@pytest.mark.parametrize(
    ("verb", "target", "arguments"),
    [
        ("hold", {"scope": "*"}, {"until": "tomorrow"}),
        ("hold", {"scope": "*"}, {"until": "2020-05-03T00:00:00"}),
        ("hold", {"scope": "*"}, {"until": 7}),
        ("release", {"scope": ["*"]}, {}),
        ("late_data", {"jobs": [["h"]]}, {}),
        ("worker_died", {"owner": None}, {}),
        ("run_now", {"jobs": [None]}, {}),
        ("set_clock", {}, {"value": {"rate": 1}}),
        ("set_clock", {}, {"value": {"real_anchor": "x", "business_anchor": "y", "rate": 1}}),
        (
            "set_clock",
            {},
            {
                "value": {
                    "real_anchor": "2020-01-01T00:00:00+00:00",
                    "business_anchor": "2020-01-01T00:00:00+00:00",
                    "rate": -1,
                }
            },
        ),
    ],
)
def test_a_malformed_command_is_refused_and_poisons_nothing(
    verb: str, target: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """§3: an illegal input is an error that names itself; it never stops the scheduler."""
    w = hourly()
    before = w.store.find(Fact)
    result = w.command(verb, target, arguments=arguments)
    assert result.status in (400, 404, 409), result.message
    assert w.store.find(Fact) == before
    w.wait(60)


def test_mark_done_of_a_job_and_of_what_stands_on_it_in_one_command() -> None:
    """§5: a bulk action is one command; each job sees what was decided for those before it."""
    w = pyramid()
    w.work("h@2020050105", "cancel")
    w.work_all("h")
    assert w.job("d@2020050100").state == "in_progress"
    result = w.command("mark_done", ["h@2020050105", "d@2020050100"])
    assert result.status == 200, result.message
    assert (w.job("h@2020050105").state, w.job("d@2020050100").state) == ("processed", "processed")


def test_two_clock_commands_in_one_batch() -> None:
    """§5: the mapping is one row; the later command wins."""
    w = hourly()
    value = {
        "real_anchor": "2020-05-01T03:10:00+00:00",
        "business_anchor": "2020-05-01T04:10:00+00:00",
        "rate": 1.0,
    }
    later = {**value, "rate": 2.0}
    rows = together(w, ("set_clock", {}, {"value": value}), ("set_clock", {}, {"value": later}))
    assert [row.status for row in rows] == [200, 200]
    fact = w.store.get(Fact, "clock")
    assert fact is not None
    assert fact.value == later


def test_a_cascade_over_hundreds_of_roots_is_gathered_at_once() -> None:
    """§5: a few indexed reads for the whole batch; a bulk action of 600 jobs is one command."""
    w = World(
        [managed("a", "m:f", "daily", max_active=1000), managed("b", "m:f", "daily", max_active=1000)],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])],
        start="2018010100",
        now="2020-01-01T00:10:00",
    )
    w.command("suspend", {"process": "a"})
    w.command("suspend", {"process": "b"})
    jobs = [job.id for job in w.jobs("a")][:600]
    reads = w.engine.gatherer.reads
    result = w.command("reprocess", jobs)
    assert result.status == 200
    assert w.engine.gatherer.reads - reads < 1500
    assert w.job("b@2018010100").state == "embryo"


def test_run_now_names_everything_in_its_way() -> None:
    """§8.10: a refused run-now shows the blockers."""
    w = pyramid()
    w.command("hold", {"scope": "job:d@2020050100"}, reason="wait")
    result = w.command("run_now", "d@2020050100")
    assert result.status == 409
    assert "held by anna: wait" in result.message
    assert "h 2020-05-01 00" in result.message or "is not finished" in result.message


def test_run_now_that_ends_a_job_drives_what_stands_on_it() -> None:
    """§4: a finished job at once evaluates its dependants."""
    w = World(
        [
            managed("a", "m:f", "daily"),
            managed("b", "m:f", "daily", blocking="dependencies", trigger="at 06:00"),
            managed("c", "m:f", "daily", blocking="dependencies"),
        ],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"]), tree("tc", ["c"], depends_on=["tb"])],
        start="2020050100",
        now=NOW,
    )
    w.command("run_now", "a@2020050100")
    w.work("a@2020050100", "cancel")
    assert w.job("b@2020050100").state == "skipped"
    assert w.job("c@2020050100").state == "skipped"


# -- holds --------------------------------------------------------------------------------------------


def test_wait_timeout_stands_still_under_a_hold() -> None:
    """§2 hold: `wait_timeout` stands still; what is left of it counts on after the release."""
    w = hourly(wait_timeout_s=3600)
    w.wait(1800)
    w.command("hold", {"scope": "process:h"})
    w.wait(7200)
    w.command("release", {"scope": "process:h"})
    assert w.uow("h@2020050100#1").state == "requested"
    w.wait(1700)
    assert w.uow("h@2020050100#1").state == "requested"
    w.wait(200)
    assert w.job("h@2020050100").reason == "timed_out"


def test_overlapping_holds_count_once() -> None:
    """§2 hold: two holds over the same time stop the clock once."""
    w = hourly(wait_timeout_s=3600)
    w.wait(600)
    w.command("hold", {"scope": "process:h"})
    w.wait(600)
    w.command("hold", {"scope": "*"})
    w.wait(600)
    w.command("release", {"scope": "process:h"})
    w.wait(600)
    w.command("release", {"scope": "*"})
    w.wait(2900)
    assert w.uow("h@2020050100#1").state == "requested"
    w.wait(200)
    assert w.job("h@2020050100").reason == "timed_out"


@pytest.mark.parametrize("scope", ["*", "tree:t", "process:d", "job:d@2020050100"])
def test_a_hold_with_an_end_lifts_itself(scope: str) -> None:
    """§2 hold: optional end; when it is over, what waited starts."""
    w = pyramid()
    until = (w.clock.real() + timedelta(hours=1)).isoformat()
    for id_ in [uow.id for uow in w.open_uows("h")][:-1]:
        w.work(id_)
    w.command("hold", {"scope": scope}, arguments={"until": until})
    w.work_all("h")
    assert w.open_uows("d") == []
    w.wait(3600)
    assert [u.id for u in w.open_uows("d")] == ["d@2020050100#1"]


def test_explain_of_a_held_job_names_the_place_it_will_lack() -> None:
    """§8.10: all present blockers; when those are removed the next turn dispatches the job."""
    w = hourly()
    w.command("hold", {"scope": "job:h@2020050101"})
    assert {b.code for b in w.explain("h@2020050101").own} == {"held", "place"}
    w.command("release", {"scope": "job:h@2020050101"})
    assert [b.code for b in w.explain("h@2020050101").own] == ["place"]
    w.work("h@2020050100")
    assert w.job("h@2020050101").uow_open


def test_explain_names_every_open_child() -> None:
    """§8.10: all blockers at the root, not only those below the first child."""
    w = pyramid()
    for hour in ("07", "09"):
        w.command("hold", {"scope": f"job:h@20200501{hour}"})
        w.work(f"h@20200501{hour}", "fail", permanent=True)
    w.command("reprocess", ["h@2020050107", "h@2020050109"])
    w.work_all("h")
    roots = {(job, b.code) for job, b in w.explain("d@2020050100").roots}
    assert roots == {("h@2020050107", "held"), ("h@2020050109", "held")}


def test_explain_names_older_ready_jobs_that_come_first() -> None:
    """§8.10: including older ready jobs that come first."""
    w = hourly()
    (blocker,) = w.explain("h@2020050102").own
    assert blocker.code == "place"
    assert "h@2020050101" in blocker.sentence


# -- the timetable ------------------------------------------------------------------------------------


def test_59_a_hidden_job_that_still_runs_is_waited_for() -> None:
    """§5: older rows count as finished once no uow of theirs is unfinished or still held by a worker."""
    processes = [
        managed("h", "m:f", "hourly", max_active=30),
        managed("d", "m:f", "daily", blocking="children"),
    ]
    trees = [tree("t", ["h", "d"])]
    w = World(processes, trees, start="2020050100", now=NOW)
    w.accept("h@2020050100#1")
    w.accept("h@2020050101#1")
    w.redefine(processes, trees, "2020050122")
    w.work("h@2020050122")
    w.work("h@2020050123")
    assert w.open_uows("d") == []
    assert {b.job for b in w.explain("d@2020050100").own} >= {"h@2020050100", "h@2020050101"}
    w.command("kill", "h@2020050101")
    w.work_all("h")
    w.work("h@2020050100")
    assert w.open_uows("d") == []
    w.stopped("h@2020050101#1")
    assert [u.id for u in w.open_uows("d")] == ["d@2020050100#1"]


def test_59_a_start_raised_and_lowered_again_shows_the_rows_at_once() -> None:
    """§5: a lowered start lets the frontier pass again; rows that are there are driven too."""
    processes = [managed("h", "m:f", "hourly", max_active=30)]
    w = World(processes, start="2020050106", now="2020-05-01T09:10:00")
    w.command("suspend", {"process": "h"})
    w.command("reprocess", ["h@2020050106", "h@2020050107"])
    w.redefine(processes, (), "2020050108")
    w.command("resume", {"process": "h"})
    w.redefine(processes, (), "2020050106")
    assert w.job("h@2020050106").uow_open
    assert w.job("h@2020050107").uow_open


def test_59_a_start_lowered_by_years_is_taken_in_a_few_reads() -> None:
    """§5: at most 1,000 rows a turn, each turn a few indexed reads."""
    processes = [
        managed("a", "m:f", "daily", is_on=False),
        managed("b", "m:f", "daily", is_on=False),
    ]
    trees = [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])]
    w = World(processes, trees, start="2019123100", now="2020-01-01T00:10:00")
    w.redefine(processes, trees, "2016010100")
    w.redefine(processes, trees, "2019123100")
    w.redefine(processes, trees, "2016010100")
    assert len(w.jobs("a")) == 4 * 365 + 1 + 1
    assert w.engine.gatherer.reads < 200


def test_71_a_round_trip_over_a_fan_of_periods_is_followed_whole() -> None:
    """§4: a cycle is allowed only if the round trip arrives wholly before the period it began at."""
    processes = [
        managed("d", "m:f", "daily", depends_on=["h"]),
        managed("h", "m:f", "hourly", depends_on=[after("x", -1)]),
        managed("x", "m:f", "hourly", depends_on=["d"]),
    ]
    with pytest.raises(ConfigError, match="hold each other up"):
        Timetable(context(processes, (), (), "2020010100"))
    table = Timetable(
        context(
            [
                processes[0],
                managed("h", "m:f", "hourly"),
                managed("x", "m:f", "hourly", depends_on=[after("h", -1)]),
            ],
            (),
            (),
            "2020010100",
        )
    )
    (edge,) = table.inputs("x")
    span = table.input_span(edge, at("2020-01-01T00:00:00"), at("2020-01-02T00:00:00"))
    assert (span.start, span.end) == (at("2019-12-31T23:00:00"), at("2020-01-01T23:00:00"))


def test_a_wide_context_without_cycles_loads_at_once() -> None:
    """§4: looking for cycles does not walk every path of a graph that has none."""
    layers, width = 16, 4
    processes = [
        managed(
            f"p{layer:02d}.{n}",
            "m:f",
            "hourly",
            depends_on=[f"p{layer - 1:02d}.{m}" for m in range(width)] if layer else (),
        )
        for layer in range(layers)
        for n in range(width)
    ]
    Timetable(context(processes, (), (), "2020010100"))


@pytest.mark.parametrize("offset", [0, -1, -2])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("hourly", 1), ("daily", 1)),
        (("hourly", 5), ("hourly", 3)),
        (("daily", 1), ("weekly", 1)),
        (("weekly", 1), ("monthly", 1)),
        (("daily", 10), ("weekly", 1)),
        (("monthly", 5), ("yearly", 1)),
        (("minutely", 7), ("hourly", 5)),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_60_whoever_stands_on_a_period_is_found_from_it(
    one: tuple[str, int], other: tuple[str, int], offset: int, swap: bool
) -> None:
    """§5: parent, children and dependants are arithmetic; both directions of a relation agree."""
    of, on = (other, one) if swap else (one, other)
    table = Timetable(
        context(
            [
                managed("of", "m:f", of[0], time_grouping=of[1], depends_on=[after("on", offset)]),
                managed("on", "m:f", on[0], time_grouping=on[1]),
            ],
            (),
            (),
            "2020010100",
        )
    )
    (edge,) = table.inputs("of")
    span = table.input_span(edge, *_bounds(table, "of", "2020-02-27T03:07:00"))
    instant = at("2020-02-27T03:07:00")
    for _ in range(40):
        start, end = _bounds(table, "of", instant)
        span = table.input_span(edge, start, end)
        for period in list(table.periods(span))[:: max(1, len(list(table.periods(span))) // 10)]:
            back = table.dependant_span(edge, period.start, period.end)
            assert back.start <= start < back.end, (start, period.label)
        instant = end


def _bounds(table: Timetable, name: str, instant: Any) -> tuple[Any, Any]:
    period = table.containing(name, at(instant) if isinstance(instant, str) else instant)
    return period.start, period.end


def test_a_process_with_many_dependencies_and_many_waiting_periods() -> None:
    """§5: a few indexed reads for a whole batch, however many dependencies a process has."""
    inputs = [managed(f"i{n}", "m:f", "hourly", max_active=200) for n in range(9)]
    w = World(
        [
            *inputs,
            managed(
                "x",
                "m:f",
                "hourly",
                blocking="dependencies",
                max_active=64,
                depends_on=[p.name for p in inputs],
            ),
        ],
        start="2020050100",
        now="2020-05-04T12:10:00",
    )
    w.command("suspend", {"process": "x"})
    for process in inputs:
        w.command("skip", [job.id for job in w.jobs(process.name)][:-1])
    w.command("reprocess", [job.id for p in inputs for job in w.jobs(p.name)[:-2]][:700])
    w.work_all()
    reads = w.engine.gatherer.reads
    w.command("resume", {"process": "x"})
    w.settle()
    assert w.engine.gatherer.reads - reads < 3000


# -- processes ----------------------------------------------------------------------------------------


def test_5_a_deleted_process_stays_deleted_over_a_restart_and_can_be_submitted_again() -> None:
    """§4: delete: any→deleted; after it the name can be submitted again and continues with higher runs."""
    w = hourly()
    w.work("h@2020050100")
    w.command("delete", {"process": "h"})
    before = w.jobs("h")
    w.restart()
    assert w.row("h").state == "deleted"
    assert w.jobs("h") == before
    assert w.command("submit", {"process": "h"}).status == 200
    assert w.row("h").state == "scheduled"
    assert w.job("h@2020050100").state == "processed"
    assert w.command("reprocess", "h@2020050100").status == 200
    w.work_all()
    assert w.job("h@2020050100").run == 2


def test_a_context_that_turns_a_process_on_or_off_is_followed_unless_a_person_did() -> None:
    """§4: the context is the base; on/off by an operator is an override and wins until reset."""
    on, off = [managed("h", "m:f", "hourly")], [managed("h", "m:f", "hourly", is_on=False)]
    w = World(off, start="2020050100", now="2020-05-01T03:10:00")
    assert w.row("h").state == "suspended"
    w.redefine(on, (), "2020050100")
    assert w.row("h").state == "scheduled"
    w.command("suspend", {"process": "h"})
    w.redefine(on, (), "2020050100")
    assert w.row("h").state == "suspended"
    w.command("reset", {"process": "h"})
    assert w.row("h").state == "scheduled"


def test_every_process_state_has_an_event_that_says_it() -> None:
    """§8.8: every state is explained by its events, also of entries and of what came back into the context."""
    extra = managed("x", "m:f", "hourly")
    free = freerun("f", "m:f")
    w = World([managed("h", "m:f", "hourly"), extra, free], start="2020050100", now="2020-05-01T03:10:00")
    w.command("submit", {"process": "one"}, arguments={"base": "f"})
    w.redefine([managed("h", "m:f", "hourly"), free], (), "2020050100")
    w.redefine([managed("h", "m:f", "hourly"), extra, free], (), "2020050100")
    w.command("suspend", {"process": "one"})
    w.command("delete", {"process": "one"})
    said: dict[str, str] = {}
    for event in w.events():
        if event.kind.startswith("process.") and event.data and "state" in event.data:
            said[str(event.process)] = event.data["state"]
    assert said == {row.name: row.state for row in w.store.find(ProcessRow)}


def test_expire_answers_with_all_that_becomes_ready() -> None:
    """§4: the answer lists the jobs that become ready by it; a job that waits for a place is ready."""
    w = World(
        [managed("a", "m:f", "daily"), managed("b", "m:f", "daily", blocking="dependencies", max_active=2)],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])],
        start="2020010100",
        now="2020-05-01T00:10:00",
    )
    result = w.command("expire", {"process": "a"})
    closed = [job.id for job in w.jobs("b") if job.end <= w.clock.business()]
    assert len(closed) > 100
    assert (result.outcome or {})["ready"] == closed
    assert len(w.open_uows("b")) == 2
    assert len(w.work_all("b")) == len(closed)


def test_a_retired_process_can_be_cleared_up() -> None:
    """§4: retired: rows readable; an operator can still skip what is left of them."""
    w = World(
        [managed("h", "m:f", "hourly"), managed("x", "m:f", "hourly")],
        start="2020050100",
        now="2020-05-01T03:10:00",
    )
    w.redefine([managed("h", "m:f", "hourly")], (), "2020050100")
    assert w.command("skip", "x@2020050102").status == 200


def test_63_late_data_does_not_cancel_an_invalid_uow_of_a_suspended_process() -> None:
    """§4: while suspended invalid uows are neither retried nor canceled."""
    w = hourly(retry=Retry(delay_s=10, jitter=0))
    w.work("h@2020050100", "fail")
    w.command("late_data", "h@2020050100", actor="feed", reason="rows")
    w.command("suspend", {"process": "h"})
    w.wait(60)
    assert w.uow("h@2020050100#1").state == "invalid"
    w.command("resume", {"process": "h"})
    w.wait(60)
    assert w.job("h@2020050100").run == 2


# -- triggers and freeruns ----------------------------------------------------------------------------


def test_37_a_changed_trigger_is_counted_from_its_change() -> None:
    """37: a changed trigger is live at once; it has missed nothing before it was set."""
    w = World([freerun("f", "m:f", catchup="all", overlap="allow")], now="2020-05-01T00:00:30")
    w.wait(86_400)
    w.command("set_trigger", {"process": "f"}, arguments={"value": "every 60"})
    assert w.jobs("f") == []
    w.wait(60)
    assert len(w.jobs("f")) == 1


def test_38_catchup_none_drops_a_single_missed_firing_too() -> None:
    """38: fire times missed while down: none."""
    w = World(
        [freerun("f", "m:f", trigger="every 3600", catchup="none", overlap="allow")],
        now="2020-05-01T00:30:00",
    )
    w.clock.advance(3000)
    w.restart()
    assert w.jobs("f") == []
    w.go("2020-05-01T02:00:00")
    assert len(w.jobs("f")) == 1


def test_many_submissions_in_one_batch_take_the_next_free_milliseconds() -> None:
    """§4: a submission takes the next free millisecond."""
    w = World([freerun("f", "m:f", max_active=500)], now="2020-05-01T00:00:30")
    rows = together(w, *[("submit", {"process": "f"}, {}) for _ in range(120)])
    assert {row.status for row in rows} == {200}
    assert len(w.jobs("f")) == 120


def test_an_entry_may_take_the_name_of_a_deleted_process() -> None:
    """§2 entry: a freerun process, whatever the name stood for before."""
    free = freerun("f", "m:f")
    w = World([managed("h", "m:f", "hourly"), free], start="2020050100", now="2020-05-01T03:10:00")
    w.redefine([free])
    w.command("delete", {"process": "h"})
    assert w.command("submit", {"process": "h"}, arguments={"base": "f"}).status == 200
    assert w.row("h").kind == "freerun"
    assert w.command("submit", {"process": "h"}).status == 200
    w.work_all()
    assert w.jobs("h")[-1].state == "processed"


# -- leases, conflicts, the loop ----------------------------------------------------------------------


def test_leases_are_measured_on_the_stores_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """§5: no box compares its own clock with another's."""
    w = hourly()
    skew = timedelta(minutes=10)
    now = type(w.store).now
    monkeypatch.setattr(type(w.store), "now", lambda self: now(self) - skew)
    w.restart()
    w.accept("h@2020050100#1")
    w.settle()
    assert (w.uow("h@2020050100#1").state, w.uow("h@2020050100#1").losses) == ("in_progress", 0)
    w.wait(59)
    assert w.uow("h@2020050100#1").losses == 0
    w.wait(31)
    assert w.uow("h@2020050100#1").losses == 1


def test_an_input_that_always_conflicts_does_not_spin_the_loop() -> None:
    """64: a job row that was lost and made anew meets its old uow; nothing runs twice and nothing spins."""
    w = hourly()
    w.work("h@2020050100")
    job = w.job("h@2020050100")
    lost = {"state": "embryo", "run": 0, "uow": None, "uow_open": False, "open": True, "version": 0}
    with w.store.transaction() as tx:
        tx.update([Change(type(job), job.id, {}, lost)])
    w.engine.turn([Item("uow", "h@2020050101#1")])
    w.command("set_max_active", {"process": "h"}, arguments={"value": 2})
    for _ in range(20):
        items = w.engine.due()
        if items:
            w.engine.turn(items)
    assert w.engine.sleep_s() > 0
    assert len(w.uows()) >= 2


def test_reload_after_an_outage_reads_anew_first() -> None:
    """§5: what is kept between turns is read anew after every failed commit."""
    w = hourly()
    w.engine.outage()
    w.engine.known.seq = 0
    w.engine.known.rows = {}
    w.engine.reload_context(w.timetable)
    w.settle()
    seqs = [event.seq for event in w.events()]
    assert seqs == list(range(1, len(seqs) + 1))


def test_set_clock_is_in_force_at_once_for_the_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """§5: the mapping is read by all; the leader that saved it does not wait to read it."""
    w = hourly()
    refreshed: list[int] = []
    monkeypatch.setattr(w.clock, "refresh", lambda: refreshed.append(1), raising=False)
    value = {
        "real_anchor": "2020-05-01T03:10:00+00:00",
        "business_anchor": "2020-05-01T04:10:00+00:00",
        "rate": 1.0,
    }
    w.command("set_clock", {}, arguments={"value": value})
    assert refreshed


def test_8_every_job_and_uow_state_is_said_by_its_last_event() -> None:
    """§8.8: replaying the events gives the stored states; the scheduler's numbers have no gap."""
    w = pyramid(retry=Retry(delay_s=1, jitter=0))
    w.command("skip", "h@2020050100")
    w.work("h@2020050101", "fail")
    w.accept("h@2020050102#1")
    w.command("reprocess", "h@2020050102")
    w.command("kill", "h@2020050103")
    w.command("mark_done", "h@2020050100")
    w.wait(70)
    w.work_all()
    w.command("late_data", "h@2020050105", actor="feed")
    w.work_all()
    jobs: dict[str, str] = {}
    uows: dict[str, str] = {}
    for event in w.events():
        entity, _, _ = event.kind.partition(".")
        if entity == "job" and event.data and "state" in event.data:
            jobs[f"{event.process}@{event.timeperiod}"] = event.data["state"]
        if entity == "uow" and event.ref and event.data:
            uows[str(event.uow)] = event.data["state"]
    assert uows == {uow.id: uow.state for uow in w.store.find(Uow)}
    stored = {job.id: job.state for name in ("h", "d") for job in w.jobs(name)}
    assert {**dict.fromkeys(stored, "embryo"), **jobs} == stored
    seqs = [event.seq for event in w.events()]
    assert seqs == list(range(1, len(seqs) + 1))


def test_max_active_raised_and_lowered_takes_effect_at_once() -> None:
    """§4: enforced at dispatch; an override is live at once."""
    w = hourly(max_active=2)
    w.command("set_max_active", {"process": "h"}, arguments={"value": 3})
    assert len(w.open_uows()) == 3
    w = hourly(now="2020-05-01T09:10:00", max_active=3)
    w.command("set_max_active", {"process": "h"}, arguments={"value": 1})
    w.work("h@2020050100")
    w.work("h@2020050101")
    assert len(w.open_uows()) == 1
    w.work("h@2020050102")
    assert [u.timeperiod[-2:] for u in w.open_uows()] == ["03"]


def test_73_with_a_small_window_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """73: a turn looks at the next jobs, the next turn goes on, to the end of the list."""
    w = World(
        [managed("a", "m:f", "daily", max_active=400), managed("b", "m:f", "daily", blocking="dependencies")],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])],
        start="2019010100",
        now="2020-01-01T00:10:00",
    )
    days = [u.id for u in w.open_uows("a")]
    w.command("suspend", {"process": "b"})
    w.work(days[300])
    w.work(days[200])
    w.command("resume", {"process": "b"})
    assert [u.timeperiod for u in w.open_uows("b")] == [days[200].split("@")[1][:10]]
    w.work_all("b")
    assert {j.timeperiod for j in w.jobs("b") if j.state == "processed"} == {
        d.split("@")[1][:10] for d in (days[200], days[300])
    }


# -- second reading ------------------------------------------------------------------------------------


def test_late_data_beyond_the_limit_waits_and_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """§5: beyond the cascade limit late data stays a pending command, with a critical event."""
    from scheduler.core import plan

    w = pyramid()
    w.work_all()
    monkeypatch.setattr(plan, "CASCADE_MAX", 1)
    result = w.command("late_data", "h@2020050105", actor="feed", reason="rows", expiry_s=None)
    assert (result.state, result.status) == ("pending", 409)
    w.wait(3600)
    w.restart()
    assert len(w.events("command.waits")) == 1
    assert w.job("h@2020050105").state == "processed"
    assert w.engine.due() == []


@pytest.mark.parametrize(("overlap", "jobs"), [("skip", 0), ("queue", 3), ("allow", 3)])
def test_39_firings_under_a_hold(overlap: str, jobs: int) -> None:
    """§2, §4: no new uow under a hold; `skip` drops the firing, the others wait for the release."""
    w = World([freerun("f", "m:f", trigger="every 60", overlap=overlap)], now="2020-05-01T00:00:30")
    w.command("hold", {"scope": "process:f"})
    for _ in range(3):
        w.wait(60)
    assert w.uows() == []
    assert len(w.jobs("f")) == jobs
    w.command("release", {"scope": "process:f"})
    assert len(w.open_uows()) == {"skip": 0, "queue": 1, "allow": 3}[overlap]
    w.work_all()
    assert {job.state for job in w.jobs("f")} <= {"processed"}


def test_38_more_than_a_thousand_missed_firings_are_made_up_for() -> None:
    """38: catchup all."""
    w = World(
        [freerun("f", "m:f", trigger="every 60", catchup="all", overlap="queue")],
        now="2020-05-01T00:00:30",
    )
    w.clock.advance(1500 * 60)
    w.restart()
    w.wait(1)
    assert len(w.jobs("f")) == 1500


def test_the_business_clock_a_year_ahead_opens_every_period_once() -> None:
    """§5 two clocks: business time decides periods; leases and retries do not notice."""
    from scheduler.clock import Mapping

    w = hourly()
    w.accept("h@2020050100#1")
    real = w.clock.real()
    w.clock.set_mapping(Mapping(real, real + timedelta(days=100), 1.0))
    w.settle()
    assert len(w.jobs("h")) == 4 + 2400
    assert w.uow("h@2020050100#1").state == "in_progress"
    w.clock.set_mapping(Mapping(real, real, 1.0))
    w.settle()
    assert len(w.jobs("h")) == 4 + 2400
    w.work_all("h", limit=3)


def test_a_frozen_business_clock_lets_leases_and_retries_go_on() -> None:
    """§5 two clocks: real time alone governs leases and retries."""
    from scheduler.clock import Mapping

    w = hourly(retry=Retry(delay_s=10, jitter=0))
    real = w.clock.real()
    w.clock.set_mapping(Mapping(real, real, 0.0))
    w.work("h@2020050100", "fail")
    w.clock.advance(10)
    w.settle()
    assert w.uow("h@2020050100#1").attempt == 2


def test_24_reprocess_twice_while_stopping_and_after_a_kill() -> None:
    """24: a new uow runs only after the old worker has let go, however often it is asked for."""
    w = pyramid()
    w.accept("h@2020050100#1")
    w.command("kill", "h@2020050100")
    for _ in range(2):
        assert w.command("reprocess", "h@2020050100").status == 200
    assert (w.job("h@2020050100").state, w.job("h@2020050100").run) == ("embryo", 1)
    w.stopped("h@2020050100#1")
    assert w.job("h@2020050100").run == 2
    w.work_all()
    assert w.job("d@2020050100").state == "processed"
    assert w.job("h@2020050100").run == 2


def test_72_mark_done_of_a_running_job_lets_nothing_start_before_its_worker_let_go() -> None:
    """§4 one at a time: to others it counts as unfinished whatever its state."""
    w = pyramid()
    w.accept("h@2020050100#1")
    assert w.command("mark_done", "h@2020050100").status == 200
    w.work_all("h")
    assert w.job("h@2020050100").state == "processed"
    assert w.open_uows("d") == []
    assert w.explain("d@2020050100").roots[0][1].code == "stopping"
    w.stopped("h@2020050100#1")
    assert [u.id for u in w.open_uows("d")] == ["d@2020050100#1"]


def test_72_skip_of_a_day_whose_hours_still_run() -> None:
    """§4: the canceled hours hold up their own re-run, and nothing is lost after a reprocess of the day."""
    w = pyramid()
    w.accept("h@2020050100#1")
    w.command("skip", "d@2020050100")
    assert w.job("h@2020050100").stopping == "h@2020050100#1"
    w.command("reprocess", "h@2020050100")
    w.command("reprocess", "d@2020050100")
    assert w.open_uows() == []
    w.wait(60)
    assert [u.id for u in w.open_uows()] == ["h@2020050100#2"]
    w.work_all()
    assert w.job("d@2020050100").state == "processed"


def test_a_parent_in_flight_is_canceled_when_a_lowered_start_shows_its_children() -> None:
    """§5: each non-embryo ancestor is reprocessed if the row is unfinished, running ones too."""
    processes = [
        managed("h", "m:f", "hourly", max_active=30),
        managed("d", "m:f", "daily", blocking="children"),
    ]
    trees = [tree("t", ["h", "d"])]
    w = World(processes, trees, start="2020050112", now=NOW)
    w.work_all("h")
    w.accept("d@2020050100#1")
    w.redefine(processes, trees, "2020050111")
    assert w.uow("d@2020050100#1").state == "canceled"
    w.work("h@2020050111")
    assert w.job("d@2020050100").run == 1
    w.stopped("d@2020050100#1")
    assert w.job("d@2020050100").run == 2


def test_late_data_leaves_an_ancestor_that_a_person_closed_and_says_so() -> None:
    """§4: a job that a person skipped, killed or marked done is not reopened by late data."""
    w = pyramid()
    w.work_all("h")
    w.command("mark_done", "d@2020050100")
    w.command("late_data", "h@2020050105", actor="feed", reason="rows")
    assert w.job("d@2020050100").state == "processed"
    assert len(w.events("job.left")) == 1
    w.work_all()
    assert w.job("d@2020050100").run == 1


def test_late_data_twice_while_the_cascade_runs_ends_with_fresh_results() -> None:
    """§8.3: at rest no result is older than its inputs, by event number."""
    w = pyramid()
    w.work_all()
    w.command("late_data", "h@2020050105", actor="feed", reason="a")
    w.work("h@2020050105")
    w.accept("d@2020050100#2")
    w.command("late_data", "h@2020050106", actor="feed", reason="b")
    assert w.job("d@2020050100").again == "b"
    w.work("d@2020050100#2")
    w.work_all()
    day, hour = w.job("d@2020050100"), w.job("h@2020050106")
    assert (day.state, day.run) == ("processed", 3)
    assert hour.settled_seq < day.requested_seq


def test_readiness_of_a_suspended_or_held_process_is_asked_when_it_may_run() -> None:
    """§4 readiness: no uow while suspended; wait_timeout stands still under a hold."""
    from scheduler.core.process import Readiness

    w = hourly(readiness=Readiness("m:ready", every_s=300, wait_timeout_s=1000))
    w.work(w.open_uows()[0].id, "no_data")
    w.command("hold", {"scope": "process:h"})
    w.wait(5000)
    w.command("release", {"scope": "process:h"})
    w.wait(31)
    assert w.job("h@2020050100").state == "embryo"
    check = next(u for u in w.open_uows() if u.timeperiod == "2020050100")
    w.work(check.id)
    assert w.job("h@2020050100").state == "in_progress"


def test_a_weekly_process_over_days_and_one_after_last_week() -> None:
    """3, §4: weeks nest days; `offset=-1` of itself is strict order; before the start it counts as finished."""
    w = World(
        [
            managed("d", "m:f", "daily", max_active=30),
            managed(
                "k",
                "m:f",
                "weekly",
                blocking="dependencies",
                max_active=9,
                depends_on=["d", after("k", -1)],
            ),
        ],
        start="2020050400",
        now="2020-05-18T00:10:00",
    )
    assert w.open_uows("k") == []
    w.work_all("d")
    assert [u.timeperiod for u in w.open_uows("k")] == ["2020050400"]
    w.work_all("k")
    assert w.states("k") == ["processed", "processed", "embryo"]


def test_an_expired_command_changes_nothing() -> None:
    """§5: too late → `expired`."""
    w = hourly()
    id_ = control.submit(w.store, w.broker, "kill", {"jobs": ["h@2020050100"]}, actor="anna", expiry_s=10)
    w.clock.advance(11)
    w.settle()
    row = control.wait(w.store, id_, 0)
    assert (row.state, row.status) == ("expired", 409)
    assert w.job("h@2020050100").uow_open


def test_at_rest_nothing_is_due() -> None:
    """§5: the loop sleeps; no state of the world keeps it busy."""
    w = pyramid(retry=Retry(delay_s=10, jitter=0))
    w.work("h@2020050100", "fail")
    w.accept("h@2020050101#1")
    w.accept("h@2020050102#1")
    w.command("kill", "h@2020050102")
    w.command("suspend", {"process": "h"})
    w.command("hold", {"scope": "*"})
    for _ in range(6):
        w.wait(3600)
        assert w.engine.due() == []
        assert w.engine.sleep_s() > 0


@pytest.mark.parametrize("how", ["release", "until"])
def test_after_a_hold_a_failed_slice_yields_to_the_final_run_at_once(how: str) -> None:
    """§4: at the close an invalid slice is canceled; a hold that stood over the close only delays it."""
    slow = Retry(delay_s=7200, jitter=0, max_delay_s=7200)
    w = World(
        [managed("h", "m:f", "hourly", state_machine="continuous", trigger="every 300", retry=slow)],
        start="2020050103",
        now="2020-05-01T03:10:00",
    )
    w.work(w.open_uows()[0].id, "fail")
    until = (w.clock.real() + timedelta(seconds=5000)).isoformat()
    w.command("hold", {"scope": "process:h"}, arguments={"until": until})
    w.go("2020-05-01T04:20:00")
    assert w.uow("h@2020050103#1").state == "invalid"
    if how == "release":
        w.command("release", {"scope": "process:h"})
    else:
        w.wait(1000)
    assert (w.job("h@2020050103").state, w.uow("h@2020050103#1").state) == ("final_run", "canceled")


def test_63_a_suspended_process_is_resumed_before_it_is_retried() -> None:
    """§4: suspended, an invalid uow is not retried; the answer says what is to be done."""
    w = hourly(retry=Retry(delay_s=100, jitter=0))
    w.work("h@2020050100", "fail")
    w.command("suspend", {"process": "h"})
    result = w.command("retry", "h@2020050100")
    assert (result.status, result.message) == (409, "process 'h' is suspended; resume it first")
    w.command("resume", {"process": "h"})
    assert w.command("retry", "h@2020050100").status == 200


def test_34_a_paused_leader_whose_hold_ended_steps_back() -> None:
    """§8.12: two schedulers never both commit, also outside a turn."""
    from scheduler.core.errors import Conflict, LeaseLost
    from scheduler.engine import Engine

    w = hourly()
    until = (w.clock.real() + timedelta(seconds=30)).isoformat()
    w.command("hold", {"scope": "*"}, arguments={"until": until})
    w.clock.advance(60)
    other = Engine(w.store, w.broker, w.clock, w.timetable, holder="other")
    assert other.lead()
    other.turn(other.due())
    other.turn(other.due())
    before = w.events()
    for _ in range(3):
        try:
            w.engine.turn(w.engine.due())
        except Conflict:
            continue
        except LeaseLost:
            break
    assert w.engine.lease is None
    assert w.events() == before
