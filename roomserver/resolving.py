"""Carrying out long resolutions in another process.

Invariant: the process is given values and gives back a value; it has no connection and no state, and is started only when a large
room first needs it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.state_resolution import Resolution, StateKey, resolve

Plain = tuple[dict[str, object], str, bool]


def _resolve(version_name: str, states: Sequence[dict[StateKey, str]], plain: Sequence[Plain]) -> Resolution:
    version = ROOM_VERSIONS[version_name]
    events = {}
    for pdu, event_id, rejected in plain:
        event = Event.from_pdu(pdu, version, event_id)
        event.rejected = rejected
        events[event_id] = event
    return resolve(version, states, events)


class ProcessResolver:
    """Resolves in a process of its own, one resolution after the other."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def __call__(
        self, version: RoomVersion, states: Sequence[dict[StateKey, str]], events: Mapping[str, Event]
    ) -> Resolution:
        """The resolution; one retry when the process was killed."""
        plain = [(event.pdu, event.event_id, event.rejected) for event in events.values()]
        try:
            return await self._run(version.identifier, states, plain)
        except BrokenProcessPool:
            self._pool = None
            return await self._run(version.identifier, states, plain)

    async def _run(self, version: str, states: Sequence[dict[StateKey, str]], plain: Sequence[Plain]) -> Resolution:
        if self._pool is None:
            # Spawned, not forked: connections and the event loop stay here.
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        return await asyncio.get_running_loop().run_in_executor(self._pool, _resolve, version, list(states), plain)

    def close(self) -> None:
        """Ends the process."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
