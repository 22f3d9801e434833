"""What the sync reader of a process counts, for Prometheus (docs/metrics.md).

Invariant: an answer costs one addition.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from eventlog.metrics import Tally

_ANSWERS = Counter("walden_sync_responses", "Answers to /sync, by kind.", ["kind"])
INITIAL = Tally(_ANSWERS.labels("initial"))
INCREMENTAL = Tally(_ANSWERS.labels("incremental"))
EMPTY = Tally(_ANSWERS.labels("empty"))
HELD = Gauge("walden_sync_held_polls", "Requests that wait for something to say.", multiprocess_mode="livesum")
LAG = Gauge(
    "walden_sync_feed_lag_outputs",
    "Committed outputs that are not shown yet, at the hindmost.",
    multiprocess_mode="livemax",
)
STREAMLESS = Gauge(
    "walden_sync_streamless_processes",
    "Processes that read the tables for want of a stream.",
    multiprocess_mode="livesum",
)
FROM_TABLES = Tally(Counter("walden_sync_outputs_from_tables", "Outputs read from the tables, not the stream."))
CATCH_UPS = Tally(
    Counter("walden_sync_catch_ups", "Times that the stream fell behind, and the tables were read instead.")
)
ABANDONED = Tally(
    Counter(
        "walden_sync_abandoned_tokens", "Tokens of a future that was lost; their clients were told everything anew."
    )
)
AHEAD = Tally(
    Counter(
        "walden_sync_tokens_ahead",
        "Tokens ahead of the database in its own epoch: forged, or the database was restored and nobody has said so.",
    )
)
