"""Writing a file so that an older execution can never overwrite a newer one's: `file_sink`.

The same contract as `worker.sink`, for a file system: the output is written beside the target and renamed into its
place at the end, under a lock and only if no newer execution of this job has done so before::

    with file_sink(f"out/{task.timeperiod}.csv", task) as path:
        path.write_text("…")

The largest token is in a small hidden file beside the target, one for each target and job; it is written, and
synced, before the rename. Whoever dies between the two has replaced nothing, and the next attempt, whose token is
larger, may. Readers see the old file or the new one, never a half.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scheduler.core.errors import ConfigError
from worker.api import SinkToken, Task
from worker.sink import refuse_older


@contextmanager
def file_sink(target: str | Path, task: Task) -> Iterator[Path]:
    """A path to write to; what is there at the end of the block replaces `target`, all or nothing.

    On an exception `target` stays as it is. Raises LeaseLost if a newer execution of this job has written already,
    ConfigError if `target` is a folder, or if nothing was written.
    """
    target = Path(target)
    if target.is_dir():
        raise ConfigError(
            f"{task.process}@{task.timeperiod}: the sink {target} is a folder; name a file in it"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with _tokens(target, task) as (seen, _):
            refuse_older(task, seen)  # before the work, so that it is not done in vain
        yield beside
        if not beside.exists():
            raise ConfigError(
                f"{task.process}@{task.timeperiod}: nothing was written to the path that file_sink gave"
            )
        _sync(beside)
        with _tokens(target, task) as (seen, keep):
            refuse_older(task, seen)
            keep(task.token)
            beside.replace(target)
        _sync(target.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _tokens(target: Path, task: Task) -> Iterator[tuple[SinkToken, Callable[[SinkToken], None]]]:
    """The largest token so far, and how to keep a larger one; locked: two must not both find it small."""
    path = target.with_name(f".{target.name}.{task.process}@{task.timeperiod}.token")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def keep(token: SinkToken) -> None:  # of a fixed width, in one write: there is never half a token
        os.pwrite(descriptor, b"%012d %012d\n" % tuple(token), 0)
        os.fsync(descriptor)

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield _parsed(os.pread(descriptor, 64, 0), path), keep
    finally:
        os.close(descriptor)


def _parsed(line: bytes, path: Path) -> SinkToken:
    """The token in a token file; (0, 0) if it is new. Raises ConfigError if it is not ours."""
    words = line.split()
    if not line:
        return SinkToken(0, 0)
    if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()):
        raise ConfigError(f"{path} is not a token of a file_sink; remove it if you know where it comes from")
    return SinkToken(int(words[0]), int(words[1]))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
