"""Every state is said by the last event of what is in it, and the numbers of the events have no gap (§8.8)."""

from __future__ import annotations

from scheduler.core.process import Retry, freerun, managed
from scheduler.core.records import ProcessRow
from scheduler.core.uow import Uow
from tests.scenario.worlds import pyramid
from tests.world import World


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
