"""What `walden doctor` asks a pooler: do sessions through it have Walden's settings, does it keep prepared statements apart?

Invariant: changes nothing, and waits a bounded time. Nothing is asked without a direct DSN beside database.dsn.
"""

import asyncio
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, sql

from bin.findings import Finding, error, fine, warning
from eventlog.configuration import ConfigurationError, Role, Settings
from eventlog.pools import SESSION, component_dsn
from eventlog.queries import Queries

QUERIES = Queries("bin", "doctor.sql")
POOLED: Final[tuple[Role, ...]] = ("writer", "reader")
ANSWER_SECONDS = 5.0
ELSEWHERE: Final = "database.dsn and database.direct_dsn lead to two databases: what one is told, the other never hears"


async def check_pooler(settings: Settings) -> list[Finding]:
    """The findings about the way through the pooler."""
    if settings.pooler and await leads_elsewhere(settings):
        return [error("pooler", ELSEWHERE, "correct one of them, also where the environment sets it")]
    found = []
    for role in POOLED if settings.pooler else ():
        try:
            found += await _session(settings, role)
        except (psycopg.Error, ConfigurationError) as problem:
            text = f"the login for {role} does not get through: {str(problem).strip()}"
            found.append(error("pooler", text, "let the pooler know the login (PgBouncer: auth_query or auth_file)"))
    return found


async def leads_elsewhere(settings: Settings) -> bool:
    """Whether the way through the pooler leads to another database than the one past it; no, if it leads nowhere now."""
    kind: dict[str, Any] = {"autocommit": True, "connect_timeout": settings.database.connect_timeout}
    places = set()
    for dsn in (settings.dsn("writer", direct=True), component_dsn(settings, "writer")):
        try:
            async with await AsyncConnection.connect(dsn, **kind, prepare_threshold=None) as connection:
                places.add(await (await connection.execute(QUERIES["place"])).fetchone())
        except psycopg.Error:
            return False
    return len(places) > 1


async def _session(settings: Settings, role: Role) -> list[Finding]:
    dsn = component_dsn(settings, role)
    kind: dict[str, Any] = {"autocommit": True, "connect_timeout": settings.database.connect_timeout}
    async with await AsyncConnection.connect(dsn, **kind, prepare_threshold=None) as connection:
        cursor = await connection.execute(QUERIES["session"], {"names": list(SESSION)})
        present = {name: (setting, login) for name, setting, login in await cursor.fetchall()}
        login = next(iter(present.values()))[1]
        # A timeout of another length is somebody's choice, none at all is not.
        lacking = [
            name
            for name, value in SESSION.items()
            if (present[name][0] == "0" if name.endswith("_timeout") else present[name][0] != value)
        ]
        if lacking:
            change = sql.SQL("alter role {} set {} = {};")
            remedy = [change.format(sql.Identifier(login), sql.Identifier(n), sql.Literal(SESSION[n])) for n in lacking]
            text = f"sessions of {login} through the pooler lack {', '.join(lacking)}"
            return [warning("pooler", text, " ".join(part.as_string(connection) for part in remedy))]
        if settings.database.prepare and not await _keeps_statements(dsn, kind, connection):
            text = "it does not keep the prepared statements of its clients apart"
            remedy_ = "set database.prepare = false, or use PgBouncer 1.21 or newer with max_prepared_statements"
            return [error("pooler", text, remedy_)]
    return [fine("pooler", f"sessions of {login} through it have their settings")]


async def _keeps_statements(dsn: str, kind: dict[str, Any], other: AsyncConnection) -> bool:
    """Whether what one client prepared is there on another server connection than the first."""
    async with await AsyncConnection.connect(dsn, **kind, prepare_threshold=0) as one:
        await one.execute(QUERIES["anything"])
        async with other.transaction():
            # Holds the server connection that has just been given back.
            await other.execute(QUERIES["anything"])
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await one.execute(QUERIES["anything"])
            except psycopg.errors.InvalidSqlStatementName:
                return False
            except TimeoutError:
                # There is only one server connection, so that it is always the same.
                return True
    return True
