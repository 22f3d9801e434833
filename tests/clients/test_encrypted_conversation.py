"""Clients that encrypt talk on a Walden that runs as separate processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from js_person import JsPerson, opened
from nio import MegolmEvent, RoomMessageText
from nio_person import NioPerson, good
from whole_server import SERVER_NAME, WholeServer

pytestmark = [pytest.mark.clients, pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(420)]

PASSWORD = "a fine password"
ENCRYPTED = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    with WholeServer(tmp_path_factory.mktemp("whole") / "d", WALDEN_CLIENT_PROCESSES="2") as one:
        yield one


def texts(person: NioPerson, room_id: str) -> list[str]:
    """What a person could decrypt."""
    return [e.body for e in person.events.get(room_id, []) if isinstance(e, RoomMessageText) and e.decrypted]


def sealed(person: NioPerson, room_id: str) -> list[MegolmEvent]:
    """What a person could not decrypt."""
    return [e for e in person.events.get(room_id, []) if isinstance(e, MegolmEvent)]


async def test_two_nio_clients_hold_an_encrypted_conversation(server: WholeServer, tmp_path: Path) -> None:
    async with (
        NioPerson(server.url, "ada", tmp_path / "ada") as ada,
        NioPerson(server.url, "ben", tmp_path / "ben") as ben,
    ):
        for person in (ada, ben):
            good(await person.client.register(person.client.user, PASSWORD))
        ben_id = f"@ben:{SERVER_NAME}"
        room_id = good(await ada.client.room_create(invite=[ben_id], initial_state=[ENCRYPTED])).room_id
        ada.listen()
        ben.listen()
        await ben.until(lambda: room_id in ben.invites)
        good(await ben.client.join(room_id))
        await ada.until(lambda: room_id in ada.client.rooms and ben_id in ada.client.rooms[room_id].users)
        await ada.until(lambda: bool(ada.client.device_store.active_user_devices(ben_id)))
        for number in range(3):
            await ada.say(room_id, f"from ada {number}")
            await ben.until(lambda number=number: f"from ada {number}" in texts(ben, room_id))
            await ben.say(room_id, f"from ben {number}")
            await ada.until(lambda number=number: f"from ben {number}" in texts(ada, room_id))
        assert not sealed(ada, room_id) and not sealed(ben, room_id)
        assert ada.refusals == ben.refusals == []


async def test_matrix_js_sdk_and_nio_encrypt_and_a_second_device_is_verified_and_restores_the_backup(
    server: WholeServer, tmp_path: Path
) -> None:
    async with (
        JsPerson(tmp_path / "jay.log") as jay,
        JsPerson(tmp_path / "second.log") as second,
        NioPerson(server.url, "nia", tmp_path / "nia") as nia,
    ):
        login = {"baseUrl": server.url, "username": "jay", "password": PASSWORD, "encrypts": True}
        jay_id = await jay.do("register", **login)
        key = await jay.do("bootstrap")
        good(await nia.client.register("nia", PASSWORD))
        nia_id = f"@nia:{SERVER_NAME}"
        options = {"invite": [nia_id], "preset": "private_chat", "initial_state": [ENCRYPTED]}
        room_id = await jay.do("createRoom", options=options)
        nia.listen()
        await nia.until(lambda: room_id in nia.invites)
        good(await nia.client.join(room_id))
        await jay.until(room_id, lambda seen: seen["members"].get(nia_id, {}).get("membership") == "join")
        await nia.until(lambda: bool(nia.client.device_store.active_user_devices(jay_id)))
        for number in range(3):
            await jay.do("send", roomId=room_id, text=f"from jay {number}")
            await nia.until(lambda number=number: f"from jay {number}" in texts(nia, room_id))
            await nia.say(room_id, f"from nia {number}")
            await jay.until(room_id, lambda seen, number=number: f"from nia {number}" in opened(seen))
        said = {f"from {name} {number}" for name in ("jay", "nia") for number in range(3)}
        # Both outbound sessions are in the backup; then a device that was not there reads what was said before it came.
        await jay.until_told("backedUp", lambda count: count >= 2)
        assert await second.do("login", **login) == jay_id
        assert await second.do("restore", key=key) >= 2
        await second.until(room_id, lambda seen: said <= opened(seen))
        device_id = await second.do("whoAmI")
        await jay.until_told("trust", lambda trust: trust["verified"], userId=jay_id, deviceId=device_id)
        await second.until_told(
            "trust", lambda trust: trust["verified"], userId=jay_id, deviceId=await jay.do("whoAmI")
        )
        # And what is said from now on is for all three.
        await nia.until(lambda: len(list(nia.client.device_store.active_user_devices(jay_id))) == 2)
        await nia.say(room_id, "for all")
        await jay.until(room_id, lambda seen: "for all" in opened(seen))
        await second.until(room_id, lambda seen: "for all" in opened(seen))
        await second.do("send", roomId=room_id, text="from the second")
        await nia.until(lambda: "from the second" in texts(nia, room_id))
        assert not sealed(nia, room_id)
        assert nia.refusals == []
