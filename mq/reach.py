"""How the embedded broker reaches its consumers: between processes (`Machine`), or inside one (`Inside`).

Both give out consumer ids with doorbells, ring them, and tell who is dead. They know nothing of messages.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from typing import Protocol

from mq import wakeup
from mq.liveness import RollCall
from mq.wakeup import Doorbell, EventBell, SocketBell
from scheduler.core.errors import BrokerUnavailable


class Reach(Protocol):
    """The consumers of one queue file, as ids, bells and deaths."""

    def enrol(self) -> tuple[int, Doorbell]:
        """A new consumer: alive, with its bell hung, before anybody hears of it. Raises BrokerUnavailable."""

    def dismiss(self, consumer: int, bell: Doorbell) -> None:
        """It is gone; may be called twice."""

    def ring(self, bells: Mapping[int, str], kind: bytes) -> list[int]:
        """Ring the bells (id → address); returns behind which nobody seems to be."""

    def dead(self, consumers: Iterable[int]) -> list[int]:
        """Which of these are certainly dead."""

    def edition(self) -> bytes:
        """Another value whenever the list of consumers changed."""

    def new_edition(self) -> None:
        """The list of consumers changes; called inside the write transaction that changes it."""

    def forget(self, bells: Mapping[int, str]) -> None:
        """Take away what the dead left lying about."""

    def close(self) -> None:
        """Let go of everything."""


class Machine:
    """Between the processes of one machine: byte locks tell who lives, datagrams ring."""

    def __init__(self, queue_file: str) -> None:
        self._queue_file = queue_file
        try:
            self._roll_call = RollCall.join(os.path.realpath(queue_file) + ".alive")
        except OSError as error:
            raise BrokerUnavailable(f"{queue_file}.alive cannot be used: {error.strerror}") from error
        self._ringer = wakeup.ringer()

    def enrol(self) -> tuple[int, Doorbell]:
        """As `Reach.enrol`; also removes sockets that a killed process left."""
        consumer = self._roll_call.enrol()
        try:
            return consumer, self._hang(consumer)
        except OSError as error:
            self._roll_call.dismiss(consumer)
            raise BrokerUnavailable(
                f"no wake-up socket for {self._queue_file}: {error.strerror}; expected a temporary folder "
                "(TMPDIR) of this user's own that can be written"
            ) from error

    def _hang(self, consumer: int) -> Doorbell:
        for _ in range(10):
            folder = wakeup.runtime_folder(self._queue_file)
            if folder is not None:
                for stale, address in wakeup.socket_files(folder):
                    if not self._roll_call.is_alive(stale):
                        wakeup.unlink_socket(address)
            try:
                return SocketBell(folder, consumer)
            except FileNotFoundError:
                continue  # the last one to leave took the folder away just now
        return SocketBell(None, consumer)

    def dismiss(self, consumer: int, bell: Doorbell) -> None:
        """As `Reach.dismiss`."""
        bell.close()
        self._roll_call.dismiss(consumer)

    def ring(self, bells: Mapping[int, str], kind: bytes) -> list[int]:
        """As `Reach.ring`."""
        return [
            consumer for consumer, address in bells.items() if not wakeup.ring(self._ringer, address, kind)
        ]

    def dead(self, consumers: Iterable[int]) -> list[int]:
        """As `Reach.dead`."""
        return [consumer for consumer in consumers if not self._roll_call.is_alive(consumer)]

    def edition(self) -> bytes:
        """As `Reach.edition`."""
        return self._roll_call.edition()

    def new_edition(self) -> None:
        """As `Reach.new_edition`."""
        self._roll_call.new_edition()

    def forget(self, bells: Mapping[int, str]) -> None:
        """As `Reach.forget`."""
        for address in bells.values():
            wakeup.unlink_socket(address)

    def close(self) -> None:
        """As `Reach.close`."""
        self._roll_call.leave()
        self._ringer.close()


class Inside:
    """Inside one process, without files, sockets or deaths; ids count from 1, so runs repeat exactly."""

    def __init__(self) -> None:
        self._bells: dict[int, EventBell] = {}
        self._ids = itertools.count(1)
        self._edition = bytes(8)

    def enrol(self) -> tuple[int, Doorbell]:
        """As `Reach.enrol`."""
        consumer = next(self._ids)
        self._bells[consumer] = bell = EventBell(consumer)
        return consumer, bell

    def dismiss(self, consumer: int, bell: Doorbell) -> None:
        """As `Reach.dismiss`."""
        self._bells.pop(consumer, None)

    def ring(self, bells: Mapping[int, str], kind: bytes) -> list[int]:
        """As `Reach.ring`."""
        for consumer in bells:
            if bell := self._bells.get(consumer):
                bell.ring(kind)
        return []

    def dead(self, consumers: Iterable[int]) -> list[int]:
        """Nobody dies without the process."""
        return []

    def edition(self) -> bytes:
        """As `Reach.edition`."""
        return self._edition

    def new_edition(self) -> None:
        """As `Reach.new_edition`."""
        self._edition = (int.from_bytes(self._edition, "big") + 1).to_bytes(8, "big")

    def forget(self, bells: Mapping[int, str]) -> None:
        """Nothing lies about."""

    def close(self) -> None:
        """Nothing to let go of."""
