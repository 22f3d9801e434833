"""What the writers of a process count, for Prometheus (docs/metrics.md).

Invariant: a request is counted once where it waits, and the rest once a group.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from eventlog.metrics import LATENCIES, Distribution, Tally

GROUP_REQUESTS = Distribution(
    Histogram(
        "walden_writer_group_requests",
        "Requests appended together.",
        buckets=(1, 2, 5, 10, 20, 50, 100),
    )
)
APPEND_SECONDS = Distribution(
    Histogram("walden_writer_append_seconds", "Time to build and append a group of requests.", buckets=LATENCIES)
)
VERDICT_SECONDS = Distribution(
    Histogram("walden_writer_verdict_seconds", "Time from a request's append to its verdict.", buckets=LATENCIES)
)
_AGAIN = Counter("walden_writer_rebuilt", "Requests built again, by why.", ["why"])
MOVED = Tally(_AGAIN.labels("moved"))
STALE = Tally(_AGAIN.labels("stale"))
TIMEOUTS = Tally(Counter("walden_writer_timeouts", "Requests that got no verdict in time."))
QUEUE = Gauge("walden_writer_queue_requests", "Requests that wait for the next group.", multiprocess_mode="livesum")
