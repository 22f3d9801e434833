"""matrix-nio and matrix-js-sdk send each other encrypted images and thumbnails, and see each other's avatars."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from js_person import JsPerson
from nio import RoomEncryptedImage, RoomMessageImage
from nio.crypto.attachments import decrypt_attachment
from nio_person import NioPerson, good
from PIL import Image
from whole_server import SERVER_NAME, WholeServer

pytestmark = [pytest.mark.clients, pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(420)]

PASSWORD = "a fine password"
SEALED = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    # Two API processes: what one takes, the other gives.
    with WholeServer(tmp_path_factory.mktemp("whole") / "d", WALDEN_CLIENT_PROCESSES="2") as one:
        yield one


def picture(side: int) -> bytes:
    data = io.BytesIO()
    Image.effect_noise((side, side), 60).convert("RGB").save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize("sealed", [False, True], ids=["plain room", "encrypted room"])
async def test_two_clients_send_each_other_encrypted_images(server: WholeServer, tmp_path: Path, sealed: bool) -> None:
    store = tmp_path / "nia" if sealed else None
    names = ("jay", "nia") if sealed else ("joe", "nan")
    async with JsPerson(tmp_path / "js.log") as jay, NioPerson(server.url, names[1], store) as nia:
        jay_id = await jay.do("register", baseUrl=server.url, username=names[0], password=PASSWORD, encrypts=sealed)
        good(await nia.client.register(names[1], PASSWORD))
        nia.listen()
        options = {
            "preset": "private_chat",
            "invite": [nia.client.user_id],
            "initial_state": [SEALED] if sealed else [],
        }
        room_id: str = await jay.do("createRoom", options=options)
        await nia.until(lambda: room_id in nia.invites)
        good(await nia.client.join(room_id))
        await nia.until(lambda: room_id in nia.client.rooms and jay_id in nia.client.rooms[room_id].users)
        if sealed:
            await nia.until(lambda: bool(list(nia.client.device_store.active_user_devices(jay_id))))
        assert (await jay.do("mediaConfig"))["m.upload.size"] == server.settings.media.max_upload_bytes

        # From nia to jay. Only in an encrypted event is there no URL beside the file.
        image = picture(300)
        uploaded, keys = await nia.client.upload(
            lambda *_: io.BytesIO(image), "image/png", "a cat.png", encrypt=True, filesize=len(image)
        )
        uri = good(uploaded).content_uri
        content = {"msgtype": "m.image", "body": "a cat.png", "file": {"url": uri, "mimetype": "image/png", **keys}}
        event_id = await nia.send(room_id, content if sealed else {**content, "url": uri})
        seen = await jay.until(
            room_id, lambda room: any(e["event_id"] == event_id and "file" in e["content"] for e in room["timeline"])
        )
        assert sealed == any(e["type"] == "m.room.encryption" for e in seen["timeline"])
        assert base64.b64decode(await jay.do("fetchImage", roomId=room_id, eventId=event_id)) == image
        # On the server it is no image.
        kept = await jay.do("fetchMedia", uri=uri)
        assert (kept["status"], kept["type"]) == (200, "application/octet-stream")
        assert base64.b64decode(kept["body"]) != image
        refused = await jay.do("fetchMedia", uri=uri, width=32, height=32, method="crop")
        assert refused["status"] == 400

        # From jay to nia, with a thumbnail that the server makes smaller still.
        image, thumbnail = picture(500), picture(200)
        sending = {"roomId": room_id, "name": "a dog.png", "image": _text(image), "thumbnail": _text(thumbnail)}
        event_id = await jay.do("sendImage", **sending, plain=not sealed)
        await nia.until(lambda: any(event.event_id == event_id for event in nia.events.get(room_id, [])))
        event = next(event for event in nia.events[room_id] if event.event_id == event_id)
        assert isinstance(event, RoomEncryptedImage if sealed else RoomMessageImage)
        sent: dict[str, Any] = event.source["content"]
        file = sent["file"]
        answer = good(await nia.client.download(file["url"]))
        assert decrypt_attachment(answer.body, file["key"]["k"], file["hashes"]["sha256"], file["iv"]) == image
        server_name, media_id = sent["info"]["thumbnail_url"].removeprefix("mxc://").split("/")
        small = good(await nia.client.thumbnail(server_name, media_id, 96, 96))
        assert Image.open(io.BytesIO(small.body)).size == (96, 96)
        assert server_name == SERVER_NAME

        # A picture of oneself.
        await jay.do("avatar", uri=sent["info"]["thumbnail_url"])
        avatar = good(await nia.client.get_avatar(jay_id))
        assert avatar.avatar_url == sent["info"]["thumbnail_url"]
        shown = await jay.do("fetchMedia", uri=avatar.avatar_url, width=32, height=32, method="crop")
        assert (shown["status"], Image.open(io.BytesIO(base64.b64decode(shown["body"]))).size) == (200, (32, 32))
        assert nia.refusals == []


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
