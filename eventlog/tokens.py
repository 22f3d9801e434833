"""Tokens that clients keep: where in the outputs they are, and of which history.

Invariant: a token is an epoch and a position per shard, never an LSN; what parses is what was given out, and nothing else.
A sync token reads `w1_<epoch>_<position>.<position>…`, a place in a room's timeline `t<order>`. While a device has more messages
than one response holds, its token goes on `_<position>.<position>…`, up to where they were told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_POSITIONS = r"((?:0|[1-9][0-9]{0,17})(?:\.(?:0|[1-9][0-9]{0,17})){0,255})"
_SYNC = re.compile(rf"w1_([0-9a-z]{{1,32}})_{_POSITIONS}(?:_{_POSITIONS})?")
_TIMELINE = re.compile(r"t(0|-?[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class SyncToken:
    """A place in the outputs: the epoch and the last position seen of every shard.

    `inbox` is up to where messages to the device have been told, when that is less far; None: as far as all else.
    """

    epoch: str
    positions: tuple[int, ...]
    inbox: tuple[int, ...] | None = None

    def __str__(self) -> str:
        text = f"w1_{self.epoch}_{'.'.join(map(str, self.positions))}"
        return text if self.inbox is None else f"{text}_{'.'.join(map(str, self.inbox))}"

    @classmethod
    def parse(cls, text: str) -> SyncToken:
        """Reads a token; ValueError for anything that this server cannot have given out."""
        match = _SYNC.fullmatch(text)
        if match is None:
            raise ValueError("not a sync token of this server")
        inbox = None if match[3] is None else tuple(int(part) for part in match[3].split("."))
        return cls(match[1], tuple(int(part) for part in match[2].split(".")), inbox)


@dataclass(frozen=True, slots=True)
class TimelineToken:
    """A place between two events of one room's timeline: after the event of that order, before the next."""

    order: int

    def __str__(self) -> str:
        return f"t{self.order}"

    @classmethod
    def parse(cls, text: str) -> TimelineToken:
        """Reads a token; ValueError for anything that this server cannot have given out."""
        match = _TIMELINE.fullmatch(text)
        if match is None:
            raise ValueError("not a timeline token of this server")
        return cls(int(match[1]))
