"""A restore under people who encrypt: no key is handed out again, everybody looks at everybody's devices anew, and talk goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nio import MegolmEvent, RoomMessageText
from nio_person import NioPerson, good
from people import Json, Person
from restores import ArchivedCluster
from whole_server import SERVER_NAME, WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(900)]

PASSWORD = "a fine password"
ALGORITHM = "signed_curve25519"
ENCRYPTED = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


def texts(person: NioPerson, room_id: str) -> list[str]:
    """What a person could decrypt."""
    return [e.body for e in person.events.get(room_id, []) if isinstance(e, RoomMessageText) and e.decrypted]


async def claim(person: Person, user_id: str, device_id: str) -> set[str]:
    """Claims one key; its id."""
    wanted = {"one_time_keys": {user_id: {device_id: ALGORITHM}}}
    answer = await person.insist("POST", "keys/claim", wanted)
    return set(answer["one_time_keys"].get(user_id, {}).get(device_id, {}))


async def converse(ada: NioPerson, ben: NioPerson, room_id: str, about: str) -> None:
    """Each says something that the other reads."""
    await ada.say(room_id, f"ada, {about}")
    await ben.until(lambda: f"ada, {about}" in texts(ben, room_id), 90)
    await ben.say(room_id, f"ben, {about}")
    await ada.until(lambda: f"ben, {about}" in texts(ada, room_id), 90)


async def test_after_a_restore_no_key_is_handed_out_again_and_an_encrypted_conversation_goes_on(tmp_path: Path) -> None:
    with ArchivedCluster(18) as cluster:
        cluster.execute("create database walden")
        server = WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=cluster.dsn("walden"))
        try:
            await asyncio.to_thread(server.start)
            async with (
                NioPerson(server.url, "ada", tmp_path / "ada") as ada,
                NioPerson(server.url, "ben", tmp_path / "ben") as ben,
                NioPerson(server.url, "ben", tmp_path / "second") as second,
                Person(server.url) as cal,
            ):
                await _live(server, cluster, ada, ben, second, cal)
        finally:
            server.__exit__(None, None, None)


async def _live(
    server: WholeServer, cluster: ArchivedCluster, ada: NioPerson, ben: NioPerson, second: NioPerson, cal: Person
) -> None:
    for person in (ada, ben):
        good(await person.client.register(person.client.user, PASSWORD))
    await cal.register()
    ben_id, device_id = f"@ben:{SERVER_NAME}", str(ben.client.device_id)
    options = {"invite": [ben_id, cal.user_id], "initial_state": [ENCRYPTED]}
    room_id = good(await ada.client.room_create(**options)).room_id
    ada.listen()
    ben.listen()
    await ben.until(lambda: room_id in ben.invites)
    good(await ben.client.join(room_id))
    await cal.join(room_id)
    await ada.until(lambda: ben_id in ada.client.rooms[room_id].users)
    await ada.until(lambda: bool(ada.client.device_store.active_user_devices(ben_id)))
    await converse(ada, ben, room_id, "before")
    assert await claim(cal, ben_id, device_id)
    await cal.sync()

    await asyncio.to_thread(server.stop)
    cluster.kill()
    snapshot = cluster.root / "snapshot"
    cluster.copy(cluster.data, snapshot)
    cluster.start()
    await asyncio.to_thread(server.start)
    # The time that will be lost: keys are handed out, things are said.
    await converse(ada, ben, room_id, "lost")
    known = {
        f"{ALGORITHM}:{row['key_id']}"
        for row in server.rows("select key_id from writer.one_time_keys where device_id = %(device)s", device=device_id)
    }
    lost = [await claim(cal, ben_id, device_id) for _ in range(3)]
    assert all(lost)
    since = (await cal.sync())["next_batch"]
    await asyncio.to_thread(server.stop)
    cluster.stop()
    cluster.replace_data(snapshot)
    cluster.start()
    done = await asyncio.to_thread(server.walden, "recover")
    assert done.returncode == 0, done.stdout + done.stderr
    await asyncio.to_thread(server.start)

    # Nothing is left that could be handed out, which ben's client is told.
    assert await claim(cal, ben_id, device_id) == set()
    counts = len(ben.key_counts)
    await ben.until(lambda: len(ben.key_counts) > counts and not ben.key_counts[-1], 90)
    # nio takes none for not said, so it is told here; what it then uploads is handed out, and nothing that was there before.
    assert ben.client.olm is not None
    ben.client.olm.uploaded_key_count = 0
    good(await ben.client.keys_upload())
    handed: set[str] = set()
    for _ in range(5):
        handed |= await claim(cal, ben_id, device_id)
    assert len(handed) == 5 and not handed & known
    # Who comes with a token of the lost time is told to look at all devices again, and of messages to the device since.
    messages = {"messages": {cal.user_id: {"*": {"n": 1}}}}
    await cal.insist("PUT", "sendToDevice/m.test/1", messages)
    cal.since = since
    changed: set[str] = set()
    told: list[Json] = []
    async with asyncio.timeout(90):
        # The message may come a response later than the rest.
        while not told or not {f"@ada:{SERVER_NAME}", ben_id} <= changed:
            answer = await cal.sync(10)
            changed |= set(answer.get("device_lists", {}).get("changed", ()))
            told += [event["content"] for event in answer.get("to_device", {}).get("events", ())]
    assert told == [{"n": 1}]
    assert "to_device" not in await cal.sync()
    # The conversation goes on, with a device that nobody has a session with.
    await converse(ada, ben, room_id, "after")
    good(await second.client.login(PASSWORD))
    second.listen()
    await ada.until(lambda: len(list(ada.client.device_store.active_user_devices(ben_id))) == 2, 90)
    await second.until(lambda: room_id in second.client.rooms, 90)
    await second.until(lambda: bool(second.client.device_store.active_user_devices(f"@ada:{SERVER_NAME}")), 90)
    await ada.say(room_id, "for all")
    await second.until(lambda: "for all" in texts(second, room_id), 90)
    await second.say(room_id, "from the second")
    await ada.until(lambda: "from the second" in texts(ada, room_id), 90)
    assert not [e for e in ada.events[room_id] + ben.events[room_id] if isinstance(e, MegolmEvent)]
