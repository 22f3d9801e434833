"""Clients that encrypt talk on a Walden that runs as separate processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
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
        await ada.until(lambda: ben_id in ada.client.rooms[room_id].users)
        await ada.until(lambda: bool(ada.client.device_store.active_user_devices(ben_id)))
        for number in range(3):
            await ada.say(room_id, f"from ada {number}")
            await ben.until(lambda number=number: f"from ada {number}" in texts(ben, room_id))
            await ben.say(room_id, f"from ben {number}")
            await ada.until(lambda number=number: f"from ben {number}" in texts(ada, room_id))
        assert not sealed(ada, room_id) and not sealed(ben, room_id)
        assert ada.refusals == ben.refusals == []
