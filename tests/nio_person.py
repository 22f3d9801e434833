"""A matrix-nio client that notes what it is told, in order.

Invariant: every event of a timeline is noted once per callback, as nio parsed it, with its source.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from nio import (
    AsyncClient,
    AsyncClientConfig,
    ErrorResponse,
    Event,
    InviteMemberEvent,
    MatrixRoom,
    ReceiptEvent,
    SyncError,
    SyncResponse,
    TypingNoticeEvent,
)

Answer = TypeVar("Answer")
SECONDS = 30.0
# nio waits longer and longer between attempts; a test has no minute to spare.
CONFIG = AsyncClientConfig(encryption_enabled=False, max_timeout_retry_wait_time=2)
ENCRYPTING = AsyncClientConfig(encryption_enabled=True, store_sync_tokens=False, max_timeout_retry_wait_time=2)


class NioPerson:
    """One device; `events` holds, by room, what came in the timelines, oldest first."""

    def __init__(self, url: str, name: str, store: Path | None = None) -> None:
        """`store`: the folder where a client that encrypts keeps its keys; None: this one does not."""
        if store is None:
            self.client = AsyncClient(url, name, config=CONFIG)
        else:
            store.mkdir(parents=True, exist_ok=True)
            self.client = AsyncClient(url, name, store_path=str(store), config=ENCRYPTING)
        self.events: dict[str, list[Event]] = {}
        self.invites: dict[str, InviteMemberEvent] = {}
        self.typing: dict[str, list[str]] = {}
        self.receipts: dict[tuple[str, str], str] = {}
        """By room and user: the event read last."""
        self.left: dict[str, list[Event]] = {}
        """The timelines of rooms that were left, which nio passes to no callback for events."""
        self.refusals: list[str] = []
        self.key_counts: list[int | None] = []
        """What each sync said of signed one-time keys; None: nothing, which means none."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.client.close()

    def listen(self, sync_filter: dict[str, Any] | None = None) -> None:
        """Begin to sync."""
        client = self.client
        client.add_event_callback(self._event, Event)
        client.add_event_callback(self._invite, InviteMemberEvent)
        client.add_ephemeral_callback(self._typing, TypingNoticeEvent)
        client.add_ephemeral_callback(self._receipt, ReceiptEvent)
        client.add_response_callback(self._refusal, SyncError)
        client.add_response_callback(self._leaves, SyncResponse)
        client.add_response_callback(self._counts, SyncResponse)
        self._task = asyncio.create_task(client.sync_forever(timeout=10_000, sync_filter=sync_filter))

    async def until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Wait until what is noted is as wanted."""
        async with asyncio.timeout(seconds):
            while not condition():
                if self._task is not None and self._task.done():
                    self._task.result()
                await self.client.synced.wait()
                await asyncio.sleep(0.02)

    async def say(self, room_id: str, text: str) -> str:
        """Send a message; its event id."""
        return await self.send(room_id, {"msgtype": "m.text", "body": text})

    async def send(self, room_id: str, content: dict[str, Any]) -> str:
        """Send an m.room.message; its event id."""
        # Nobody has verified anybody here.
        answer = good(await self.client.room_send(room_id, "m.room.message", content, ignore_unverified_devices=True))
        return str(answer.event_id)

    async def _event(self, room: MatrixRoom, event: Event) -> None:
        self.events.setdefault(room.room_id, []).append(event)

    async def _invite(self, room: MatrixRoom, event: InviteMemberEvent) -> None:
        self.invites[room.room_id] = event

    async def _typing(self, room: MatrixRoom, event: TypingNoticeEvent) -> None:
        self.typing[room.room_id] = event.users

    async def _receipt(self, room: MatrixRoom, event: ReceiptEvent) -> None:
        for receipt in event.receipts:
            self.receipts[room.room_id, receipt.user_id] = receipt.event_id

    async def _counts(self, response: SyncResponse) -> None:
        self.key_counts.append(response.device_key_count.signed_curve25519)

    async def _leaves(self, response: SyncResponse) -> None:
        for room_id, room in response.rooms.leave.items():
            self.left.setdefault(room_id, []).extend(room.timeline.events)

    async def _refusal(self, response: SyncError) -> None:
        self.refusals.append(str(response))


def good(answer: Answer | ErrorResponse) -> Answer:
    """nio answers with errors as values; here they are failures."""
    assert not isinstance(answer, ErrorResponse), answer
    return answer
