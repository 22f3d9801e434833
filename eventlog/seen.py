"""What this installation has seen of its database, kept outside it: the highest epoch and position of each shard.

Invariant: a file names only what the database had safely on disk when it was written, so that no crash puts the database
behind it; whatever is not readable counts as not there. One file a shard, `seen/shard-N.json` in the data directory, written by
its room server.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger(__name__)

Epochs = dict[str, tuple[str | None, tuple[int, ...]]]
"""Epoch id → its parent and the positions up to which the parent's history is its own."""

MOST_ANCESTORS = 50
"""Epochs that a file remembers: the current one and those before it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The highest epoch and position seen of a shard. `chain`: that epoch and its ancestors, each with parent and fork."""

    shard: int
    epoch: str
    position: int
    chain: tuple[tuple[str, str | None, tuple[int, ...]], ...] = ()


def lineage(epoch: str, epochs: Epochs) -> tuple[tuple[str, str | None, tuple[int, ...]], ...]:
    """An epoch and its ancestors, youngest first."""
    chain: list[tuple[str, str | None, tuple[int, ...]]] = []
    current: str | None = epoch
    while current is not None and current in epochs and len(chain) < MOST_ANCESTORS:
        parent, forked_at = epochs[current]
        chain.append((current, parent, forked_at))
        current = parent if parent not in {known for known, _, _ in chain} else None
    return tuple(chain)


def read_seen(data_dir: Path) -> list[Seen]:
    """What the data directory remembers, by shard; files that cannot be read are passed over."""
    found = []
    for path in sorted((data_dir / "seen").glob("shard-*.json")):
        try:
            found.append(_parse(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("what was seen of the database cannot be read", file=str(path), error=repr(error))
    return found


def _parse(body: dict[str, Any]) -> Seen:
    chain = tuple((str(e), None if p is None else str(p), tuple(int(n) for n in f)) for e, p, f in body["chain"])
    return Seen(int(body["shard"]), str(body["epoch"]), int(body["position"]), chain)


def write_seen(data_dir: Path, seen: Seen) -> None:
    """Replaces the shard's file whole. Blocks on the disk. Raises OSError."""
    folder = data_dir / "seen"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"shard-{seen.shard}.json"
    unfinished = folder / f".shard-{seen.shard}.{os.getpid()}.unfinished"
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(asdict(seen), file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
