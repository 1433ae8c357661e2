"""The store: `open_store(url)` and the adapters behind it.

An adapter, and the driver it stands on, is imported when its URL is opened and not before: SQLAlchemy
alone takes half a second. Nothing outside this folder knows which database it speaks to.
"""

from __future__ import annotations

from importlib import import_module

from scheduler.core.errors import ConfigError
from scheduler.core.ports import Clock, Store

# scheme of the URL -> module with `open_adapter(url, clock=…, synchronous=…, maintain=…)`
ADAPTERS = {
    "mongodb": "db.mongo",
    "sqlite": "db.sqlite",
    "postgresql": "db.postgres",
    "mariadb": "db.mariadb",
    "mysql": "db.mariadb",
}

# scheme of the URL -> the extra of the package that brings its driver
EXTRAS = {"mongodb": "mongo", "postgresql": "postgres", "mariadb": "mysql"}


def open_store(url: str, *, clock: Clock, synchronous: str = "NORMAL", maintain: bool = False) -> Store:
    """The store at `url`: `sqlite:////abs/path`, or `sqlite:///:memory:` for one that dies with this object.

    `clock` is the clock of stores that have none of their own. `synchronous`: NORMAL survives any kill of
    processes, FULL also a power cut. Long-lived processes `maintain` the store; one of them does at a time.

    Raises ConfigError (no such kind of store) and StoreUnavailable (it cannot be reached).
    """
    scheme = url.partition(":")[0].partition("+")[0]
    module = ADAPTERS.get(scheme)
    if module is None:
        raise ConfigError(
            f"store {scheme!r}: no such kind of store; there are: {', '.join(sorted(ADAPTERS))}"
        )
    try:
        adapter = import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "db").partition(".")[0] in ("db", "scheduler"):
            raise
        raise ConfigError(
            f"store {scheme!r}: its driver is not installed ({error.name}); from a clone: "
            f"`SYNERGY_EXTRAS={EXTRAS.get(scheme, scheme)} ./launch.py …`, "
            f"else `pip install 'synergy-scheduler[{EXTRAS.get(scheme, scheme)}]'`"
        ) from error
    store: Store = adapter.open_adapter(url, clock=clock, synchronous=synchronous, maintain=maintain)
    return store
