"""matrix-commander, the client of the command line, and somebody who answers it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from commander_environment import commander
from debian import missing
from nio import MegolmEvent, RoomEncryptedImage, RoomMessageText
from nio.crypto.attachments import decrypt_attachment
from nio_person import NioPerson, good
from people import Person
from PIL import Image
from whole_server import SERVER_NAME, WholeServer

pytestmark = [pytest.mark.clients, pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(420)]

PASSWORD = "a fine password"
SECONDS = 90


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    # It guesses a file's kind with libmagic, which comes with this program, and cannot be imported without.
    if absent := missing("/usr/bin/file", "file"):
        pytest.skip(absent)
    # It puts a server's name behind a room id that has none, as those of version 12 are.
    with WholeServer(tmp_path_factory.mktemp("whole") / "d", WALDEN_SERVER_DEFAULT_ROOM_VERSION="11") as one:
        yield one


class Commander:
    """One login, kept in a folder; every call is a process."""

    def __init__(self, folder: Path) -> None:
        self.program = commander()
        self.folder = folder

    async def do(self, *arguments: str) -> str:
        """What it prints, when it succeeds and complains of nothing."""
        process = await asyncio.create_subprocess_exec(
            *(str(self.program), "--credentials", "credentials.json", "--store", "store", "--log-level", "WARNING"),
            *arguments,
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LC_ALL": "C.UTF-8"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            said, complained = await asyncio.wait_for(process.communicate(), SECONDS)
        except TimeoutError:
            process.kill()
            raise
        assert process.returncode == 0, (arguments, said.decode(), complained.decode())
        return said.decode()


async def test_a_room_is_made_talked_in_and_left_from_the_command_line(server: WholeServer, tmp_path: Path) -> None:
    carl = Commander(tmp_path)
    async with Person(server.url, "carl") as account, Person(server.url, "dora") as dora:
        await account.register(PASSWORD)
        await dora.register(PASSWORD)
        dora.listen()

        alias = f"#pond:{SERVER_NAME}"
        login = ["--homeserver", server.url, "--user-login", account.user_id, "--password", PASSWORD]
        await carl.do("--login", "password", *login, "--device", "a shell", "--room-default", alias)
        made = await carl.do("--room-create", "pond", "--name", "Pond", "--topic", "still water", "--plain")
        room_id = made.split()[0]
        assert room_id.startswith("!")
        await carl.do("--room-invite", room_id, "--user", dora.user_id)
        await dora.join(room_id)

        sent = await carl.do("--room", room_id, "--message", "first", "ünïcödé 🐘", "--print-event-id")
        event_ids = [line.split()[0] for line in sent.splitlines() if line.startswith("$")]
        assert len(event_ids) == 2
        await dora.until_seen(room_id, event_ids[-1])
        seen = {event["event_id"]: event for event in dora.timelines[room_id]}
        assert [seen[event_id]["content"]["body"] for event_id in event_ids] == ["first", "ünïcödé 🐘"]

        await dora.send(room_id, "an answer")
        tail = await carl.do("--room", room_id, "--tail", "3", "--listen-self", "--output", "json")
        bodies = [json.loads(line)["source"]["content"].get("body") for line in tail.splitlines() if line]
        # It shows the newest first.
        assert bodies == ["an answer", "ünïcödé 🐘", "first"]

        members = await carl.do("--joined-members", room_id)
        assert {account.user_id, dora.user_id} <= set(members.split())
        state = await carl.do("--room-get-state", room_id, "--output", "json")
        assert {event["type"] for event in json.loads(state)["events"]} >= {
            "m.room.create",
            "m.room.name",
            "m.room.topic",
        }
        await carl.do("--room-redact", room_id, event_ids[0], "regret")
        await carl.do("--room-leave", room_id)
        await dora.until(room_id, lambda events: any(e["type"] == "m.room.redaction" for e in events))
        await dora.until(room_id, lambda events: events[-1]["content"].get("membership") == "leave")
        await carl.do("--logout", "me")


async def test_the_command_line_and_matrix_nio_encrypt_messages_and_images(server: WholeServer, tmp_path: Path) -> None:
    folder = tmp_path / "emil"
    folder.mkdir()
    emil = Commander(folder)
    async with Person(server.url, "emil") as account, NioPerson(server.url, "nia", tmp_path / "nia") as nia:
        await account.register(PASSWORD)
        good(await nia.client.register("nia", PASSWORD))
        nia.listen()
        sealed = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
        room_id = good(await nia.client.room_create(invite=[account.user_id], initial_state=[sealed])).room_id
        login = ["--homeserver", server.url, "--user-login", account.user_id, "--password", PASSWORD]
        await emil.do("--login", "password", *login, "--device", "a shell", "--room-default", room_id)
        await emil.do("--room-join", room_id)

        # It puts its keys on the server and fetches those of others before it sends.
        image = png((120, 80))
        (folder / "a cat.png").write_bytes(image)
        await emil.do("--message", "from emil", "--image", "a cat.png")
        await nia.until(lambda: any(isinstance(event, RoomEncryptedImage) for event in nia.events.get(room_id, [])))
        texts = [event for event in nia.events[room_id] if isinstance(event, RoomMessageText)]
        assert [(event.body, event.decrypted) for event in texts] == [("from emil", True)]
        [event] = [event for event in nia.events[room_id] if isinstance(event, RoomEncryptedImage)]
        answer = good(await nia.client.download(event.url))
        assert decrypt_attachment(answer.body, event.key["k"], event.hashes["sha256"], event.iv) == image

        await nia.until(lambda: bool(list(nia.client.device_store.active_user_devices(account.user_id))))
        await nia.say(room_id, "from nia")
        image = png((60, 90))
        uploaded, keys = await nia.client.upload(
            lambda *_: io.BytesIO(image), "image/png", "a dog.png", encrypt=True, filesize=len(image)
        )
        file = {"url": good(uploaded).content_uri, "mimetype": "image/png", **keys}
        await nia.send(room_id, {"msgtype": "m.image", "body": "a dog.png", "file": file})
        heard = await emil.do("--listen", "once", "--download-media", "media", "--output", "json")
        print(heard)
        bodies = [json.loads(line)["source"]["content"].get("body") for line in heard.splitlines() if line]
        assert [body for body in bodies if body] == ["from nia", "a dog.png"]
        [saved] = (folder / "media").iterdir()
        assert saved.read_bytes() == image
        assert not any(isinstance(event, MegolmEvent) for event in nia.events[room_id])
        assert nia.refusals == []


def png(size: tuple[int, int]) -> bytes:
    data = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(data, "PNG")
    return data.getvalue()
