"""Tables for people, as wide as their window; a pipe gets whole lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence

WIDTH_OF_A_PIPE = 200


def show(headers: Sequence[str], rows: Sequence[Sequence[object]], styles: Sequence[str] = ()) -> None:
    """Print a table. `styles`: one rich style a row, or none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header != "message")
    for number, row in enumerate(rows):
        cells = [Text("" if cell is None else str(cell)) for cell in row]
        table.add_row(*cells, style=styles[number] if styles else None)
    Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_PIPE).print(table)


def span(seconds: float) -> str:
    """A length of time for people: 5 s, 12 min, 3 h, 2 d."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit == "min" and seconds >= length):
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
