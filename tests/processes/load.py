"""A load on rooms that goes on whatever dies: people who send, and what was acknowledged to them.

Invariant: `acknowledged` holds exactly what a 200 said, no more; every message has a text of its own.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from people import Person, Refused, segment


@dataclass
class Load:
    """Senders in rooms. Each sends one request at a time and pauses `pause` seconds in between."""

    senders: list[Person]
    rooms: list[str]
    chance: random.Random
    pause: float = 0.02
    acknowledged: dict[str, dict[str, str]] = field(default_factory=dict)
    """By room: event id to text of the messages, event id to "" of state events."""
    account_data: dict[str, int] = field(default_factory=dict)
    """By user: the last value of the account data of type `test.counter`."""
    restores: bool = False
    """The database is restored meanwhile: what a sender knows of rooms and events may be of the time that is lost."""
    latest: dict[str, float] = field(default_factory=dict)
    """By room: when the request began that was the last to be acknowledged."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _values: dict[str, int] = field(default_factory=dict)
    _going: asyncio.Event = field(default_factory=asyncio.Event)
    _ending: bool = False

    @classmethod
    async def prepare(cls, url: str, people: int, rooms: int, chance: random.Random) -> Self:
        """People who have registered and are in all rooms."""
        senders = [await Person(url).register() for _ in range(people)]
        levels = {"power_level_content_override": {"events": {"test.state": 0}}}
        made = [await senders[0].create_room(name=f"room {n}", **levels) for n in range(rooms)]
        for person in senders[1:]:
            for room_id in made:
                await person.join(room_id)
        return cls(senders, made, chance, acknowledged={room_id: {} for room_id in made})

    @property
    def count(self) -> int:
        """How many events were acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    def begin(self) -> None:
        """Start sending."""
        self._going.set()
        self._tasks = [asyncio.create_task(self._send(person)) for person in self.senders]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody begins a request while the block runs."""
        self._going.clear()
        try:
            yield
        finally:
            self._going.set()

    async def end(self) -> None:
        """Stop after what is under way has been acknowledged. Raises what a sender met that was not to be repeated."""
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for person in self.senders:
            await person.__aexit__(None, None, None)

    async def recovered(self, since: float, seconds: float) -> float:
        """Wait until requests that began after `since` were acknowledged in every room; how long after it that was."""
        async with asyncio.timeout(seconds):
            while not all(self.latest.get(room_id, 0.0) > since for room_id in self.rooms):
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)
        return time.monotonic() - since

    async def _send(self, person: Person) -> None:
        while not self._ending:
            await self._going.wait()
            room_id = self.chance.choice(self.rooms)
            try:
                await self._act(person, room_id)
            except Refused as refusal:
                if not self.restores or refusal.errcode != "M_FORBIDDEN":
                    raise
                # It came back into the room in the time that is lost.
                await person.join(room_id)
            await asyncio.sleep(self.pause)

    async def _act(self, person: Person, room_id: str) -> None:
        number, dice, began = next(self._numbers), self.chance.random(), time.monotonic()
        if dice < 0.86:
            text = f"{person.name} says {number}"
            event_id = await person.send(room_id, text)
            assert event_id not in self.acknowledged[room_id], f"{event_id} acknowledged twice"
            self.acknowledged[room_id][event_id] = text
            self.latest[room_id] = began
        elif dice < 0.89:
            event_id = await person.set_state(room_id, "test.state", {"number": number}, person.user_id)
            self.acknowledged[room_id][event_id] = ""
        elif dice < 0.92:
            await self._leave_and_come_back(person, room_id)
        elif dice < 0.96:
            known = self.acknowledged[room_id]
            if known:
                event_id = next(reversed(known))
                path = f"rooms/{segment(room_id)}/receipt/m.read/{segment(event_id)}"
                try:
                    await person.insist("POST", path, {})
                except Refused:
                    if event_id in known:
                        raise
        else:
            value = self._values[person.user_id] = self._values.get(person.user_id, 0) + 1
            path = f"user/{segment(person.user_id)}/account_data/test.counter"
            await person.insist("PUT", path, {"value": value})
            self.account_data[person.user_id] = value

    async def _leave_and_come_back(self, person: Person, room_id: str) -> None:
        # Refused when it is repeated after an answer that was lost: they are gone already.
        with contextlib.suppress(Refused):
            await person.leave(room_id)
        await person.join(room_id)


def compare(load: Load, observers: list[Person]) -> None:
    """Everything acknowledged is in every observer's timeline, once, with its text, and all have one order."""
    for room_id in load.rooms:
        orders = [person.event_ids(room_id) for person in observers]
        for person, order in zip(observers, orders, strict=True):
            twice = [event_id for event_id, n in collections.Counter(order).items() if n > 1]
            assert not twice, f"{person.name} saw {len(twice)} events twice, {twice[:3]}"
            lost = load.acknowledged[room_id].keys() - set(order)
            assert not lost, f"{person.name} did not see {len(lost)} acknowledged events, {list(lost)[:3]}"
            texts = {e["event_id"]: e["content"].get("body", "") for e in person.timelines[room_id]}
            wrong = [e for e, text in load.acknowledged[room_id].items() if texts[e] != text]
            assert not wrong, f"{person.name} saw other words in {wrong[:3]}"
            bodies = collections.Counter(text for text in texts.values() if " says " in text)
            repeated = [text for text, n in bodies.items() if n > 1]
            assert not repeated, f"{person.name} saw the same message in several events: {repeated[:3]}"
        # They joined one after the other: what all of them can have seen live begins with the last one's join.
        last = observers[-1].user_id
        shared = []
        for person, order in zip(observers, orders, strict=True):
            joins = [e["event_id"] for e in person.timelines[room_id] if e.get("state_key") == last]
            shared.append(order[order.index(joins[0]) :])
        for person, order in zip(observers[1:], shared[1:], strict=True):
            assert order == shared[0], f"{person.name} saw another order than {observers[0].name}"
