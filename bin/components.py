"""The processes of an installation: which there are, how each is started, and in which order they stop.

Invariant: a component's number in the order is higher than those of all it needs; the supervisor stops the highest
first. Adding a reader is one line in READERS.
"""

import dataclasses

from eventlog.configuration import Settings
from eventlog.settings import PROJECTIONS

READERS: dict[str, str] = {
    "maintenance": "readers.maintenance:run",
    "projections": "readers.projections:run",
    "search": "readers.projections:run_search",
    "userdirectory": "readers.projections:run_userdirectory",
    "notifications": "readers.projections:run_notifications",
}
"""Readers that run as processes of their own, by the name on the command line: `module:function` of `async run(settings)`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Component:
    """One supervised process: `walden ARGUMENTS`. `signal` asks it to end, after `patience` seconds it is killed."""

    name: str
    arguments: tuple[str, ...]
    order: int
    signal: str = "TERM"
    patience: int = 20


def components(settings: Settings) -> list[Component]:
    """All processes of this installation on this machine, those that others need first."""
    found = []
    if settings.embedded:
        # SIGINT is PostgreSQL's fast shutdown: sessions are ended, everything is written.
        found.append(Component("postgres", ("postgres",), 10, "INT", 90))
    if settings.server.metrics_listen is not None:
        # It needs none of the others: it shows what they do, and whether the database is there.
        found.append(Component("metrics", ("metrics",), 15))
    shards = range(settings.log.shards)
    found += [Component(f"roomserver-{shard}", ("roomserver", "--shard", str(shard)), 20) for shard in shards]
    found += [Component(name, ("reader", name), 30) for name in READERS if keepers(settings).get(name) != ()]
    found.append(Component("api", ("api",), 40, "TERM", 35))
    if federation_apart(settings):
        found.append(Component("federation", ("api", "--federation"), 40, "TERM", 35))
    return found


def keepers(settings: Settings) -> dict[str, tuple[str, ...]]:
    """By process, the projections that it keeps: one process for all that are not named in readers.apart."""
    apart = [name for name in PROJECTIONS if name in settings.readers.apart]
    together = tuple(name for name in PROJECTIONS if name not in apart)
    return {"projections": together} | {name: (name,) if name in apart else () for name in PROJECTIONS}


def federation_apart(settings: Settings) -> bool:
    """Whether other servers get processes of their own: when their listener has another certificate than the clients'."""
    ours = (settings.client.tls_certificate, settings.client.tls_key)
    theirs = (settings.federation.tls_certificate, settings.federation.tls_key)
    return settings.federation.listen is not None and ours != theirs
