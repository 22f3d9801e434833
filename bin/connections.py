"""The connection budget: how many connections of which kind each process holds, and which of them may go through a pooler.

Invariant: every connection that a running installation opens is in the list; a test counts the sessions of a whole server.
Commands (`walden status`, `doctor`, `psql`, `init`) open one or two for as long as they run and are not in it.
"""

import dataclasses
from typing import Literal

from bin.components import federation_apart, keepers
from eventlog.configuration import Settings
from eventlog.settings import Role

MEDIA_CONNECTIONS = 2
"""Of a process, for uploads and for downloads: each is held for some hundred KiB at a time."""
Way = Literal["pooled", "direct", "stream"]
"""`pooled` may go through PgBouncer; `direct` is an ordinary session that cannot; `stream` is a walsender."""


@dataclasses.dataclass(frozen=True, slots=True)
class Use:
    """What one process holds connections for: `most` of them, as the login of `role`."""

    process: str
    what: str
    role: Role
    way: Way
    most: int


def uses(settings: Settings) -> list[Use]:
    """What each kind of process holds, one process of each."""
    pool = settings.database.pool_max
    found = [
        Use("api", "requests that write, and sessions looked up", "writer", "pooled", pool),
        Use("api", "appends to the log", "writer", "pooled", 1),
        Use("api", "requests that read", "reader", "pooled", pool),
        Use("api", "uploads, piece by piece", "writer", "pooled", MEDIA_CONNECTIONS),
        Use("api", "downloads, part by part", "reader", "pooled", MEDIA_CONNECTIONS),
        Use("api", "the committed head: LISTEN, and a look at each notice", "writer", "direct", 2),
        Use("api", "sessions that end: LISTEN", "writer", "direct", 1),
        Use("api", "its own position, for `walden status`", "reader", "direct", 1),
        Use("api", "sync's stream of the outputs", "replication", "stream", 1),
        Use("roomserver", "decisions, and the lock on its shard", "roomserver", "direct", 1),
        Use("roomserver", "a large room's resolution", "roomserver", "direct", 1),
        Use("roomserver", "its stream of the entries", "replication", "stream", 1),
        Use("maintenance", "partitions and what has expired", "maintenance", "direct", 1),
        Use("maintenance", "retention", "maintenance", "direct", 1),
        Use("maintenance", "moving the outputs slot", "replication", "direct", 1),
        Use("projections", "what it follows and keeps, and LISTEN", "reader", "direct", 1),
    ]
    if settings.database.standby_dsn:
        # There is one stream less here then, and one there: both are kept in the sum, for a standby may be promoted.
        found.append(Use("api", "on the standby: requests to /sync", "reader", "direct", pool))
        found.append(Use("api", "on the standby: its committed head", "reader", "direct", 1))
    if "," in (settings.database.direct_dsn or settings.database.dsn):
        found.append(Use("maintenance", "for moments: a look at each server", "replication", "direct", 1))
    if settings.server.metrics_listen is not None:
        found.append(Use("metrics", "what is read while it is scraped", "reader", "direct", 1))
    return found


def processes(settings: Settings) -> dict[str, int]:
    """How many processes of each kind this installation starts on this machine."""
    api = settings.client.processes * (2 if federation_apart(settings) else 1)
    kept = sum(1 for names in keepers(settings).values() if names)
    return {"api": api, "roomserver": settings.log.shards, "maintenance": 1, "projections": kept, "metrics": 1}


def totals(settings: Settings) -> dict[Way, int]:
    """Connections that all processes of this machine may hold at once, by way."""
    count = processes(settings)
    sums: dict[Way, int] = {"pooled": 0, "direct": 0, "stream": 0}
    for use in uses(settings):
        sums[use.way] += use.most * count[use.process]
    return sums


def as_markdown(settings: Settings) -> str:
    """The budget of an installation, as docs/connections.md shows that of the defaults."""
    lines = ["| process | for | login | way | each | here |", "|---|---|---|---|---|---|"]
    count = processes(settings)
    for use in uses(settings):
        here = use.most * count[use.process]
        lines.append(f"| {use.process} | {use.what} | {use.role} | {use.way} | {use.most} | {here} |")
    sums = totals(settings)
    lines += [
        "",
        f"Sessions: {sums['pooled'] + sums['direct']} of max_connections, of which {sums['pooled']} may go through a pooler. "
        f"Streams: {sums['stream']} of max_wal_senders.",
    ]
    return "\n".join([*lines, ""])
