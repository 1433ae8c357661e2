"""A private MariaDB server, with the account synergy:synergy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from scripts.servers.given import Given, SqlDatabases
from scripts.servers.need import Need
from scripts.servers.parts import HOST, is_open
from scripts.servers.server import Server

USER = PASSWORD = "synergy"  # noqa: S105 - of a private server on the loopback


NEED = Need(
    name="mariadb",
    title="MariaDB",
    why="holds the state for those who run one",
    variable="SYNERGY_TEST_MARIADB_URL",
    programs=("mariadbd", "mariadb-install-db"),
    places=("/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/opt/homebrew/opt/mariadb/bin"),
    packages=(
        ("mariadb-server-core", "mariadb-server-core-10.6"),
        ("mariadb-client-core", "mariadb-client-core-10.6"),
    ),
    image="docker.io/library/mariadb:11",
)


class MariaDb(Server):
    """One server. kill -9 loses nothing; a power cut might."""

    need: ClassVar[Need] = NEED
    setting: ClassVar[str] = "store_url"

    @property
    def url(self) -> str:
        """The URL of the database `synergy`."""
        return self.url_of("synergy")

    def fresh(self) -> str:
        """The URL of a new database."""
        return DATABASES.create(self.url)

    def delete(self, url: str) -> None:
        """Drop the database that a URL names."""
        DATABASES.drop(self.url, url)

    def url_of(self, database: str) -> str:
        """The URL of that database."""
        return f"mysql://{USER}:{PASSWORD}@{self.host}/{database}"

    def _command(self) -> list[str]:
        return [
            self._tool("mariadbd"),
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            *self._as_root(),
            f"--port={self.port}",
            f"--bind-address={HOST}",
            "--socket=s.sock",  # in its folder: a path of more than 107 bytes is none
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
                self._tool("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                *self._as_root(),
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
            run_sql(self.url if self._is_prepared else self._root, "SELECT 1")
        except pymysql.Error:
            return False
        return True

    def _welcome(self) -> None:
        for text in (
            f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%' WITH GRANT OPTION",
            "CREATE DATABASE synergy",
        ):
            run_sql(self._root, text)

    @property
    def _root(self) -> str:
        return f"mysql://root@{self.host}/mysql"

    def _as_root(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []


def mariadb(inside: Path | None = None) -> MariaDb:
    """One server with a folder in `inside`, or where temporary files go; see `MariaDb`."""
    return MariaDb(inside)


def run_sql(url: str, text: str) -> None:
    """One statement. Raises PyMySQL's errors."""
    import pymysql

    parts = urlsplit(url)
    with (
        pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=unquote(parts.username or "root"),
            password=unquote(parts.password or ""),
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(text)


DATABASES = SqlDatabases(run_sql)


def given(url: str) -> Given:
    """One that somebody else runs: mysql://user:password@host:port/database; the user may make others."""
    return DATABASES.given(url)
