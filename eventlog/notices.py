"""The notice of a room server batch: what its NOTIFY says, so that whoever hears it need not look.

Invariant: PostgreSQL hands a notification on only once its transaction is committed and visible, so a notice is as true as the
tables; but it may be missed, and every session of the database may send one. It counts where it continues what is known and comes
from a session of the room server (PostgreSQL says whose it is), and in every other case it is the reason to look.

    <shard> <position before> <position after> <epoch> [<entry>,<difference to the next>,…]

The entries, in hexadecimal, are those of the positions in between, all accepted; without them the verdicts are in the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, pairwise
from typing import Final, NamedTuple, Self

import psycopg
from psycopg import AsyncConnection

CHANNEL: Final = "walden_outputs"
MOST_BYTES: Final = 7_000
"""Of the list of entries: a payload may have 7,999 bytes."""


class Notice(NamedTuple):
    """A batch of a shard that was committed: positions above `before` up to `after`. `accepted` are its entries, or None."""

    shard: int
    before: int
    after: int
    epoch: str
    accepted: list[int] | None


def accepted_list(entries: Sequence[int]) -> str | None:
    """The list of a batch's entries in order of position, all accepted; None when it would be too long."""
    differences = (b - a for a, b in pairwise(entries))
    text = ",".join(f"{number:x}" for number in chain(entries[:1], differences))
    return text if len(text) <= MOST_BYTES else None


def parse_notice(payload: str) -> Notice | None:
    """The notice of a payload; None for what is none."""
    parts = payload.split(" ")
    try:
        shard, before, after = map(int, parts[:3])
        accepted = list(accumulate(_numbers(parts[4]))) if len(parts) == 5 else None
    except ValueError:
        return None
    if len(parts) not in (4, 5) or (accepted is not None and len(accepted) != after - before):
        return None
    return Notice(shard, before, after, parts[3], accepted)


def _numbers(text: str) -> Iterable[int]:
    return (int(number, 16) for number in text.split(","))


class Listener:
    """Calls back, on the loop, with payload and sender (process id) of every notification of a connection; a context manager.

    The connection listens already and runs nothing else meanwhile. One registration with the loop serves all notifications:
    psycopg's own generator makes and ends one for each.
    """

    def __init__(self, connection: AsyncConnection, heard: Callable[[str, int], None]) -> None:
        self._pgconn = connection.pgconn
        self._heard = heard
        self._lost: psycopg.Error | None = None
        self._loop = asyncio.get_running_loop()
        self._socket = self._pgconn.socket

    def __enter__(self) -> Self:
        self._loop.add_reader(self._socket, self._read)
        self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._socket)

    def check(self) -> None:
        """Raises psycopg.OperationalError when the connection is lost."""
        if self._lost is not None:
            raise self._lost

    def _read(self) -> None:
        try:
            # Decrypted bytes may wait inside libpq where the socket shows nothing.
            for _ in range(2 if self._pgconn.ssl_in_use else 1):
                self._pgconn.consume_input()
                while (notification := self._pgconn.notifies()) is not None:
                    self._heard(notification.extra.decode(), notification.be_pid)
        except psycopg.Error as error:
            self._lost = error
            self._loop.remove_reader(self._socket)
            # Whoever waits for news wakes up and checks.
            self._heard("", 0)
