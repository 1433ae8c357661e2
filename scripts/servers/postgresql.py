"""A private PostgreSQL server. It refuses to run as root, so root runs it as the user `postgres`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from pathlib import Path
from typing import ClassVar

from scripts.servers.given import Given, SqlDatabases
from scripts.servers.need import Need
from scripts.servers.parts import ServerError, is_open
from scripts.servers.server import Server

USER = PASSWORD = "synergy"  # noqa: S105 - of a private server on the loopback
SPARE = {"listen_addresses": "127.0.0.1", "fsync": "off", "max_connections": "200", "shared_buffers": "64MB"}
IMAGE_USER = 999  # postgres, in the image


NEED = Need(
    name="postgres",
    title="PostgreSQL",
    why="holds the state for those who run one",
    variable="SYNERGY_TEST_POSTGRES_URL",
    programs=("initdb", "postgres"),
    places=(
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/usr/local/pgsql/bin",
        "/opt/homebrew/opt/postgresql*/bin",
    ),
    packages=(("postgresql",),),
    image="docker.io/library/postgres:16",
)


class Postgres(Server):
    """One server with the account synergy:synergy, a superuser. kill -9 loses nothing; a power cut would.

    As root its folder is always where temporary files go: the user `postgres` cannot enter a folder of root's.
    """

    need: ClassVar[Need] = NEED
    setting: ClassVar[str] = "store_url"
    stop_signal: ClassVar[int] = signal.SIGINT  # does not wait for clients

    def __init__(self, inside: Path | None = None) -> None:
        super().__init__(None if self.user else inside)

    @property
    def user(self) -> str | None:
        """`postgres` if we are root."""
        return "postgres" if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        """The URL of the database `synergy`."""
        return self.url_of("synergy")

    def fresh(self) -> str:
        """The URL of a new database."""
        return DATABASES.create(self.url)

    def delete(self, url: str) -> None:
        """Drop the database that a URL names, whoever uses it."""
        DATABASES.drop(self.url_of("postgres"), url)

    def url_of(self, database: str) -> str:
        """The URL of that database."""
        return f"postgresql://{USER}:{PASSWORD}@{self.host}/{database}"

    def _command(self) -> list[str]:
        options = {**SPARE, "unix_socket_directories": ""}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [
            self._tool("postgres"),
            "-D",
            str(self.folder / "data"),
            "-p",
            str(self.port),
            *settings,
        ]

    def _prepare(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        self._tool("initdb")  # now it is known whether it runs in a container
        if self.user:
            self._give_away(*self._owner())
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        self._run(
            [
                self._tool("initdb"),
                *("-D", str(self.folder / "data"), "-U", USER, "--pwfile", str(secret)),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ]
        )

    def _give_away(self, user: int, group: int) -> None:
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, user, group)

    def _owner(self) -> tuple[int, int]:
        if self.user is None:
            return os.geteuid(), os.getegid()
        if self._engine is not None:
            return IMAGE_USER, IMAGE_USER
        try:
            who = pwd.getpwnam(self.user)
        except KeyError:
            raise ServerError(
                f"PostgreSQL does not run as root, and there is no user {self.user!r} to run it"
            ) from None
        return who.pw_uid, who.pw_gid

    def _answers(self) -> bool:
        import psycopg

        if not is_open(self.port):
            return False
        try:
            psycopg.connect(self.url_of("postgres"), connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def _welcome(self) -> None:
        run_sql(self.url_of("postgres"), "CREATE DATABASE synergy")


def postgres(inside: Path | None = None) -> Postgres:
    """One server with a folder in `inside`, or where temporary files go; see `Postgres`."""
    return Postgres(inside)


def run_sql(url: str, text: str) -> None:
    """One statement, in no transaction. Raises psycopg's errors."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text.encode())


DATABASES = SqlDatabases(run_sql, " WITH (FORCE)")  # whoever uses them


def given(url: str) -> Given:
    """One that somebody else runs: postgresql://user:password@host:port/database; the user may make others."""
    return DATABASES.given(url)
