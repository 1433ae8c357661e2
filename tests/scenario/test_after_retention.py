"""After retention: nothing begins again, and every verb and page copes with what is gone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Where
from scheduler.core.process import Retry, freerun, managed, tree
from scheduler.core.uow import Uow
from scheduler.retention import Policy
from tests.integration.mx.mx_client import make_client
from tests.scenario.retention_world import (
    DAY,
    HOUR,
    check_replay,
    dump,
    events_of,
    live,
    make_world,
    prune_all,
)
from tests.world import World


def test_after_pruning_and_a_restart_nothing_is_made_run_or_reopened() -> None:
    world = make_world()
    live(world, "2020-05-05T12:10")
    jobs = dump(world, Job)
    freeruns = {job.id for job in world.jobs("sweeper")}
    prune_all(world)
    gone = freeruns - {job.id for job in world.jobs("sweeper")}
    uows, events, messages = dump(world, Uow), len(world.events()), world.messages()
    world.restart()
    world.restart()
    assert dump(world, Job) == "\n".join(
        line for line in jobs.splitlines() if not any(f"id='{id_}'" in line for id_ in gone)
    )
    assert dump(world, Uow) == uows
    assert world.messages() == messages
    assert len(world.events()) == events


def test_an_old_hour_is_reprocessed_with_a_higher_run_and_summed_up_again() -> None:
    world = make_world()
    live(world, "2020-05-05T12:10")
    prune_all(world)
    run, day = world.job(HOUR).run, world.job(DAY).run
    assert world.store.get(Uow, f"{HOUR}#{run}") is None
    outcome = world.command("reprocess", HOUR, reason="wrong prices")
    assert outcome.state == "done", outcome.message
    assert world.job(HOUR).state == "in_progress"
    assert world.job(HOUR).run == run + 1
    assert world.job(DAY).state == "embryo"
    world.work_all()
    assert world.job(HOUR).state == world.job(DAY).state == "processed"
    assert (world.job(HOUR).run, world.job(DAY).run) == (run + 1, day + 1)
    assert world.job(HOUR).generation == 1
    check_replay(world)

    live(world, "2020-05-09T12:10")
    prune_all(world)
    kinds = [event.kind for event in events_of(world, "hourly", "2020050100")]
    assert kinds == ["job.reprocess", "job.snapshot"], "the act of a person, and the record"
    check_replay(world)


def test_every_verb_copes_with_a_job_whose_units_of_work_are_gone() -> None:
    world = make_world()
    live(world, "2020-05-01T05:10")
    assert world.command("skip", "hourly@2020050104").status == 200
    live(world, "2020-05-05T12:10")
    gone = str(world.jobs("sweeper")[0].id)
    prune_all(world)
    assert world.store.get(Uow, str(world.job(HOUR).uow)) is None
    world.explain(HOUR)
    for verb, job, status in (
        ("kill", HOUR, 409),
        ("retry", HOUR, 409),
        ("skip", HOUR, 409),
        ("run_now", HOUR, 409),
        ("mark_done", HOUR, 409),
        ("mark_done", "hourly@2020050104", 200),
        ("late_data", HOUR, 200),
        ("reprocess", DAY, 200),
        ("reprocess", gone, 404),
        ("late_data", gone, 200),
    ):
        outcome = world.command(verb, job)
        assert outcome.status == status, (verb, job, outcome)
    world.work_all()
    assert world.job(DAY).state == "processed"
    assert world.job(HOUR).state == "processed"
    check_replay(world)


def test_the_dashboard_copes_with_a_job_whose_units_of_work_are_gone() -> None:
    world = make_world()
    live(world, "2020-05-05T12:10")
    gone = world.jobs("sweeper")[0].timeperiod
    prune_all(world)
    client = make_client(world)
    headers = {"Host": "localhost", "Accept": "text/html"}
    for path, status in (
        ("/", 200),
        ("/timetable", 200),
        ("/jobs?state=processed", 200),
        ("/jobs/hourly/2020050100", 200),
        ("/jobs/daily/2020050100", 200),
        ("/jobs/hourly/2020050100?run=1", 404),
        ("/jobs/hourly/2020050100/log", 404),
        (f"/jobs/sweeper/{gone}", 404),
        ("/api/jobs/hourly/2020050100", 200),
        ("/api/jobs/hourly/2020050100/plan?verb=reprocess", 200),
    ):
        assert client.get(path, headers=headers).status_code == status, path


VERBS = ("reprocess", "skip", "mark_done", "kill", "retry", "run_now", "late_data")
ENDINGS = ("succeed", "succeed", "succeed", "fail", "no_data")


@pytest.mark.parametrize("seed", range(4))
def test_a_world_that_is_pruned_all_the_time_decides_as_one_that_never_is(seed: int) -> None:
    """Ages of no days, a pass at every step: whatever a rule still needs would be missed here."""
    worlds = [make_mixed(), make_mixed()]
    rng = random.Random(seed)
    for _ in range(60):
        step = make_step(rng, worlds[0])
        for world in worlds:
            step(world)
        prune_all(worlds[1], policy=Policy(0, 0, 0))
        assert dump_managed(worlds[0]) == dump_managed(worlds[1])
        check_replay(worlds[1])
    check_replay(worlds[0])
    assert worlds[1].store.count(Event)[()] < worlds[0].store.count(Event)[()] / 2
    assert worlds[1].store.count(Uow)[()] < worlds[0].store.count(Uow)[()] / 2


def make_mixed() -> World:
    """All machines, and a freerun process."""
    quick = Retry(max_retries=1, delay_s=60.0, jitter=0.0)
    return World(
        [
            managed("hourly", "x.y:z", "hourly", time_grouping=4, max_active=3, retry=quick),
            managed("daily", "x.y:z", "daily", trigger="every 3600", state_machine="recomputing"),
            managed("other", "x.y:z", "hourly", time_grouping=4, state_machine="continuous", retry=quick),
            managed("strict", "x.y:z", "daily", blocking="dependencies", depends_on=["daily"]),
            freerun("sweeper", "x.y:z", trigger="every 21600"),
        ],
        [tree("t", ["hourly", "daily"])],
        start="2020050100",
        now="2020-05-01T00:10",
    )


def dump_managed(world: World) -> list[Any]:
    """The jobs, whole, and what is unfinished."""
    jobs = [job for job in world.store.find(Job) if job.process != "sweeper" or job.open]
    return [*jobs, *world.uows(Where("state", "in", ("requested", "in_progress", "invalid")))]


def make_step(rng: random.Random, world: World) -> Callable[[World], object]:
    """Something that happens, drawn by what there is in `world`."""
    waiting = [uow.id for uow in world.open_uows() if uow.state == "requested"]
    kind = rng.choice(("wait", "work", "work", "work", "command"))
    if kind == "work" and waiting:
        ends = {id_: rng.choice(ENDINGS) for id_ in rng.sample(waiting, min(3, len(waiting)))}
        return lambda w: [w.work(id_, verb) for id_, verb in ends.items() if w.uow(id_).state == "requested"]
    if kind == "command":
        jobs = [job.id for job in world.store.find(Job) if job.process != "sweeper"]
        verb, job = rng.choice(VERBS), rng.choice(jobs)
        actor = "hourly" if verb == "late_data" else "anna"
        return lambda w: w.command(verb, job, actor=actor)
    seconds = rng.choice((120, 3600, 4 * 3600))
    return lambda w: w.wait(seconds)
