"""The simulation over RabbitMQ: the adapter that runs in production, under a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.servers import shared
from simulation.run import Run, run_seed

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


@pytest.fixture
def url() -> Iterator[str]:
    server = shared("rabbitmq")
    url = server.fresh()
    yield url
    server.delete(url)


def final_jobs(seed: int, **given: str) -> dict[str, str]:
    run = Run(seed, calm=True, **given)  # type: ignore[arg-type]
    result = run.play()
    assert result.ok, result.text
    return {id_: job.state for id_, job in run.checker.model.jobs.items()}


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_the_same_final_jobs_as_in_memory(url: str, kind: str) -> None:
    """Nothing is drawn by lot in a calm world, so they must be the same."""
    assert final_jobs(2, broker=f"{url}?queues={kind}") == final_jobs(2)


def test_no_invariant_is_broken_in_bad_weather(url: str) -> None:
    """Crashes, freezes, outages, losses, doubles and delays, over real queues."""
    result = run_seed(3, broker=url)
    assert result.ok, "\n".join([result.text, *result.story])
    assert result.events > 1000
