"""People verify each other, and their own devices, with matrix-js-sdk's Rust crypto and with matrix-nio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from js_person import JsPerson, opened
from nio_person import NioPerson, good
from whole_server import SERVER_NAME, WholeServer

pytestmark = [pytest.mark.clients, pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(420)]

PASSWORD = "a fine password"
ENCRYPTED = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    with WholeServer(tmp_path_factory.mktemp("whole") / "d", WALDEN_CLIENT_PROCESSES="2") as one:
        yield one


async def test_who_verifies_one_device_of_somebody_trusts_all_that_they_have_signed_on_every_device(
    server: WholeServer, tmp_path: Path
) -> None:
    names = ("jay", "jay's second", "ruth", "ruth's second")
    async with (
        JsPerson(tmp_path / f"{names[0]}.log") as jay,
        JsPerson(tmp_path / f"{names[1]}.log") as jay_too,
        JsPerson(tmp_path / f"{names[2]}.log") as ruth,
        JsPerson(tmp_path / f"{names[3]}.log") as ruth_too,
    ):
        people = {"jay": (jay, jay_too), "ruth": (ruth, ruth_too)}
        for name, (first, second) in people.items():
            login = {"baseUrl": server.url, "username": name, "password": PASSWORD, "encrypts": True}
            await first.do("register", **login)
            await first.do("bootstrap")
            # To the user's own devices over to-device messages; the private keys follow the same way.
            user_id = await second.do("login", **login)
            # A device that is not known yet asks in vain.
            device_id = await second.do("whoAmI")
            await first.until_told("trust", lambda told: told["known"], userId=user_id, deviceId=device_id)
            await verify(second, first)
            await second.until_told("privateKeys", lambda keys: all(keys.values()))

        jay_id, ruth_id = f"@jay:{SERVER_NAME}", f"@ruth:{SERVER_NAME}"
        options = {"invite": [jay_id], "preset": "private_chat", "initial_state": [ENCRYPTED]}
        room_id = await ruth.do("createRoom", options=options)
        await jay.until(room_id, lambda seen: seen["membership"] == "invite")
        await jay.do("join", roomId=room_id)
        # All four know all four, for they encrypt for them.
        everyone = dict(zip(names, (jay, jay_too, ruth, ruth_too), strict=True))
        for one in everyone.values():
            await one.until(room_id, lambda seen: seen["members"].get(jay_id, {}).get("membership") == "join")
        for name, one in everyone.items():
            await one.do("send", roomId=room_id, text=f"from {name}")
        for one in everyone.values():
            await one.until(room_id, lambda seen: {f"from {name}" for name in names} <= opened(seen))
        assert not await ruth.do("userTrust", userId=jay_id)
        assert not await jay.do("userTrust", userId=ruth_id)

        # One device of each, in the room that they share.
        await verify(ruth, jay, userId=jay_id, roomId=room_id)
        for one in people["ruth"]:
            await one.until_told("userTrust", bool, userId=jay_id)
            for device in people["jay"]:
                device_id = await device.do("whoAmI")
                await one.until_told("trust", lambda told: told["verified"], userId=jay_id, deviceId=device_id)
        for one in people["jay"]:
            await one.until_told("userTrust", bool, userId=ruth_id)
        # What nobody has signed is not trusted.
        login["username"] = "jay"
        async with JsPerson(tmp_path / "third.log") as third:
            await third.do("login", **login)
            device_id = await third.do("whoAmI")
            told = await ruth.until_told("trust", lambda told: told["known"], userId=jay_id, deviceId=device_id)
            assert told == {"known": True, "signed": False, "verified": False}


async def test_two_nio_devices_verify_each_other(server: WholeServer, tmp_path: Path) -> None:
    async with (
        NioPerson(server.url, "ada", tmp_path / "ada") as ada,
        NioPerson(server.url, "ben", tmp_path / "ben") as ben,
    ):
        for person in (ada, ben):
            good(await person.client.register(person.client.user, PASSWORD))
            person.listen()
        options = {"invite": [ben.client.user_id], "initial_state": [ENCRYPTED]}
        room_id = good(await ada.client.room_create(**options)).room_id
        await ben.until(lambda: room_id in ben.invites)
        good(await ben.client.join(room_id))
        await ada.until(lambda: bool(list(ada.client.device_store.active_user_devices(ben.client.user_id))))
        await ben.until(lambda: bool(list(ben.client.device_store.active_user_devices(ada.client.user_id))))

        [bens] = ada.client.device_store.active_user_devices(ben.client.user_id)
        [adas] = ben.client.device_store.active_user_devices(ada.client.user_id)
        good(await ada.client.start_key_verification(bens))
        await ben.until(lambda: bool(ben.client.key_verifications))
        [transaction_id] = ben.client.key_verifications
        good(await ben.client.accept_key_verification(transaction_id))
        sides = [(person, person.client.key_verifications[transaction_id]) for person in (ada, ben)]
        for person, sas in sides:
            await person.until(lambda sas=sas: sas.established_sas is not None)
        assert sides[0][1].get_emoji() == sides[1][1].get_emoji()
        for person, _ in sides:
            good(await person.client.confirm_short_auth_string(transaction_id))
        for person, sas in sides:
            await person.until(lambda sas=sas: sas.verified)
        assert bens.verified
        assert adas.verified

        # Now it sends without being told to overlook that nobody was verified.
        said = {"msgtype": "m.text", "body": "for you alone"}
        event_id = good(await ada.client.room_send(room_id, "m.room.message", said)).event_id
        await ben.until(lambda: any(event.event_id == event_id for event in ben.events.get(room_id, [])))
        [event] = [event for event in ben.events[room_id] if event.event_id == event_id]
        assert (event.decrypted, event.verified) == (True, True)


async def verify(asks: JsPerson, answers: JsPerson, **whom: str) -> None:
    """Ask, accept, compare seven emoji, and agree."""
    await asks.do("ask", **whom)
    await answers.do("accept")
    shown = await asyncio.gather(asks.do("compare", starts=True), answers.do("compare", starts=False))
    assert shown[0] == shown[1]
    assert len(shown[0]) == 7
    await asyncio.gather(asks.do("confirm"), answers.do("confirm"))
