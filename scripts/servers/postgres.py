"""A private PostgreSQL server. It refuses to run as root, so root runs it as the user `postgres`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from itertools import count
from pathlib import Path
from typing import ClassVar

from scripts.servers.parts import NotHere, ServerError, find_program, is_open
from scripts.servers.server import Server

PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
)
USER = PASSWORD = "synergy"  # noqa: S105 - of a private server on the loopback
SPARE = {"listen_addresses": "127.0.0.1", "fsync": "off", "max_connections": "200", "shared_buffers": "64MB"}
_numbers = count(1)


def find_postgres() -> Path | None:
    """The folder of its programs, if there is one."""
    for program in (find_program("initdb", PLACES), find_program("postgres", PLACES)):
        if (
            program is not None
            and (program.parent / "initdb").exists()
            and (program.parent / "postgres").exists()
        ):
            return program.parent
    return None


class Postgres(Server):
    """One server with the account synergy:synergy, a superuser. kill -9 loses nothing; a power cut would.

    As root its folder is always where temporary files go: the user `postgres` cannot enter a folder of root's.
    """

    name: ClassVar[str] = "postgres"
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
        return self._made(f"t{os.getpid()}_{next(_numbers)}")

    def delete(self, url: str) -> None:
        """Drop the database that a URL names, whoever uses it."""
        self._run_sql(f"DROP DATABASE {url.partition('?')[0].rpartition('/')[2]} WITH (FORCE)")

    def url_of(self, database: str) -> str:
        """The URL of that database."""
        return f"postgresql://{USER}:{PASSWORD}@{self.host}/{database}"

    def _made(self, database: str) -> str:
        self._run_sql(f"CREATE DATABASE {database}")
        return self.url_of(database)

    def _run_sql(self, text: str) -> None:
        import psycopg

        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            connection.execute(text.encode())

    def _programs(self) -> Path:
        found = find_postgres()
        if found is None:
            raise NotHere("PostgreSQL", "it holds the state in PostgreSQL", "apt install postgresql")
        return found

    def _command(self) -> list[str]:
        options = {**SPARE, "unix_socket_directories": str(self.folder)}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [
            str(self._programs() / "postgres"),
            "-D",
            str(self.folder / "data"),
            "-p",
            str(self.port),
            *settings,
        ]

    def _prepare(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self.user:
            self._give_away(self.user)
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        self._run(
            [
                str(self._programs() / "initdb"),
                *("-D", str(self.folder / "data"), "-U", USER, "--pwfile", str(secret)),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ]
        )

    def _give_away(self, user: str) -> None:
        try:
            who = pwd.getpwnam(user)
        except KeyError:
            raise ServerError(
                f"PostgreSQL does not run as root, and there is no user {user!r} to run it"
            ) from None
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, who.pw_uid, who.pw_gid)

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
        self._made("synergy")


def postgres(inside: Path | None = None) -> Postgres:
    """One server with a folder in `inside`, or where temporary files go; see `Postgres`."""
    return Postgres(inside)
