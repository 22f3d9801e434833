"""What only the database knows, as metrics: how far the components are, what the slots hold back, what waits.

Invariant: it is read when it is asked for, within a time, with the readers' rights; a database that does not answer is itself a
metric. Labels are components, and roles of slots: the many slots of the sync processes count as one.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import psycopg
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric

from bin.components import READERS, components
from bin.status import Component, Status, read_status
from eventlog.configuration import ConfigurationError, Settings
from eventlog.slots import SlotName

SECONDS: Final = 5.0
"""How long the database may take."""
MARGIN: Final = "10 seconds"
"""Which entries are looked at for want of a verdict: those appended this long before the room server's last move, or later."""
WAL_STATUSES: Final = ("reserved", "extended", "unreserved", "lost")
"""From the best to the worst."""

log = structlog.get_logger(__name__)


async def database_metrics(settings: Settings) -> list[Metric]:
    """The metrics as of now; of a database that does not answer, that it does not."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(SECONDS):
            status: Status | None = await read_status(settings, "reader", MARGIN)
    except (psycopg.Error, ConfigurationError, OSError, TimeoutError) as error:
        log.warning("the database cannot be asked", error=str(error).strip() or f"no answer within {SECONDS} s")
        status = None
    up = GaugeMetricFamily("walden_database_up", "Whether the database answered this scrape.")
    up.add_metric([], float(status is not None))
    took = GaugeMetricFamily("walden_database_scrape_seconds", "How long this scrape asked the database.")
    took.add_metric([], time.monotonic() - began)
    if status is None:
        return [up, took]
    known = {one.name for one in components(settings)} | {"api", "federation", *READERS}
    ours = [one for one in status.components if one.name in known]
    return [up, took, *_components(ours), *_slots(status.slots), *_abandoned(status.abandoned), *_waiting(status)]


def _components(found: Iterable[Component]) -> list[Metric]:
    up = GaugeMetricFamily(
        "walden_component_up", "Whether the supervisor of this machine has it running.", labels=["component"]
    )
    position = GaugeMetricFamily(
        "walden_component_position", "The output that the hindmost process has reached.", labels=["component"]
    )
    lag_bytes = GaugeMetricFamily(
        "walden_component_lag_bytes", "WAL that it has before it; 0 when nothing waits.", labels=["component"]
    )
    lag_seconds = GaugeMetricFamily(
        "walden_component_lag_seconds", "Age of the oldest entry that waits for it.", labels=["component"]
    )
    for one in found:
        if one.state not in ("elsewhere", "unknown"):
            up.add_metric([one.name], float(one.state == "running"))
        if not isinstance(one.position, int):
            continue  # It follows nothing, or is not there.
        position.add_metric([one.name], one.position)
        if one.lag_bytes is not None:
            lag_bytes.add_metric([one.name], one.lag_bytes)
        if one.lag_seconds is not None:
            lag_seconds.add_metric([one.name], one.lag_seconds)
    return [up, position, lag_bytes, lag_seconds]


def _slots(found: Iterable[dict[str, Any]]) -> list[Metric]:
    by_role: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in found:
        try:
            name = SlotName.parse(one["name"])
        except ValueError:
            continue  # It is not one of ours.
        by_role[f"{name.role}_{name.suffix}" if name.role == "roomserver" else name.role].append(one)
    count = GaugeMetricFamily("walden_slots", "Replication slots there are.", labels=["slot"])
    safe = GaugeMetricFamily(
        "walden_slot_safe_wal_bytes", "WAL that can be written before one may be lost, if limited.", labels=["slot"]
    )
    retained = GaugeMetricFamily("walden_slot_retained_bytes", "WAL that one keeps on disk.", labels=["slot"])
    unconfirmed = GaugeMetricFamily(
        "walden_slot_unconfirmed_bytes", "WAL that a consumer has not confirmed.", labels=["slot"]
    )
    catalogs = GaugeMetricFamily(
        "walden_slot_catalog_xmin_age", "Transactions for which VACUUM cannot clean catalogs.", labels=["slot"]
    )
    state = GaugeMetricFamily("walden_slot_wal_status", "Slots in each wal_status.", labels=["slot", "status"])
    for role, slots in sorted(by_role.items()):
        count.add_metric([role], len(slots))
        for family, key, worst in (
            (safe, "safe_wal_size", min),
            (retained, "restart_lag", max),
            (unconfirmed, "confirmed_lag", max),
            (catalogs, "catalog_xmin_age", max),
        ):
            values = [one[key] for one in slots if one[key] is not None]
            if values:
                family.add_metric([role], worst(values))
        for status in WAL_STATUSES:
            state.add_metric([role, status], sum(one["wal_status"] == status for one in slots))
    return [count, safe, retained, unconfirmed, catalogs, state]


def _abandoned(found: list[dict[str, Any]]) -> list[Metric]:
    count = GaugeMetricFamily("walden_abandoned_slots", "Slots of the cluster that nobody uses and that hold back WAL.")
    count.add_metric([], len(found))
    retained = GaugeMetricFamily("walden_abandoned_slot_bytes", "WAL that the worst of them keeps on disk.")
    retained.add_metric([], max((one["retained"] for one in found), default=0))
    return [count, retained]


def _waiting(status: Status) -> list[Metric]:
    quarantined = GaugeMetricFamily(
        "walden_quarantined_entries", "Entries in quarantine that nobody has dealt with, counted to 1,000."
    )
    quarantined.add_metric([], len(status.quarantine))
    unjudged = GaugeMetricFamily(
        "walden_unjudged_entries", "Entries that wait for a verdict, counted to 10,000 a shard."
    )
    unjudged.add_metric([], status.unjudged)
    deferred = GaugeMetricFamily(
        "walden_deferred_entries", "Entries whose verdict waits for another event or a resolution."
    )
    deferred.add_metric([], status.deferred)
    return [quarantined, unjudged, deferred]
