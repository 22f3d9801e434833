"""`walden status`: how far each component is, what the slots hold back, what is in quarantine.

Invariant: a lag of zero means that nothing waits, exactly: positions are compared, and bytes of WAL are only named for
a component that has something before it, since other programs and PostgreSQL itself write WAL as well.
"""

import asyncio
import dataclasses
import xmlrpc.client
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bin.components import keepers
from bin.slot_checks import abandoned_slots, durable_slots
from bin.supervision import Supervisor
from eventlog.configuration import Settings
from eventlog.presence import Shown, parse
from eventlog.queries import Queries
from eventlog.settings import PROJECTIONS, Role
from eventlog.slots import SlotHealth, database_oid, slot_health

QUERIES = Queries("bin", "status.sql")


@dataclasses.dataclass(slots=True)
class Component:
    """One process. `position` is an output position (room server, API) or an LSN (postgres), None where there is none."""

    name: str
    pid: int | None
    state: str
    position: int | str | None = None
    lag_bytes: int | None = 0
    lag_seconds: float | None = 0.0


@dataclasses.dataclass(slots=True)
class Status:
    """What `walden status` shows; `error` is why the database could not be asked."""

    server_name: str
    components: list[Component]
    slots: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    abandoned: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Slots of the whole cluster that nobody uses and that hold something back, with the command that frees it."""
    quarantine: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    unjudged: int = 0
    deferred: int = 0
    epoch: str | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For --json; times are ISO 8601."""
        return dataclasses.asdict(self)


def supervised(settings: Settings) -> list[Component]:
    """What the supervisor knows; empty if there is none on this machine."""
    try:
        known = Supervisor(settings.server.data_dir).processes()
    except (OSError, xmlrpc.client.Error):
        return []
    return [Component(one["name"], one["pid"] or None, str(one["statename"]).lower()) for one in known]


async def read_status(settings: Settings, role: Role = "owner", margin: str = "1 hour") -> Status:
    """The whole picture. Raises psycopg.Error and ConfigurationError when the database cannot be asked.

    `margin` is how long before the room server's last move an entry without a verdict may have been appended: an hour is
    certain, as no transaction lasts so long, and less is quicker to read.
    """
    status = Status(settings.server.name, await asyncio.to_thread(supervised, settings))
    connect_timeout = settings.database.connect_timeout
    async with await AsyncConnection.connect(
        settings.dsn(role, direct=True), autocommit=True, connect_timeout=connect_timeout
    ) as connection:
        healths = await slot_health(connection)
        status.slots = [_slot(one) for one in healths]
        wanted = durable_slots(await database_oid(connection), settings.log.shards)
        status.abandoned = [dataclasses.asdict(one) for one in await abandoned_slots(connection, wanted)]
        status.quarantine = [_plain(row) for row in await _rows(connection, "quarantine")]
        heads = await _room_servers(connection, status, healths, margin)
        await _projections(settings, connection, status)
        await _presences(connection, status, heads, healths)
        wal_end = (await _rows(connection, "wal_end"))[0]["pg_current_wal_lsn"]
        for one in status.components:
            if one.name == "postgres":
                one.position = wal_end
    return status


async def _room_servers(
    connection: AsyncConnection, status: Status, healths: list[SlotHealth], margin: str
) -> list[int]:
    heads: dict[int, int] = {}
    for row in await _rows(connection, "positions"):
        if row["component"] != "roomserver":
            continue
        shard = row["shard"]
        heads[shard], status.epoch = row["position"], row["epoch"]
        waiting = (await _rows(connection, "waiting", shard=shard, margin=margin))[0]
        status.unjudged += waiting["waiting"]
        status.deferred += waiting["deferred"]
        one = _named(status, f"roomserver-{shard}", row["pid"])
        one.position, one.lag_seconds = row["position"], round(waiting["seconds"], 3)
        # With the slot lost there is no telling in bytes how much the room server has before it.
        one.lag_bytes = _lag(healths, f"_roomserver_s{shard}_") if waiting["waiting"] else 0
    return [heads[shard] for shard in sorted(heads)]


async def _projections(settings: Settings, connection: AsyncConnection, status: Status) -> None:
    """Processes that keep projections: the hindmost projection of each counts."""
    behind = {row["component"]: row for row in await _rows(connection, "projections", names=list(PROJECTIONS))}
    for process, names in keepers(settings).items():
        found = [behind[name] for name in names if name in behind]
        if found:
            hindmost = min(found, key=lambda row: int(row["position"]))
            one = _named(status, process, hindmost["pid"])
            one.position, one.lag_seconds = hindmost["position"], round(hindmost["seconds"], 3)
            # It follows no slot, so there are no bytes to name.
            one.lag_bytes = None if hindmost["behind"] else 0


async def _presences(connection: AsyncConnection, status: Status, heads: list[int], healths: list[SlotHealth]) -> None:
    """Processes that show their position by the name of a session: the farthest behind of each component counts."""
    found: dict[str, list[Shown]] = {}
    for row in await _rows(connection, "sessions"):
        if (shown := parse(row["application_name"])) is not None:
            found.setdefault(shown.component, []).append(shown)
    for one in status.components:
        if one.name == "api" and one.name not in found:
            one.lag_bytes = one.lag_seconds = None  # It is starting, or cut off: nobody knows.
    for component, processes in found.items():
        one = _named(status, component, processes[0].pid)
        one.position = min((sum(process.positions) for process in processes), default=None)
        seconds, behind = 0.0, False
        for process in processes:
            for shard, (position, head) in enumerate(zip(process.positions, heads, strict=False)):
                if position < head:
                    behind = True
                    rows = await _rows(connection, "next_output", shard=shard, position=position + 1)
                    seconds = max([seconds, *(next(iter(row.values())) for row in rows)])
        one.lag_seconds = round(seconds, 3)
        one.lag_bytes = _lag(healths, "_sync_") if behind else 0


def _named(status: Status, name: str, pid: int | None) -> Component:
    for one in status.components:
        if one.name == name:
            return one
    # Not under a supervisor of this machine.
    status.components.append(Component(name, pid, "elsewhere" if pid else "unknown"))
    return status.components[-1]


def _lag(healths: list[SlotHealth], part: str) -> int | None:
    lags = [one.confirmed_lag for one in healths if part in f"{one.slot_name}_" and one.confirmed_lag is not None]
    return max(lags, default=None)


async def _rows(connection: AsyncConnection, query: str, **values: Any) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES[query], values)
        return await cursor.fetchall()


def _slot(health: SlotHealth) -> dict[str, Any]:
    state = "lost" if health.lost else "active" if health.active_pid else "idle"
    return {"name": health.slot_name, "state": state, **dataclasses.asdict(health)}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}


def as_text(status: Status) -> str:
    """The picture for a person."""
    lines = [f"{status.server_name}" + (f", epoch {status.epoch}" if status.epoch else ""), ""]
    rows = [("component", "pid", "state", "position", "behind", "")]
    rows += [
        (one.name, str(one.pid or "-"), one.state, _or_dash(one.position), _bytes(one.lag_bytes), _seconds(one))
        for one in status.components
    ]
    lines += _table(rows) if status.components else ["No component runs on this machine."]
    if status.error:
        return "\n".join([*lines, "", f"The database cannot be asked: {status.error}", ""])
    slots = [("slot", "state", "WAL status", "unconfirmed", "holds back", "safe for", "catalogs held")]
    slots += [
        (
            one["name"],
            one["state"],
            one["wal_status"] or "-",
            _bytes(one["confirmed_lag"]),
            _bytes(one["restart_lag"]),
            _bytes(one["safe_wal_size"]),
            f"{one['catalog_xmin_age'] or 0} xids",
        )
        for one in status.slots
    ]
    lines += ["", *(_table(slots) if status.slots else ["There are no replication slots: run `walden init`."])]
    for one in status.abandoned:
        lines.append(f"Nobody uses the {one['kind']} slot {one['name']}, which holds back {_bytes(one['retained'])}.")
        lines.append(f"  If nobody will need it: {one['command']}")
    lines += ["", f"Deferred: {status.deferred}. In quarantine: {len(status.quarantine)}."]
    lines += [
        f"  entry {one['entry']} {one['event_id'] or ''}: {one['error'].partition(chr(10))[0]}"
        for one in status.quarantine
    ]
    if status.quarantine:
        lines.append("  To look at them, requeue or dismiss them: walden quarantine")
    return "\n".join([*lines, ""])


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _seconds(one: Component) -> str:
    return f"{one.lag_seconds:.1f} s" if one.lag_seconds else ""


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    size, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
