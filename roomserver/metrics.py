"""What the room server counts, for Prometheus (docs/metrics.md).

Invariant: no label has an unbounded set of values; there is none per room or user.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram

from eventlog.metrics import Distribution, Level, Tally
from eventlog.replication import Subscriber

_VERDICTS = Counter("walden_roomserver_verdicts", "Entries judged, by verdict.", ["shard", "verdict"])
_BATCHES = Histogram(
    "walden_roomserver_batch_seconds",
    "Time to judge and commit a batch.",
    ["shard"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30),
)
_SIZES = Histogram(
    "walden_roomserver_batch_entries", "Entries in a batch.", ["shard"], buckets=(1, 2, 5, 10, 20, 50, 100, 400)
)
_LOSSES = Counter("walden_roomserver_slot_losses", "Times the slot was found lost.", ["shard"])
_QUARANTINED = Counter("walden_roomserver_quarantined", "Entries put into quarantine.", ["shard"])
_FORKS = Counter("walden_roomserver_off_main_line", "Events judged off their room's main line.", ["shard"])
_HEARTBEAT = Gauge(
    "walden_roomserver_heartbeat_seconds",
    "How long the last heartbeat took round the loop of log and slot.",
    ["shard"],
    multiprocess_mode="livemax",
)


class Metrics:
    """The metrics of one shard."""

    def __init__(self, shard: int) -> None:
        label = str(shard)
        self._verdicts = {v: Tally(_VERDICTS.labels(label, v)) for v in "aosrtq"}
        self._batches = Distribution(_BATCHES.labels(label))
        self._sizes = Distribution(_SIZES.labels(label))
        self._heartbeat_gauge = _HEARTBEAT.labels(label)
        self._heartbeat: Level | None = None
        # Rare enough to be counted where they are shown.
        self.slot_losses = _LOSSES.labels(label)
        self.quarantined = _QUARANTINED.labels(label)
        self.off_main_line = _FORKS.labels(label)

    def connected(self, subscriber: Subscriber) -> None:
        """Follows the subscriber's own figures."""
        self._heartbeat = Level(self._heartbeat_gauge, lambda: subscriber.progress.heartbeat_seconds or 0.0)

    def verdict(self, verdict: str, count: int = 1) -> None:
        """Counts verdicts."""
        self._verdicts[verdict].count += count

    @contextlib.contextmanager
    def batch(self, entries: int) -> Iterator[None]:
        """Times a batch."""
        began = time.perf_counter()
        yield
        self._batches.observe(time.perf_counter() - began)
        self._sizes.observe(entries)
