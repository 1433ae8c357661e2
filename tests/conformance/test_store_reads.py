"""The contract of the `Store` port, against every adapter: find, select, count and get; and delete by condition."""

from __future__ import annotations

import pytest

from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Store, Where
from scheduler.core.records import LogChunk
from scheduler.core.uow import Uow
from tests.conformance.store_records import H, T, event, ids, insert, job, uow


def test_order_is_total(store: Store) -> None:
    records = [
        event(source, seq, severity=s)
        for source, seq, s in (("b", 2, "x"), ("a", 1, "y"), ("b", 1, "x"), ("a", 2, "x"))
    ]
    insert(store, *records)

    def found(*order: str) -> list[tuple[str, int]]:
        return [(e.source, e.seq) for e in store.find(Event, order=order)]

    assert found() == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert found("severity") == [("a", 2), ("b", 1), ("b", 2), ("a", 1)]
    assert found("-severity") == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert found("-seq") == [("a", 2), ("b", 2), ("a", 1), ("b", 1)]
    assert found("-source", "-seq") == [("b", 2), ("b", 1), ("a", 2), ("a", 1)]


def test_nulls_come_first_and_text_is_ordered_by_code_point(store: Store) -> None:
    names = ["a", "B", "é", "z", "🚲", "￿", "A b"]
    insert(store, *(uow(n, owner=name) for n, name in enumerate(names)), uow(50))
    owners = [owner for (owner,) in store.select(Uow, ["owner"], order=["owner"])]
    assert owners == [None, *sorted(names)]
    assert [owner for (owner,) in store.select(Uow, ["owner"], order=["-owner"])] == owners[::-1]


def test_limit(store: Store) -> None:
    insert(store, *(job(n) for n in range(5)))
    assert ids(store.find(Job, order=["-start"], limit=2)) == ["p@004", "p@003"]
    assert store.select(Job, ["timeperiod"], [Where("start", ">=", T + 3 * H)], limit=10) == [
        ("003",),
        ("004",),
    ]
    assert store.find(Job, limit=0) == []


WHERE: dict[str, tuple[list[Where], str]] = {
    "=": ([Where("owner", "=", "Ab")], "1"),
    "= is sensitive to case": ([Where("owner", "=", "ab")], "2"),
    "= None": ([Where("owner", "=", None)], "0"),
    "!=": ([Where("owner", "!=", "Ab")], "234"),
    "!= None": ([Where("owner", "!=", None)], "1234"),
    "<": ([Where("owner", "<", "ab")], "13"),
    "<=": ([Where("owner", "<=", "ab")], "123"),
    ">": ([Where("owner", ">", "ab")], "4"),
    ">=": ([Where("owner", ">=", "ab")], "24"),
    "in": ([Where("owner", "in", ["Ab", "a_c%", "x"])], "13"),
    "in a set": ([Where("owner", "in", {"ab"})], "2"),
    "in nothing": ([Where("owner", "in", [])], ""),
    "null": ([Where("owner", "null")], "0"),
    "notnull": ([Where("owner", "notnull")], "1234"),
    "prefix": ([Where("owner", "prefix", "a")], "23"),
    "prefix with a sign": ([Where("owner", "prefix", "a_")], "3"),
    "prefix of nothing": ([Where("owner", "prefix", "")], "1234"),
    "prefix at the edge": ([Where("owner", "prefix", "b\ud7ff")], "4"),
    "contains": ([Where("owner", "contains", "b")], "124"),
    "contains a sign": ([Where("owner", "contains", "%")], "3"),
    "contains nothing": ([Where("owner", "contains", "zz")], ""),
    "several": ([Where("owner", "notnull"), Where("run", ">", 2), Where("run", "<=", 3)], "3"),
    "flag": ([Where("dirty", "=", True)], "02"),
    "no flag": ([Where("dirty", "!=", True)], "134"),
    "state": ([Where("state", "=", "invalid")], "1"),
    "no state": ([Where("state", "!=", "invalid")], "0234"),
    "states": ([Where("state", "in", ("requested", "invalid"))], "0124"),
    "states of any kind": ([Where("state", "in", ["processed", "o'clock"])], "3"),
    "no such state": ([Where("state", "=", "o'clock")], ""),
    "states not": ([Where("state", "in", [])], ""),
    "time": ([Where("start", ">", T), Where("start", "<", T + 3 * H)], "12"),
    "times": ([Where("start", "in", [T, T + 4 * H])], "04"),
    "time null": ([Where("due_at", "<=", T + H)], "1"),
    "json": ([Where("arguments", "=", {"n": 1})], "1"),
}


@pytest.mark.parametrize("case", WHERE)
def test_conditions(store: Store, case: str) -> None:
    where, expected = WHERE[case]
    insert(
        store,
        uow(0, dirty=True, run=0),
        uow(1, owner="Ab", state="invalid", due_at=T, arguments={"n": 1}, run=1),
        uow(2, owner="ab", dirty=True, run=2, due_at=T + 2 * H),
        uow(3, owner="a_c%", state="processed", run=3),
        uow(4, owner="b\ud7ffb", run=4),
    )
    found = [str(n) for (n,) in store.select(Uow, ["run"], where)]
    assert "".join(found) == expected
    assert [str(u.run) for u in store.find(Uow, where)] == found
    assert store.count(Uow, where) == {(): len(found)}
    with store.transaction() as transaction:
        assert [str(u.run) for u in transaction.find(Uow, where)] == found
        assert transaction.delete(Uow, where) == len(found)
    assert store.count(Uow) == {(): 5 - len(found)}


@pytest.mark.parametrize("n", [1, 2, 3, 64, 65, 1_000, 10_000, 20_000])
def test_in_of_many(store: Store, n: int) -> None:
    insert(store, *(job(i) for i in range(70)))
    assert len(store.find(Job, [Where("id", "in", [f"p@{i:03}" for i in range(n)])])) == min(n, 70)


def test_select_gives_tuples_in_the_asked_order(store: Store) -> None:
    insert(store, uow(1, due_at=T, arguments={"a": 1}))
    assert store.select(Uow, ["state", "due_at", "id", "arguments", "dirty", "owner"]) == [
        ("requested", T, "p@001#1", {"a": 1}, False, None)
    ]
    assert store.select(Uow, ["id"]) == [("p@001#1",)]


def test_count(store: Store) -> None:
    insert(
        store,
        *(job(n, state="embryo" if n % 3 else "skipped", open=bool(n % 3), ready=None) for n in range(7)),
    )
    assert store.count(Job) == {(): 7}
    assert store.count(Job, [Where("open", "=", True)]) == {(): 4}
    assert store.count(Job, by=["state"]) == {("embryo",): 4, ("skipped",): 3}
    assert store.count(Job, by=("process", "open", "ready")) == {("p", True, None): 4, ("p", False, None): 3}
    assert store.count(Job, [Where("start", ">", T + 99 * H)]) == {(): 0}
    assert store.count(Job, [Where("start", ">", T + 99 * H)], ["state"]) == {}
    assert store.count(Job, by=["start"])[(T,)] == 1


def test_get(store: Store) -> None:
    insert(store, job(1), LogChunk(uow="u", attempt=1, n=2, at=T, text="x"))
    assert store.get(Job, "p@001") == job(1)
    assert store.get(Job, "p@002") is None
    assert store.get(LogChunk, "u", 1, 2) is not None
    assert store.get(LogChunk, "u", 2, 2) is None


def test_delete(store: Store) -> None:
    insert(store, *(job(n) for n in range(5)), uow(1))
    with store.transaction() as transaction:
        assert transaction.delete(Job, [Where("start", "<", T + 2 * H)]) == 2
        assert transaction.delete(Job, [Where("id", "=", "nobody")]) == 0
    assert ids(store.find(Job)) == ["p@002", "p@003", "p@004"]
    with store.transaction() as transaction:
        assert transaction.delete(Job, []) == 3
    assert store.find(Job) == []
    assert store.find(Uow) == [uow(1)]
