"""Connection pools: asynchronous, autocommit, one per process and role.

Invariant: every wait has an end. A statement is cancelled after `STATEMENT_SECONDS`, a transaction left open after the same time
is ended by the server, asking the pool for a connection gives up after the configured time, and a machine that vanished without a
word is missed within half a minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, Self

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from eventlog.settings import Role, Settings

STATEMENT_SECONDS = 60

# Planning over some thirty partitions takes ten times as long as most statements run (8 ms and 0.8 ms, measured on a page of 100
# events), and what is planned with the values at hand is no better: every query here is a look-up by index. A partition that was
# empty when a plan was made must not be read from end to end once it is full.
PLANNING = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}

SESSION: Final[Mapping[str, str]] = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": "30s",
    **PLANNING,
}
"""What every session of a component has set. The logins that `walden init` makes have it from their roles as well, for a
pooler hands on no options of a client."""

ALIVE: Final[Mapping[str, str]] = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
"""How a machine that vanished is noticed, unless the DSN says otherwise: the kernel would wait for two hours."""

AGAIN_SECONDS: Final = 0.5
"""Between attempts to reach a database that is away: a failover should be noticed when it has happened."""
INSISTS_SECONDS: Final = 60.0
"""How long an attempt of a pool goes on. The pool's own attempts are made at intervals that double, which suits an overload and
not a failover."""

Pool = AsyncConnectionPool[AsyncConnection]


class Insistent(AsyncConnection[Any]):
    """A pool's connection: made again and again while no server takes it."""

    @classmethod
    async def connect(cls, *args: Any, **kwargs: Any) -> Self:
        """As AsyncConnection.connect. Raises the last error after `INSISTS_SECONDS`."""
        end = time.monotonic() + INSISTS_SECONDS
        while True:
            try:
                return await super().connect(*args, **kwargs)
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(AGAIN_SECONDS)


def component_dsn(
    settings: Settings, role: Role, *, direct: bool = False, name: str = "", standby: bool = False
) -> str:
    """The role's DSN with Walden's session settings and an application name that `walden status` can read.

    `standby`: on the hot standby, if one is set.
    """
    standby = standby and bool(settings.database.standby_dsn)
    direct = direct or standby
    dsn = settings.standby_dsn(role) if standby else settings.dsn(role, direct=direct)
    given = conninfo_to_dict(dsn)
    dsn = make_conninfo(dsn, **{key: value for key, value in ALIVE.items() if key not in given})
    name = f"walden {name or role}"
    if role == "replication" or (settings.pooler and not direct):
        return make_conninfo(dsn, application_name=name)
    ours = [f"-c {setting}={value}" for setting, value in SESSION.items()]
    options = " ".join([str(given.get("options") or ""), *ours]).strip()
    return make_conninfo(dsn, application_name=name, options=options)


def make_pool(
    settings: Settings, role: Role, *, name: str = "", pool_max: int | None = None, standby: bool = False
) -> Pool:
    """A closed pool for one role; `async with` it.

    Connections are autocommit, and prepare what they run twice unless database.prepare is off.
    """
    return AsyncConnectionPool(
        component_dsn(settings, role, name=name, standby=standby),
        connection_class=Insistent,
        min_size=min(settings.database.pool_min, pool_max or settings.database.pool_max),
        max_size=pool_max or settings.database.pool_max,
        kwargs={
            "autocommit": True,
            "prepare_threshold": 1 if settings.database.prepare else None,
            "connect_timeout": settings.database.connect_timeout,
        },
        timeout=settings.database.connect_timeout,
        max_waiting=4096,
        open=False,
        check=None,
        name=name or role,
    )
