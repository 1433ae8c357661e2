"""Every cell of the three state machines, legal and illegal."""

from __future__ import annotations

import itertools

import pytest

from scheduler.core.errors import InvalidTransition
from scheduler.core.lifecycle import JOB, JOB_FINISHED, LIFECYCLES, PROCESS, UOW, UOW_FINISHED, Lifecycle

LEGAL = {
    "job": """
        embryo dispatch in_progress | in_progress dispatch in_progress
        embryo dispatch_final final_run | in_progress dispatch_final final_run
        in_progress complete processed | final_run complete processed
        in_progress no_data noop | final_run no_data noop
        embryo skip skipped | in_progress skip skipped | final_run skip skipped
        embryo reprocess embryo | in_progress reprocess embryo | final_run reprocess embryo
        processed reprocess embryo | skipped reprocess embryo | noop reprocess embryo
        embryo mark_done processed | in_progress mark_done processed | final_run mark_done processed
        skipped mark_done processed
    """,
    "unit of work": """
        requested accept in_progress | in_progress succeed processed | in_progress no_data noop
        in_progress fail invalid | requested fail invalid | invalid retry requested
        in_progress release requested | invalid give_up canceled
        requested cancel canceled | in_progress cancel canceled | invalid cancel canceled
    """,
    "process": """
        new schedule scheduled | scheduled schedule scheduled
        scheduled suspend suspended | suspended suspend suspended | suspended resume scheduled
        new expire expired | scheduled expire expired | suspended expire expired | expired expire expired
        new delete deleted | scheduled delete deleted | suspended delete deleted | expired delete deleted
        deleted delete deleted
    """,
}


def legal(lifecycle: Lifecycle) -> dict[tuple[str, str], str]:
    cells = [cell.split() for row in LEGAL[lifecycle.name].strip().splitlines() for cell in row.split("|")]
    return {(state, verb): after for state, verb, after in cells}


@pytest.mark.parametrize("lifecycle", LIFECYCLES, ids=lambda machine: machine.name)
def test_every_cell(lifecycle: Lifecycle) -> None:
    expected = legal(lifecycle)
    for state, verb in itertools.product(lifecycle.states, lifecycle.all_verbs):
        if (state, verb) in expected:
            assert lifecycle.successor("x", state, verb) == expected[state, verb]
            assert verb in lifecycle.verbs(state)
        else:
            with pytest.raises(InvalidTransition) as caught:
                lifecycle.successor("job x", state, verb)
            text = str(caught.value)
            assert state in text and verb in text and all(v in text for v in lifecycle.verbs(state))
            assert verb not in lifecycle.verbs(state)
    assert dict(lifecycle.cells) == expected


def test_terminal_stays_terminal() -> None:
    for state in UOW_FINISHED:
        assert UOW.verbs(state) == ()
    for finished in JOB_FINISHED:
        assert set(JOB.verbs(finished)) <= {"reprocess", "mark_done"}
    assert PROCESS.verbs("deleted") == ("delete",)


def test_an_unknown_verb_is_illegal() -> None:
    with pytest.raises(InvalidTransition, match="explode"):
        JOB.successor("job x", "embryo", "explode")
