"""The bounded buffer between what an attempt prints and the store: the first megabyte, and the end.

Bytes come from the pipe behind descriptors 1 and 2 of the child, so print, logging and the output of anything it
starts are all in it, in order. Text goes out in pieces while it runs. Beyond the limit only the last piece is
kept, and given at the end behind a line that says how much is left out.
"""

from __future__ import annotations

import codecs

HEAD = 960 * 1024  # bytes that are given as they come
TAIL = 64 * 1024  # bytes kept of the rest


class Capture:
    """The output of one attempt."""

    def __init__(self, head: int = HEAD, tail: int = TAIL) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._head_left, self._tail_size = head, tail
        self._text: list[str] = []
        self._tail = bytearray()
        self._left_out = 0

    @property
    def has_text(self) -> bool:
        """Something waits to be taken."""
        return bool(self._text)

    def feed(self, data: bytes) -> None:
        """It printed `data`."""
        if self._head_left > 0:
            now, data = data[: self._head_left], data[self._head_left :]
            self._head_left -= len(now)
            text = self._decoder.decode(now)
            if text:
                self._text.append(text)
        if data:
            self._tail += data
            surplus = len(self._tail) - self._tail_size
            if surplus > self._tail_size:  # cut rarely: each cut copies
                self._left_out += surplus
                del self._tail[:surplus]

    def take(self) -> str:
        """What was printed since the last call, as far as it is not beyond the limit."""
        text = "".join(self._text)
        self._text.clear()
        return text.replace("\x00", "�")  # some stores refuse it

    def close(self) -> str:
        """The rest: what was not taken yet, and behind the limit the end."""
        if self._tail:
            surplus = max(0, len(self._tail) - self._tail_size)
            left_out = self._left_out + surplus
            if left_out:
                self._text.append(f"\n[… {left_out:,} bytes left out: the log of an attempt is bounded …]\n")
            self._text.append(self._decoder.decode(bytes(self._tail[surplus:])))
            self._tail.clear()
        self._text.append(self._decoder.decode(b"", final=True))
        return self.take()
