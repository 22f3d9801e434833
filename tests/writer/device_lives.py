"""Users, their devices, keys, messages to devices and pictures, as they should be: what random requests are held against.

Invariant: a `Device` has what it was told in responses alone (`told`, `tracked`, `states`), and beside it what the server has been
given for it (`sent`, `stock`, `fallback`): nothing of that is ever taken from a response of /sync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
from api_server import SERVER_NAME, Api, Client, Json, part
from test_keys import Identity

from matrix.signatures import SigningKey

MOST_TOLD = 100


@dataclass
class Device:
    """A device as its user sees it, and what is to be told to it."""

    client: Client
    key: SigningKey = field(default_factory=lambda: SigningKey.generate("x"))
    keys: Json | None = None
    stock: dict[str, list[str]] = field(default_factory=dict)
    """By algorithm, the one-time keys that nobody has claimed, in the order in which they were uploaded."""
    uploaded: dict[str, set[str]] = field(default_factory=dict)
    fallback: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """By algorithm, the fallback key, and whether it was handed out."""
    sent: list[int] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    begins: int = 0
    """How many messages were told before the device began afresh: these may be told once more, or not."""
    tracked: dict[str, Json] = field(default_factory=dict)
    """By user whose devices it follows, their keys as they were when it looked last."""
    states: dict[str, dict[tuple[str, str], Json]] = field(default_factory=dict)
    """By joined room, the state events."""
    pictures: set[str] = field(default_factory=set)
    """URIs that it was told of."""
    since: str = ""
    settled_at: int = -1
    """The step at which it was told everything last."""

    @property
    def user_id(self) -> str:
        return self.client.user_id

    @property
    def device_id(self) -> str:
        return self.client.device_id

    def counts(self) -> dict[str, int]:
        return {algorithm: len(keys) for algorithm, keys in self.stock.items() if keys}

    def unused(self) -> list[str]:
        return sorted(algorithm for algorithm, (_, used) in self.fallback.items() if not used)

    def take(self, algorithm: str) -> str | None:
        """The key that a claim has to get: the oldest, or else the fallback key, which is then used."""
        if self.stock.get(algorithm):
            return self.stock[algorithm].pop(0)
        if algorithm not in self.fallback:
            return None
        key_id, _ = self.fallback[algorithm]
        self.fallback[algorithm] = (key_id, True)
        return key_id

    def again(self, client: Client) -> None:
        """The same device after another login: it knows nothing, and the server has everything."""
        self.client = client
        self.since, self.settled_at = "", -1
        if self.told:
            self.begins, self.told = self.sent.index(self.told[-1]) + 1, []
        self.tracked.clear()
        self.states.clear()


@dataclass
class Someone:
    """A user with devices."""

    first: Client
    devices: list[Device]
    identity: Identity | None = None
    gone: list[str] = field(default_factory=list)
    """Ids of devices that are no more."""

    @property
    def user_id(self) -> str:
        return self.first.user_id


class Lives:
    """Everybody, and when anything happened that others have to be told of."""

    def __init__(self, api: Api, keeper: Client, people: list[Someone], rooms: list[str]) -> None:
        self.api, self.keeper, self.people, self.rooms = api, keeper, people, rooms
        self.step = 0
        self.changed: dict[str, int] = {}
        """The step at which the devices or keys of a user changed last."""
        self.signed: dict[tuple[str, str], int] = {}
        """The step at which a user signed another one's key last: a change to the signer's own devices alone."""
        self.moved: dict[str, int] = {}
        """The step at which a user came to a room or left one last."""
        self.members: dict[str, set[str]] = {room_id: {keeper.user_id} for room_id in rooms}
        self.media: dict[str, bytes] = {}

    def devices(self) -> list[Device]:
        return [device for one in self.people for device in one.devices]

    def companions(self, user_id: str) -> set[str]:
        """Who shares a room with a user, and the user."""
        return {user_id}.union(*(there for there in self.members.values() if user_id in there))

    async def quiet(self) -> None:
        """Waits until all that was asked for is judged, and has come to the reader."""
        path = f"user/{part(self.keeper.user_id)}/account_data/org.example.quiet"
        # Entries are judged in order: when this is, so is everything before it.
        (await self.keeper.put(path, {"step": self.step})).ok()
        service = self.api.process.sync
        positions = tuple(row[0] for row in await service.rows("heads"))
        assert await service.current.reach(positions, 60)

    async def fetch(self, client: Client, uri: str) -> httpx.Response:
        """What a URI stands for."""
        path = f"/_matrix/client/v1/media/download/{uri.removeprefix('mxc://')}"
        return await self.api.http.get(path, headers={"authorization": f"Bearer {client.token}"})

    async def upload(self, client: Client, content: bytes) -> str:
        """Uploads a picture; its URI."""
        headers = {"authorization": f"Bearer {client.token}", "content-type": "image/png"}
        answer = await self.api.http.post("/_matrix/media/v3/upload", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        uri: str = answer.json()["content_uri"]
        assert uri.startswith(f"mxc://{SERVER_NAME}/") and uri not in self.media
        self.media[uri] = content
        return uri

    async def look(self, device: Device, users: Iterable[str]) -> dict[str, Json]:
        """The keys of users as a device is told them."""
        users = sorted(users)
        if not users:
            return {}
        answer = (await device.client.post("keys/query", {"device_keys": {user_id: [] for user_id in users}})).ok()
        kinds = ("device_keys", "master_keys", "self_signing_keys", "user_signing_keys")
        return {user_id: {kind: answer[kind].get(user_id) for kind in kinds} for user_id in users}

    async def sync(self, device: Device) -> Json:
        """One request of a device, and what a client does with the answer."""
        body = (await device.client.get(f"sync?since={part(device.since)}" if device.since else "sync")).ok()
        news = body.get("to_device", {}).get("events", [])
        assert len(news) <= MOST_TOLD
        device.told += [event["content"]["n"] for event in news]
        lists = body.get("device_lists", {})
        if device.since:
            self._check_lists(device, lists)
            device.tracked |= await self.look(device, lists.get("changed", ()))
            for user_id in lists.get("left", ()):
                device.tracked.pop(user_id, None)
        gathered = gather({} if not device.since else device.states, body)
        device.states = gathered
        if not device.since:
            device.tracked = await self.look(device, {device.user_id} | joined_members(gathered))
        device.since = body["next_batch"]
        for uri in named_media(body) - device.pictures:
            assert (await self.fetch(device.client, uri)).content == self.media[uri]
            device.pictures.add(uri)
        return body

    def _check_lists(self, device: Device, lists: Json) -> None:
        """Nobody is named of whom nothing has changed since everything was told."""
        since = device.settled_at
        for kind in ("changed", "left"):
            for user_id in lists.get(kind, ()):
                reasons = [self.moved.get(user_id, -1), self.moved.get(device.user_id, -1)]
                if kind == "changed":
                    reasons += [self.changed.get(user_id, -1), self.signed.get((device.user_id, user_id), -1)]
                assert max(reasons) > since, (kind, user_id, device.user_id, since, reasons)

    @staticmethod
    def _check_stock(device: Device, body: Json) -> None:
        told = body["device_one_time_keys_count"], sorted(body["device_unused_fallback_key_types"])
        assert told == (device.counts(), device.unused()), (device.device_id, told, device.counts(), device.unused())

    async def settle(self, device: Device) -> None:
        """Lets a device be told everything, and checks that it has been: no less, and nothing twice."""
        await self.quiet()
        while True:
            body = await self.sync(device)
            if "to_device" not in body:
                break
        device.settled_at = self.step
        self._check_stock(device, body)
        companions = self.companions(device.user_id)
        # Whom the user has signed is told to their devices wherever both are.
        signed = {user_id for signer, user_id in self.signed if signer == device.user_id}
        tracked = {
            user_id: seen for user_id, seen in device.tracked.items() if user_id in companions or user_id not in signed
        }
        assert tracked.keys() == companions, (device.user_id, tracked.keys(), companions)
        assert tracked == await self.look(device, companions)
        begins = len(device.sent) - len(device.told)
        assert 0 <= begins <= device.begins, (device.device_id, begins, device.begins)
        assert device.told == device.sent[begins:], (device.device_id, device.told, device.sent[begins:])
        fresh = (await device.client.get("sync")).ok()
        self._check_stock(device, fresh)
        assert device.states == gather({}, fresh)
        assert device.states.keys() == {room for room, there in self.members.items() if device.user_id in there}


def gather(before: dict[str, dict[tuple[str, str], Json]], body: Json) -> dict[str, dict[tuple[str, str], Json]]:
    """The state of joined rooms after a response."""
    rooms = body.get("rooms", {})
    states = {room_id: dict(state) for room_id, state in before.items() if room_id not in rooms.get("leave", {})}
    for room_id, room in rooms.get("join", {}).items():
        of_room = states.setdefault(room_id, {})
        for event in [*room.get("state", {}).get("events", []), *room["timeline"]["events"]]:
            if "state_key" in event:
                of_room[event["type"], event["state_key"]] = event["content"]
    return states


def joined_members(states: dict[str, dict[tuple[str, str], Json]]) -> set[str]:
    """Users in any of some rooms."""
    return {
        state_key
        for state in states.values()
        for (kind, state_key), content in state.items()
        if kind == "m.room.member" and content["membership"] == "join"
    }


def named_media(body: Json) -> set[str]:
    """URIs in the messages and avatars of a response."""
    found: set[Any] = set()
    for room in body.get("rooms", {}).get("join", {}).values():
        for event in [*room.get("state", {}).get("events", []), *room["timeline"]["events"]]:
            found |= {event["content"].get("url"), event["content"].get("avatar_url")}
    return found - {None}


async def until_empty(rows: Any) -> None:
    """Waits until what devices have got is kept for them no longer."""
    async with asyncio.timeout(60):
        while await rows():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)
