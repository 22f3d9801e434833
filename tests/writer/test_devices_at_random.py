"""Whatever devices do, each is told by /sync what the server has for it: keys, other people's devices, messages, pictures."""

from __future__ import annotations

import asyncio
import collections
import os
import random
from typing import Any

import psycopg
import pytest
from api_server import Api, Json, eventually, part
from device_lives import Device, Lives, Someone, until_empty
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_keys import Identity, device_keys, one_time

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ALGORITHMS = ("signed_curve25519", "curve25519")
MOST_DEVICES = 4
STEPS = 60
CHOICES = (
    ["log in", "log in again", "log out", "delete", "rename", "identity", "identity again"]
    + ["one-time keys"] * 4
    + ["the same one-time keys", "fallback key", "fallback key", "claim", "claim", "claim"]
    + ["cross-signing", "sign own device", "sign another user"]
    + ["message", "message", "star", "crowd", "join", "join", "leave", "picture", "avatar"]
)


class Requests:
    """Random requests, each of which succeeds; the model follows."""

    def __init__(self, lives: Lives, dice: random.Random) -> None:
        self.lives, self.dice = lives, dice
        self.numbers = 0

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    async def act(self) -> None:
        """One of them."""
        lives, dice = self.lives, self.dice
        lives.step += 1
        someone, other = dice.choice(lives.people), dice.choice(lives.people)
        device = dice.choice(someone.devices)
        match dice.choice(CHOICES):
            case "log in" if len(someone.devices) < MOST_DEVICES:
                # Perhaps by the name of a device that was deleted: it has nothing of that one's.
                names = [*someone.gone[-2:], f"D{self.number()}"]
                name = dice.choice(names)
                someone.gone = [gone for gone in someone.gone if gone != name]
                someone.devices.append(Device(await lives.api.login(someone.first, device_id=name)))
            case "log in again":
                device.again(await lives.api.login(someone.first, device_id=device.device_id))
            case "log out" if len(someone.devices) > 1:
                (await device.client.post("logout")).ok()
                self.remove(someone, [device])
            case "delete" if len(someone.devices) > 2:
                some = dice.sample([one for one in someone.devices if one is not device], dice.choice([1, 2]))
                body = {"devices": [one.device_id for one in some], "auth": auth(someone)}
                (await device.client.post("delete_devices", body)).ok()
                self.remove(someone, some)
            case "rename":
                name = {"display_name": f"{self.number()}"}
                (await device.client.put(f"devices/{part(dice.choice(someone.devices).device_id)}", name)).ok()
                self.change(someone)
            case "identity":
                keys = device_keys(device.client, device.key, n=self.number())
                (await device.client.post("keys/upload", {"device_keys": keys})).ok()
                device.keys = keys
                self.change(someone)
            case "identity again" if device.keys is not None:
                # That is no change, and told to nobody.
                (await device.client.post("keys/upload", {"device_keys": device.keys})).ok()
            case "one-time keys":
                algorithm = dice.choice(ALGORITHMS)
                await self.upload(device, algorithm, [f"K{self.number()}" for _ in range(dice.choice([1, 2, 5]))])
            case "the same one-time keys":
                algorithm = dice.choice(ALGORITHMS)
                known = sorted(device.uploaded.get(algorithm, ()))
                await self.upload(device, algorithm, dice.sample(known, min(len(known), 3)))
            case "fallback key":
                await self.fallback(device, dice.choice(ALGORITHMS))
            case "claim":
                await self.claim(device)
            case "cross-signing":
                identity = Identity(someone.user_id)
                body = {**identity.upload(), "auth": auth(someone)}
                (await device.client.post("keys/device_signing/upload", body)).ok()
                someone.identity = identity
                self.change(someone)
            case "sign own device" if someone.identity is not None and device.keys is not None:
                signed = someone.identity.sign(device.keys, "self_signing")
                body = {someone.user_id: {device.device_id: signed}}
                assert (await device.client.post("keys/signatures/upload", body)).ok() == {"failures": {}}
                self.change(someone)
            case "sign another user" if someone.identity and other.identity and other is not someone:
                signed = someone.identity.sign(other.identity.key("master"), "user_signing")
                body = {other.user_id: {other.identity.master.verify_key_base64: signed}}
                assert (await device.client.post("keys/signatures/upload", body)).ok() == {"failures": {}}
                lives.signed[someone.user_id, other.user_id] = lives.step
            case "message" | "crowd" as which:
                target = dice.choice(other.devices)
                for _ in range(1 if which == "message" else 110):
                    await self.send(device, other, [target], target.device_id)
            case "star":
                await self.send(device, other, other.devices, "*")
            case "join" | "leave" as which:
                room_id = dice.choice(lives.rooms)
                if (someone.user_id in lives.members[room_id]) is (which == "leave"):
                    (await device.client.post(f"rooms/{part(room_id)}/{which}", {})).ok()
                    lives.members[room_id] ^= {someone.user_id}
                    lives.moved[someone.user_id] = lives.step
            case "picture":
                rooms = [room_id for room_id, there in lives.members.items() if someone.user_id in there]
                content = {"msgtype": "m.image", "body": "x", "url": await self.picture(device)}
                for room_id in rooms[:1]:
                    path = f"rooms/{part(room_id)}/send/m.room.message/{self.number()}"
                    (await device.client.put(path, content)).ok()
            case "avatar":
                path = f"profile/{part(someone.user_id)}/avatar_url"
                (await device.client.put(path, {"avatar_url": await self.picture(device)})).ok()

    async def picture(self, device: Device) -> str:
        """Uploads one, at times of contents that there are already."""
        known = list(self.lives.media.values())
        content = (
            self.dice.choice(known) if known and self.dice.random() < 0.2 else os.urandom(self.dice.choice([1, 5000]))
        )
        return await self.lives.upload(device.client, content)

    def change(self, someone: Someone) -> None:
        self.lives.changed[someone.user_id] = self.lives.step

    def remove(self, someone: Someone, devices: list[Device]) -> None:
        someone.devices = [one for one in someone.devices if one not in devices]
        someone.gone += [one.device_id for one in devices]
        if someone.first.device_id in someone.gone:
            someone.first = next(one.client for one in someone.devices)
        self.change(someone)

    async def upload(self, device: Device, algorithm: str, names: list[str]) -> None:
        keys = {f"{algorithm}:{name}": {"key": name, "signatures": {}} for name in names}
        uploaded = device.uploaded.setdefault(algorithm, set())
        device.stock.setdefault(algorithm, []).extend(name for name in names if name not in uploaded)
        uploaded.update(names)
        answer = (await device.client.post("keys/upload", {"one_time_keys": keys})).ok()
        assert answer["one_time_key_counts"] == device.counts()

    async def fallback(self, device: Device, algorithm: str) -> None:
        """A new one, or the one that there is: that stays as used as it is."""
        before = device.fallback.get(algorithm)
        name = before[0] if before is not None and self.dice.random() < 0.3 else f"F{self.number()}"
        key = {f"{algorithm}:{name}": {"key": name, "fallback": True, "signatures": {}}}
        (await device.client.post("keys/upload", {"fallback_keys": key})).ok()
        if before is None or name != before[0]:
            device.fallback[algorithm] = (name, False)

    async def claim(self, device: Device) -> None:
        """A key of each of some devices, one of which may have gone."""
        some = self.dice.sample(self.lives.devices(), 2)
        algorithm = self.dice.choice(ALGORITHMS)
        wanted: dict[str, dict[str, str]] = {}
        expected: dict[str, dict[str, Json]] = {}
        for target in some:
            wanted.setdefault(target.user_id, {})[target.device_id] = algorithm
            if (name := target.take(algorithm)) is not None:
                expected.setdefault(target.user_id, {})[target.device_id] = {f"{algorithm}:{name}"}
        gone = self.dice.choice(self.lives.people)
        for name in gone.gone[-1:]:
            wanted.setdefault(gone.user_id, {})[name] = algorithm
        answer = (await device.client.post("keys/claim", {"one_time_keys": wanted})).ok()
        found = {u: {d: set(k) for d, k in of.items()} for u, of in answer["one_time_keys"].items()}
        assert found == expected

    async def send(self, device: Device, other: Someone, targets: list[Device], name: str) -> None:
        number = self.number()
        messages = {other.user_id: {name: {"n": number}, "NONE": {"n": -1}}}
        # At times the sender does not hear of its success, and asks again.
        for _ in range(self.dice.choice([1, 1, 2])):
            (await device.client.put(f"sendToDevice/m.test/{number}", {"messages": messages})).ok()
        for target in targets:
            target.sent.append(number)


def auth(someone: Someone) -> Json:
    identifier = {"type": "m.id.user", "user": someone.user_id}
    return {"type": "m.login.password", "identifier": identifier, "password": someone.first.password}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_each_device_is_told_what_there_is_for_it(api: Api, writers_database: str, seed: int) -> None:
    dice = random.Random(seed)
    keeper = await api.register()
    rooms = [await keeper.create_room(preset="public_chat") for _ in range(2)]
    people = []
    for _ in range(3):
        client = await api.register()
        people.append(Someone(client, [Device(client)]))
    lives = Lives(api, keeper, people, rooms)
    requests = Requests(lives, dice)
    for _ in range(STEPS):
        for _ in range(dice.choice([1, 2, 5])):
            await requests.act()
        for device in lives.devices():
            match dice.choice(["", "", "", "sync", "lost", "settle"]):
                case "sync":
                    await lives.sync(device)
                case "lost" if device.since:
                    # The answer does not arrive, and the same is asked again: nothing was acknowledged.
                    (await device.client.get(f"sync?since={part(device.since)}")).ok()
                    await lives.sync(device)
                case "settle":
                    await lives.settle(device)
    for device in lives.devices():
        await lives.settle(device)
        # The token of what was told last says that it has arrived.
        await lives.sync(device)
    users = [one.user_id for one in people]
    async with await psycopg.AsyncConnection.connect(writers_database, autocommit=True) as connection:

        async def waiting() -> list[Any]:
            """What is kept for devices, also for those that have gone."""
            named = "select user_id, device_id, position from roomserver.to_device where user_id = any(%s)"
            return await (await connection.execute(named, [users])).fetchall()

        await until_empty(waiting)


PLANS = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["upload", "again", "claim", "sync"]), st.integers(0, 2)), min_size=2, max_size=14
    ),
    min_size=1,
    max_size=4,
)
"""Rounds of what is asked at the same time, of one of three devices."""


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=PLANS)
async def test_counts_are_right_whoever_uploads_and_claims_at_once(api: Api, plan: list[list[tuple[str, int]]]) -> None:
    users: list[Any] = api.__dict__.setdefault("_stocked", [])
    if not users:
        users += [await api.register() for _ in range(2)]
    owner, claimer = users
    devices = [await api.login(owner) for _ in range(3)]
    algorithm = ALGORITHMS[0]
    uploaded = [0, 0, 0]
    handed: list[collections.Counter[str]] = [collections.Counter() for _ in devices]

    async def upload(number: int, begin: int, count: int) -> None:
        body = {"one_time_keys": one_time(count, begin)}
        told = (await devices[number].post("keys/upload", body)).ok()["one_time_key_counts"].get(algorithm, 0)
        assert told <= uploaded[number]

    async def claim(number: int) -> None:
        device = devices[number]
        wanted = {"one_time_keys": {owner.user_id: {device.device_id: algorithm}}}
        answer = (await claimer.post("keys/claim", wanted)).ok()["one_time_keys"]
        handed[number].update(list(answer.get(owner.user_id, {}).get(device.device_id, {})))

    async def sync(number: int) -> None:
        body = (await devices[number].get("sync")).ok()
        assert body["device_one_time_keys_count"].get(algorithm, 0) <= uploaded[number]

    for together in plan:
        asked = []
        for what, number in together:
            match what:
                case "upload":
                    asked.append(upload(number, uploaded[number], 3))
                    uploaded[number] += 3
                case "again":
                    # What a client repeats whose answer was lost; some of it may have been claimed meanwhile.
                    asked.append(upload(number, 0, uploaded[number]))
                case "claim":
                    asked.append(claim(number))
                case "sync":
                    asked.append(sync(number))
        await asyncio.gather(*asked)
    for number, device in enumerate(devices):
        assert set(handed[number].values()) <= {1}
        assert handed[number].keys() <= one_time(uploaded[number]).keys()
        left = uploaded[number] - len(handed[number])
        expected = {algorithm: left} if left else {}
        assert (await device.post("keys/upload", {})).ok() == {"one_time_key_counts": expected}

        async def told(device: Any = device, expected: Json = expected) -> bool:
            return bool((await device.get("sync")).ok()["device_one_time_keys_count"] == expected)

        await eventually(told, 60)
        (await device.post("logout")).ok()
