"""Where a client is: its token made into positions of the present history.

Invariant: every token that this installation ever gave out leads to an answer. One of an abandoned future (the database was
restored to an earlier time) counts from where its history parted from ours, and its client is told the present of every room anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from eventlog.tokens import SyncToken
from matrix.errors import invalid_param

Epochs = dict[str, tuple[str | None, tuple[int, ...]]]
"""Epoch id → its parent and the positions up to which the parent's history is its own."""


@dataclass(frozen=True, slots=True)
class Place:
    """A client's place. `anew`: what it knows of rooms cannot be trusted, so they are told whole; None: it knows nothing."""

    positions: tuple[int, ...] | None
    anew: bool = False


def parse_token(text: str, shards: int) -> SyncToken:
    """The token of a `since`; M_INVALID_PARAM for what this server cannot have given out."""
    try:
        token = SyncToken.parse(text)
    except ValueError:
        raise invalid_param("since is not a token of this server.") from None
    if len(token.positions) > shards:
        raise invalid_param("since is not a token of this server.")
    # Raising the number of shards starts the new ones above every old position.
    return SyncToken(token.epoch, token.positions + (0,) * (shards - len(token.positions)))


def place_of(token: SyncToken, epoch: str, head: tuple[int, ...], epochs: Epochs) -> Place:
    """The place of a token as seen from the current epoch, whose committed positions are `head`."""
    if token.epoch == epoch:
        if all(position <= end for position, end in zip(token.positions, head, strict=True)):
            return Place(token.positions)
        # Ahead of the head within one epoch: restored without anybody having said so.
        return Place(tuple(min(pair) for pair in zip(token.positions, head, strict=True)), anew=True)
    positions = list(token.positions)
    current: str | None = epoch
    abandoned = False
    seen: set[str] = set()
    while current is not None and current != token.epoch and current not in seen:
        seen.add(current)
        parent, forked_at = epochs.get(current, (None, ()))
        for shard, limit in enumerate(forked_at[: len(positions)]):
            if positions[shard] > limit:
                positions[shard] = limit
                abandoned = True
        current = parent
    if current != token.epoch:
        # An epoch that nothing here remembers: it began after the moment the database was restored to.
        return Place(None, anew=True)
    return Place(tuple(min(pair) for pair in zip(positions, head, strict=True)), anew=abandoned)
