"""What a member of the rooms sees through /sync, kept in order, and its comparison with what was acknowledged.

An observer never hides a fault: an event received twice stays twice in its list. A limited timeline is completed through
/messages, as a client does it, and the number of such gaps is reported.
"""

import asyncio
from collections import Counter, defaultdict

from bin.benchmark.account import Account, Json

POLL_SECONDS = 10.0
PAGE = 1000
GAP_PAGES = 1000
"""Pages of /messages after which a gap is given up as endless."""


class Observer:
    """One syncing client; `seen` maps a room id to the ids of its messages in the order received."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.seen: dict[str, list[str]] = defaultdict(list)
        self.gaps = 0
        self.syncs = 0
        self.last_received = 0.0
        self._since: str | None = None
        self._filter: str | None = None
        self._total = 0
        self._wanted = -1
        self._reached = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """An initial sync, whose timelines are not counted: everything after it is."""
        self._filter = await self.account.filter(PAGE)
        answer, _ = await self.account.sync(None, 0, self._filter)
        self._since = answer["next_batch"]
        self.reset()

    def reset(self) -> None:
        """Forgets what was seen, and goes on from the same token."""
        self.seen.clear()
        self.gaps = self.syncs = self._total = 0
        self._wanted = -1

    def follow(self) -> None:
        """Long-polls in the background until `stop`."""
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            await self.step(POLL_SECONDS)

    async def step(self, timeout: float) -> int:
        """One sync; how many messages it brought."""
        before = self._total
        since = self._since
        answer, response = await self.account.sync(since, timeout, self._filter)
        self._since = answer["next_batch"]
        self.syncs += 1
        for room_id, room in answer.get("rooms", {}).get("join", {}).items():
            timeline = room.get("timeline", {})
            if timeline.get("limited"):
                self.gaps += 1
                await self._fill(room_id, timeline["prev_batch"], since)
            self._take(room_id, timeline.get("events", []))
        if self._total > before:
            self.last_received = response.received
        if self._wanted >= 0 and self._total >= self._wanted:
            self._reached.set()
        return self._total - before

    async def _fill(self, room_id: str, start: str, end: str | None) -> None:
        known = set(self.seen[room_id])
        missed: list[Json] = []
        for _ in range(GAP_PAGES):
            answer, _response = await self.account.messages(room_id, start, end, PAGE)
            chunk: list[Json] = answer.get("chunk", [])
            fresh = [event for event in chunk if event["event_id"] not in known]
            missed += fresh
            if not chunk or len(fresh) < len(chunk) or "end" not in answer:
                break
            start = answer["end"]
        self._take(room_id, missed[::-1])

    def _take(self, room_id: str, events: list[Json]) -> None:
        ids = [event["event_id"] for event in events if event["type"] == "m.room.message"]
        self.seen[room_id] += ids
        self._total += len(ids)

    async def reach(self, total: int, timeout: float) -> bool:
        """Waits until `total` messages are there; False when they are not after `timeout` seconds."""
        self._wanted = total
        if self._total < total:
            self._reached.clear()
            waiter = asyncio.create_task(self._reached.wait())
            tasks = {waiter} | ({self._task} if self._task is not None else set())
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            if self._task is not None and self._task.done():
                self._task.result()
        return self._total >= total

    async def drain(self, total: int) -> None:
        """Syncs without waiting until `total` messages are there or a sync brings nothing twice in a row."""
        empty = 0
        while self._total < total and empty < 2:
            empty = 0 if await self.step(1.0 if empty else 0.0) else empty + 1

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None


def differences(
    acknowledged: dict[str, list[list[str]]], live: dict[str, list[str]], late: dict[str, list[str]], failed: int
) -> list[str]:
    """Every way in which what two observers saw differs from what was acknowledged, as sentences; none if all is well.

    `acknowledged` maps a room to one list per sender, in the order of its answers; `failed` is how many sends had no 200
    (such an event may have been accepted all the same).
    """
    faults: list[str] = []
    for room_id, senders in acknowledged.items():
        expected = [event_id for sent in senders for event_id in sent]
        if len(set(expected)) != len(expected):
            faults.append(f"{room_id}: {len(expected) - len(set(expected))} event ids acknowledged twice")
        for name, seen in (("live", live.get(room_id, [])), ("late", late.get(room_id, []))):
            times = Counter(seen)
            lost = sum(event_id not in times for event_id in expected)
            twice = sum(count - 1 for count in times.values())
            unknown = len(times.keys() - set(expected))
            if lost:
                faults.append(f"{room_id}: {lost} acknowledged events never reached the {name} observer")
            if twice:
                faults.append(f"{room_id}: {twice} events reached the {name} observer twice")
            if unknown > failed:
                faults.append(f"{room_id}: {unknown} events at the {name} observer were never acknowledged")
            place = {event_id: index for index, event_id in enumerate(seen)}
            for sent in senders:
                places = [place[event_id] for event_id in sent if event_id in place]
                if places != sorted(places):
                    faults.append(f"{room_id}: the {name} observer has one sender's events out of order")
                    break
        if live.get(room_id, []) != late.get(room_id, []):
            faults.append(f"{room_id}: the live and the late observer disagree on the order")
    return faults
