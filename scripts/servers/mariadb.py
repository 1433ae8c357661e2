"""A private MariaDB server, with the account synergy:synergy."""

from __future__ import annotations

import getpass
import os
import shutil
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from scripts.servers.parts import HOST, NotHere, find_program, is_open
from scripts.servers.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACES = ("/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/opt/homebrew/opt/mariadb/bin")
USER = PASSWORD = "synergy"  # noqa: S105 - of a private server on the loopback
_numbers = count(1)


def find_mariadb() -> tuple[Path, Path] | None:
    """The server, and the program that makes its files, if both are there."""
    server = find_program("mariadbd", PLACES)
    maker = find_program("mariadb-install-db", PLACES)
    return (server, maker) if server and maker else None


class MariaDb(Server):
    """One server. kill -9 loses nothing; a power cut might."""

    name: ClassVar[str] = "mariadb"
    setting: ClassVar[str] = "store_url"

    @property
    def url(self) -> str:
        """The URL of the database `synergy`."""
        return self.url_of("synergy")

    def fresh(self) -> str:
        """The URL of a new database."""
        return self._made(f"t{os.getpid()}_{next(_numbers)}")

    def delete(self, url: str) -> None:
        """Drop the database that a URL names."""
        self._run_sql([f"DROP DATABASE {url.partition('?')[0].rpartition('/')[2]}"])

    def url_of(self, database: str) -> str:
        """The URL of that database."""
        return f"mysql://{USER}:{PASSWORD}@{self.host}/{database}"

    def _made(self, database: str) -> str:
        self._run_sql([f"CREATE DATABASE {database}"])
        return self.url_of(database)

    def _run_sql(self, texts: Sequence[str], user: str = USER, password: str = PASSWORD) -> None:
        import pymysql

        with (
            pymysql.connect(host=HOST, port=self.port, user=user, password=password) as connection,
            connection.cursor() as cursor,
        ):
            for text in texts:
                cursor.execute(text)

    def _programs(self) -> tuple[Path, Path]:
        found = find_mariadb()
        if found is None:
            raise NotHere(
                "MariaDB",
                "it holds the state in MariaDB",
                "apt install mariadb-server-core mariadb-client-core",
            )
        return found

    def _command(self) -> list[str]:
        return [
            str(self._programs()[0]),
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--user={getpass.getuser()}",
            f"--port={self.port}",
            f"--bind-address={HOST}",
            f"--socket={self.folder / 's.sock'}",
            f"--pid-file={self.folder / 'pid'}",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=64M",
            "--max-connections=200",
            "--skip-name-resolve",
        ]

    def _prepare(self) -> None:
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        self._run(
            [
                str(self._programs()[1]),
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                f"--user={getpass.getuser()}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ]
        )

    def _answers(self) -> bool:
        import pymysql

        if not is_open(self.port):
            return False
        try:
            if self._is_prepared:
                self._run_sql(["SELECT 1"])
            else:
                self._run_sql(["SELECT 1"], "root", "")
        except pymysql.Error:
            return False
        return True

    def _welcome(self) -> None:
        everything = (
            f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%' IDENTIFIED BY '{PASSWORD}' WITH GRANT OPTION"
        )
        self._run_sql([everything], "root", "")
        self._made("synergy")


def mariadb(inside: Path | None = None) -> MariaDb:
    """One server with a folder in `inside`, or where temporary files go; see `MariaDb`."""
    return MariaDb(inside)
