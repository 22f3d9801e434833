"""The doctor on standbys and on Patroni: what keeps a failover from losing what was acknowledged, or the slots.

Invariant: reads only; Patroni is asked over its REST interface where `database.patroni` says, within seconds.
"""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bin.findings import Finding, error, fine, warning
from eventlog.configuration import Settings
from eventlog.queries import Queries

QUERIES = Queries("bin", "standbys.sql")
ASKS_SECONDS: Final = 5.0
IGNORE: Final = """patronictl edit-config --apply - <<'END'
ignore_slots:
- type: logical
  database: {database}
  plugin: pgoutput
END"""


async def check_standbys(settings: Settings, connection: AsyncConnection, wanted: Sequence[str]) -> list[Finding]:
    """The findings; `wanted` are the durable slots that Patroni has to leave alone."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["standbys"])
        facts = await cursor.fetchone()
    assert facts is not None
    found = [*_waiting(facts), *_slots_go_over(facts)]
    if settings.database.patroni:
        found += await asyncio.to_thread(_ask, settings.database.patroni, str(facts["database"]), wanted)
    elif facts["patroni"]:
        text = "Patroni runs this server and drops slots that it does not know, unless ignore_slots says otherwise"
        remedy = "set database.patroni to the address of its REST interface (http://host:8008): then this is checked"
        found.append(warning("patroni", text, remedy))
    return found


async def check_reading_standby(settings: Settings) -> list[Finding]:
    """Whether the standby that /sync is to read from can be decoded from."""
    if not settings.database.standby_dsn:
        return []
    found = []
    try:
        async with (
            await AsyncConnection.connect(
                settings.standby_dsn("reader"), autocommit=True, connect_timeout=settings.database.connect_timeout
            ) as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            await cursor.execute(QUERIES["standby"])
            facts = await cursor.fetchone()
        async with await AsyncConnection.connect(
            settings.standby_dsn("replication"),
            autocommit=True,
            connect_timeout=settings.database.connect_timeout,
            replication="database",
        ) as connection:
            await connection.execute("IDENTIFY_SYSTEM")
    except psycopg.Error as problem:
        text = f"the standby cannot be reached: {str(problem).strip()}"
        remedy = "correct database.standby_dsn, let the readers' and the replication login in there, or leave it empty"
        return [error("standby", text, remedy)]
    assert facts is not None
    if facts["version"] < 160_000:
        remedy = "leave database.standby_dsn empty, or upgrade: decoding on a standby came with 16"
        found.append(error("standby", f"it is PostgreSQL {facts['version'] // 10_000}", remedy))
    if not facts["standby"]:
        remedy = "point database.standby_dsn at the standby that is one now"
        found.append(warning("standby", "database.standby_dsn names a primary", remedy))
    elif facts["hot_standby_feedback"] != "on" or not facts["slot"]:
        text = "hot_standby_feedback is off, or primary_slot_name empty: VACUUM on the primary ends its streams"
        remedy = "on the standby: alter system set hot_standby_feedback = 'on', and give it a slot on the primary"
        found.append(warning("standby", text, remedy))
    return found or [fine("standby", "it can be decoded from and queried")]


def _waiting(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Commits have to wait for a standby that may be promoted."""
    if facts["synchronous_standbys"]:
        if facts["synchronous_commit"] in ("local", "off"):
            text = (
                f"synchronous_commit is {facts['synchronous_commit']}: commits do not wait for the synchronous standby"
            )
            yield error("standbys", text, "alter system set synchronous_commit = 'on'")
        elif facts["synchronous_commit"] == "remote_write":
            text = "synchronous_commit is remote_write: an operating system that fails with the primary loses events"
            yield warning("standbys", text, "alter system set synchronous_commit = 'on'")
        else:
            yield fine("standbys", f"commits wait for {facts['synchronous_standbys']}")
    elif facts["patroni"]:
        text = "Patroni promotes a standby that commits do not wait for: a failover loses acknowledged events"
        yield warning("standbys", text, "patronictl edit-config --set synchronous_mode=true")


def _slots_go_over(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Failover slots need settings on the standbys; where one configuration serves all, they can be seen here."""
    if facts["standbys"] and facts["version"] >= 170_000:
        lacking = [name for name in ("sync_replication_slots", "hot_standby_feedback") if facts[name] != "on"]
        if lacking:
            text = f"{' and '.join(lacking)} is off: after a failover slots are missing, and made again from the tables"
            settings = "; ".join(f"alter system set {name} = 'on'" for name in lacking)
            yield warning("standbys", text, f"on every node: {settings} (Patroni: under postgresql.parameters)")


def _ask(addresses: Sequence[str], database: str, wanted: Sequence[str]) -> list[Finding]:
    problems = []
    for address in addresses:
        if not address.startswith(("http://", "https://")):
            problems.append(f"{address} is no http URL")
            continue
        try:
            with urllib.request.urlopen(f"{address.rstrip('/')}/config", timeout=ASKS_SECONDS) as answer:
                configuration = json.load(answer)
        except (urllib.error.URLError, OSError, ValueError) as problem:
            problems.append(f"{address}: {problem}")
            continue
        return list(check_configuration(configuration, database, wanted))
    remedy = "correct database.patroni, or start Patroni"
    return [error("patroni", f"it cannot be asked ({'; '.join(problems)})", remedy)]


def check_configuration(configuration: Any, database: str, wanted: Sequence[str]) -> Iterator[Finding]:
    """What Patroni's dynamic configuration (`GET /config`) means for the slots."""
    rules = configuration.get("ignore_slots") if isinstance(configuration, dict) else None
    rules = [rule for rule in rules or [] if isinstance(rule, dict)]
    unsafe = [name for name in wanted if not any(_covers(rule, name, database) for rule in rules)]
    if unsafe:
        text = f"its ignore_slots does not cover {', '.join(unsafe)}: it drops them whenever no session uses them"
        yield error("patroni", text, IGNORE.format(database=database))
    else:
        yield fine("patroni", "its ignore_slots covers the slots of this database")


def _covers(rule: Mapping[str, Any], name: str, database: str) -> bool:
    """A slot is ignored when it has every property that a rule names (Patroni documentation, "ignore_slots")."""
    slot = {"name": name, "type": "logical", "database": database, "plugin": "pgoutput"}
    properties = {key: value for key, value in rule.items() if key in slot}
    return bool(properties) and all(slot[key] == value for key, value in properties.items())
