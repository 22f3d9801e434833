"""matrix-js-sdk in headless Chromium, behind a page of its own and of another origin, and matrix-nio."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from debian import missing
from js_person import BrowserPerson
from nio import MegolmEvent, RoomEncryptedImage, RoomMessageImage, RoomMessageText
from nio.crypto.attachments import decrypt_attachment
from nio_person import NioPerson, good
from people import Person
from PIL import Image
from whole_server import WholeServer

pytestmark = [pytest.mark.clients, pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(420)]

CHROMIUM = "/usr/bin/chromium"
PASSWORD = "a fine password"
ABSENT = {
    "404 GET /_matrix/client/v3/room_keys/version",
    "404 GET /_matrix/client/v3/voip/turnServer",
    "404 GET /_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
}
"""What the library asks for by itself: the account has no key backup, the server no calls."""
Colour = tuple[int, int, int]
ORANGE, TEAL, PURPLE = (255, 136, 0), (0, 136, 136), (136, 0, 200)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    # It is a download of 100 MB where it is not there yet.
    if absent := missing(CHROMIUM, "chromium"):
        pytest.skip(absent)
    with WholeServer(tmp_path_factory.mktemp("whole") / "d", WALDEN_CLIENT_PROCESSES="2") as one:
        yield one


def picture(size: tuple[int, int], left: Colour, right: Colour) -> bytes:
    """Two halves, of a colour each."""
    width, height = size
    image = Image.new("RGB", size, left)
    image.paste(right, (width // 2, 0, width, height))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def pixels(image: Image.Image, colour: Colour) -> int:
    """How many are of a colour, as nearly as a JPEG keeps it."""
    counts = image.convert("RGB").getcolors(image.width * image.height) or []
    near = (count for count, found in counts if all(abs(a - b) <= 12 for a, b in zip(found, colour, strict=True)))  # type: ignore[arg-type]
    return sum(near)


def sizes(seen: Any) -> list[Any]:
    return [size for item in seen["items"] for size in item["images"]]


def opened(seen: Any) -> list[str]:
    """The texts on the page that came encrypted and could be read."""
    return [item["text"] for item in seen["items"] if item["state"] == "opened"]


async def test_a_browser_logs_in_makes_a_room_and_shows_encrypted_messages_and_images(
    server: WholeServer, tmp_path: Path
) -> None:
    async with (
        Person(server.url, "web") as account,
        BrowserPerson(tmp_path / "browser.log") as web,
        NioPerson(server.url, "nia", tmp_path / "nia") as nia,
    ):
        await account.register(PASSWORD)
        web_id = account.user_id
        good(await nia.client.register("nia", PASSWORD))
        nia.listen()

        await web.do("open", executable=CHROMIUM)
        await web.do("login", baseUrl=server.url, username="web", password=PASSWORD)
        image = picture((640, 480), ORANGE, TEAL)
        (tmp_path / "halves.png").write_bytes(image)

        # What is not encrypted, the server makes thumbnails of, in its sizes.
        puddle = await meet(web, web_id, nia, "Puddle", encrypted=False)
        await web.do("sendImage", path=str(tmp_path / "halves.png"))
        await nia.until(lambda: any(isinstance(event, RoomMessageImage) for event in nia.events.get(puddle, [])))
        event = next(event for event in nia.events[puddle] if isinstance(event, RoomMessageImage))
        assert good(await nia.client.download(event.url)).body == image
        await web.until(puddle, lambda seen: sizes(seen) == [[320, 240]])
        await look_at(web, tmp_path / "puddle.png", others=0)

        # A message each way, and an image each way.
        pond = await meet(web, web_id, nia, "Pond", encrypted=True)
        await nia.until(lambda: bool(list(nia.client.device_store.active_user_devices(web_id))))
        await web.do("say", text="from the browser")
        await nia.until(lambda: "from the browser" in texts(nia, pond))
        await nia.say(pond, "from nia")
        await web.until(pond, lambda seen: opened(seen) == ["from the browser", "from nia"])
        await web.do("sendImage", path=str(tmp_path / "halves.png"))
        await nia.until(lambda: any(isinstance(event, RoomEncryptedImage) for event in nia.events.get(pond, [])))
        event = next(event for event in nia.events[pond] if isinstance(event, RoomEncryptedImage))
        assert event.decrypted
        answer = good(await nia.client.download(event.url))
        assert decrypt_attachment(answer.body, event.key["k"], event.hashes["sha256"], event.iv) == image
        await web.until(pond, lambda seen: seen["items"][-1]["images"] == [[160, 120]])
        await send_image(nia, pond, picture((200, 100), PURPLE, PURPLE))
        await web.until(pond, lambda seen: seen["items"][-1]["images"] == [[200, 100]])
        await look_at(web, tmp_path / "pond.png", others=200 * 100)

        # Who reloads the page finds the keys in the browser.
        before = ["from the browser", "from nia", "halves.png", "purple.png"]
        await web.do("reload")
        await web.until(pond, lambda seen: opened(seen) == before)
        await nia.say(pond, "welcome back")
        await web.do("say", text="here again")
        await nia.until(lambda: "here again" in texts(nia, pond))
        seen = await web.until(pond, lambda seen: {"welcome back", "here again"} <= set(opened(seen)))
        await web.until(pond, lambda seen: sizes(seen) == [[160, 120], [200, 100]])

        assert seen["complaints"] == ""
        assert set(seen["refusals"]) <= ABSENT
        assert not any(isinstance(event, MegolmEvent) for event in nia.events[pond])
        assert nia.refusals == []


async def meet(web: BrowserPerson, web_id: str, nia: NioPerson, name: str, encrypted: bool) -> str:
    """A room that the browser made, with both in it; its id."""
    room_id: str = await web.do("createRoom", name=name, invite=nia.client.user_id, encrypted=encrypted)
    await nia.until(lambda: room_id in nia.invites)
    good(await nia.client.join(room_id))
    # The page shows the room of before until the new one has come.
    both = sorted([nia.client.user_id, web_id])
    await web.until(room_id, lambda seen: (seen["name"], seen["members"]) == (name, both))
    await nia.until(lambda: room_id in nia.client.rooms and web_id in nia.client.rooms[room_id].users)
    return room_id


def texts(person: NioPerson, room_id: str) -> list[str]:
    """What a person could decrypt."""
    return [e.body for e in person.events.get(room_id, []) if isinstance(e, RoomMessageText) and e.decrypted]


async def send_image(nia: NioPerson, room_id: str, image: bytes) -> None:
    uploaded, keys = await nia.client.upload(
        lambda *_: io.BytesIO(image), "image/png", "purple.png", encrypt=True, filesize=len(image)
    )
    file = {"url": good(uploaded).content_uri, "mimetype": "image/png", **keys}
    await nia.send(room_id, {"msgtype": "m.image", "body": "purple.png", "file": file})


async def look_at(web: BrowserPerson, path: Path, others: int) -> None:
    """The thumbnail is there in full and not one pixel more, so much of the other image, and text on white round them."""
    await web.do("screenshot", path=str(path))
    shown = Image.open(path)
    half = 160 * 120 // 2
    # Where one half ends they are mixed.
    assert 0.95 * half <= pixels(shown, ORANGE) <= half
    assert 0.95 * half <= pixels(shown, TEAL) <= half
    assert pixels(shown, PURPLE) == others
    assert pixels(shown, (255, 255, 255)) > shown.width * shown.height // 2
    assert pixels(shown, (34, 34, 34)) > 500
