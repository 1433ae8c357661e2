"""What is started on entering a `with` block and closed on leaving it: one server, or a set of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Living(ABC):
    """A context manager: started at its beginning, closed at its end, and closed when it could not be started."""

    @abstractmethod
    def start(self) -> Self:
        """Start it, and return when it answers. Raises ServerError."""

    @abstractmethod
    def close(self) -> None:
        """End it and delete what it made. May be called twice."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:  # raised again: an interrupt too must leave no process behind
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
