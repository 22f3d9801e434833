"""Where a client is: its token made into positions of the present history.

Invariant: every token that this installation ever gave out leads to an answer. One of an abandoned future (the database was
restored to an earlier time) counts from where its history parted from ours, and its client is told the present of every room anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from eventlog.seen import Epochs
from eventlog.tokens import SyncToken
from matrix.errors import invalid_param

NO_LIMIT: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Place:
    """A client's place. `anew`: what it knows of rooms cannot be trusted, so they are told whole; None: it knows nothing.

    `inbox` is up to where its messages to the device have been told.
    """

    positions: tuple[int, ...] | None
    anew: bool = False
    inbox: tuple[int, ...] | None = None


@lru_cache(maxsize=1024)
def parse_token(text: str, shards: int) -> SyncToken:
    """The token of a `since`; M_INVALID_PARAM for what this server cannot have given out."""
    try:
        token = SyncToken.parse(text)
    except ValueError:
        raise invalid_param("since is not a token of this server.") from None
    if len(token.positions) > shards:
        raise invalid_param("since is not a token of this server.")
    # Raising the number of shards starts the new ones above every old position.
    inbox = None if token.inbox is None else (token.inbox + (0,) * shards)[:shards]
    return SyncToken(token.epoch, token.positions + (0,) * (shards - len(token.positions)), inbox)


def place_of(token: SyncToken, epoch: str, head: tuple[int, ...], epochs: Epochs) -> Place:
    """The place of a token as seen from the current epoch, whose committed positions are `head`."""
    ours = _history(epoch, len(token.positions), epochs)
    positions, abandoned = token.positions, False
    at: str | None = token.epoch
    for _ in range(len(epochs) + 1):
        if at is None or at in ours:
            break
        # An epoch beside our history: only what lies before it can be in common.
        at, forked_at = epochs.get(at, (None, ()))
        shared = _least(positions, forked_at)
        positions, abandoned = shared, abandoned or shared != positions
    if at is None or at not in ours:
        # An epoch that nothing here remembers: it began after the moment the database was restored to.
        return Place(None, anew=True)
    common = _least(positions, ours[at])
    here = _least(common, head)
    if token.epoch == epoch and here != common:
        # Ahead of the head within one epoch: restored without anybody having said so.
        return Place(here, anew=True)
    return Place(here, anew=abandoned or common != positions)


def _history(epoch: str, shards: int, epochs: Epochs) -> dict[str, tuple[int, ...]]:
    """The epochs that our history is made of, each with the positions up to which it belongs to it."""
    found: dict[str, tuple[int, ...]] = {}
    limits: tuple[int, ...] = (NO_LIMIT,) * shards
    at: str | None = epoch
    while at is not None and at not in found:
        found[at] = limits
        at, forked_at = epochs.get(at, (None, ()))
        limits = _least(limits, forked_at)
    return found


def _least(positions: tuple[int, ...], limits: tuple[int, ...]) -> tuple[int, ...]:
    """The lesser of each; where no limit is named there is none."""
    return tuple(map(min, positions, limits)) + positions[len(limits) :]
