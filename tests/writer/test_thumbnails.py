"""Thumbnails: of the size and kind that was asked for, and none of what is no image or harmful."""

from __future__ import annotations

import asyncio
import io
import os
import struct
import zlib
from typing import Any

import httpx
import pytest
from api_server import SERVER_NAME, Api, Client
from PIL import Image, ImageSequence
from test_media import OLD, V1, ask, upload

from readers.media import thumbnails


def image(width: int, height: int, kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """An image with something in it."""
    data = io.BytesIO()
    Image.effect_noise((width, height), 50).convert(mode).save(data, kind, **options)
    return data.getvalue()


def moving(kind: str = "GIF", frames: int = 5, side: int = 200) -> bytes:
    """An image that moves."""
    pictures = [Image.new("RGB", (side, side), (50 * n % 256, 10, 20)) for n in range(frames)]
    data = io.BytesIO()
    pictures[0].save(data, kind, save_all=True, append_images=pictures[1:], duration=40, loop=0)
    return data.getvalue()


async def thumbnail(client: Client, media_id: str, base: str = V1, **query: Any) -> httpx.Response:
    words = "&".join(f"{name}={value}" for name, value in query.items())
    return await ask(client, "GET", f"{base}/thumbnail/{SERVER_NAME}/{media_id}?{words}")


def opened(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    found = Image.open(io.BytesIO(answer.content))
    found.load()
    assert answer.headers["content-type"] == f"image/{(found.format or '').lower()}"
    assert answer.headers["content-disposition"].startswith("inline; filename=")
    assert "sandbox" in answer.headers["content-security-policy"]
    return found


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"width": 32, "height": 32, "method": "crop"}, (32, 32)),
        ({"width": 30, "height": 30, "method": "crop"}, (32, 32)),
        ({"width": 200, "height": 100, "method": "crop"}, (320, 160)),
        ({"width": 32, "height": 32, "method": "scale"}, (64, 32)),
        ({"width": 300, "height": 200}, (480, 240)),
        ({"width": 800, "height": 600}, (1200, 600)),
        # It is smaller than that, and is not made larger.
        ({"width": 1600, "height": 1200, "method": "crop"}, (1400, 700)),
        ({"width": 5000, "height": 5000, "method": "scale"}, (1400, 700)),
    ],
)
async def test_a_thumbnail_is_no_smaller_than_what_was_asked_for(
    api: Api, asked: dict[str, Any], size: tuple[int, int]
) -> None:
    alice, bob = await api.register(), await api.register()
    media_id = await upload(alice, image(1400, 700, "JPEG"), content_type="image/jpeg")
    assert opened(await thumbnail(bob, media_id, **asked)).size == size


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "P"), ("WEBP", "RGB"), ("BMP", "RGB")]
)
async def test_images_of_many_kinds_have_thumbnails(api: Api, kind: str, mode: str) -> None:
    alice = await api.register()
    media_id = await upload(alice, image(400, 400, kind, mode))
    found = opened(await thumbnail(alice, media_id, width=96, height=96, method="crop"))
    assert found.size == (96, 96)
    assert found.format == ("PNG" if "A" in mode else "JPEG")
    # What browsers do not show is not sent as it is.
    assert opened(await thumbnail(alice, media_id, width=800, height=600)).format in ("PNG", "JPEG", "WEBP")


async def test_an_image_is_turned_as_its_camera_was_held(api: Api) -> None:
    alice = await api.register()
    exif = Image.Exif()
    exif[0x0112] = 6
    media_id = await upload(alice, image(1000, 500, "JPEG", exif=exif))
    assert opened(await thumbnail(alice, media_id, width=96, height=96)).size == (96, 192)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
async def test_an_image_moves_only_for_those_who_want_it(api: Api, kind: str) -> None:
    alice = await api.register()
    media_id = await upload(alice, moving(kind))
    for size in (96, 320):
        found = opened(await thumbnail(alice, media_id, width=size, height=size, method="crop", animated="true"))
        assert len(list(ImageSequence.Iterator(found))) == 5
        for animated in ("false", None):
            asked = {"width": size, "height": size, "method": "crop"} | ({"animated": animated} if animated else {})
            assert getattr(opened(await thumbnail(alice, media_id, **asked)), "n_frames", 1) == 1


async def test_what_cannot_move_does_not(api: Api) -> None:
    alice = await api.register()
    media_id = await upload(alice, image(400, 400, "JPEG"))
    assert opened(await thumbnail(alice, media_id, width=96, height=96, animated="true")).format == "JPEG"


async def test_a_thumbnail_is_made_once(api: Api) -> None:
    alice = await api.register()
    content = image(500, 500)
    one, two = await upload(alice, content), await upload(alice, content)
    answers = await asyncio.gather(
        *(thumbnail(alice, media_id, width=32, height=32) for media_id in (one, two) for _ in range(4))
    )
    assert len({answer.content for answer in answers}) == 1
    async with api.process.reader_pool.connection() as connection:
        cursor = await connection.execute(
            "select count(*) from media.thumbnails t join media.uploads u on u.blob = t.blob where u.media_id = %s",
            [one],
        )
        assert await cursor.fetchone() == (1,)
    tag = answers[0].headers["etag"]
    path = f"{V1}/thumbnail/{SERVER_NAME}/{one}?width=32&height=32"
    assert (await ask(alice, "GET", path, if_none_match=tag)).status_code == 304


async def test_crops_of_one_image_are_few_however_many_are_asked_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MOST_CROPS", 3)
    alice = await api.register()
    media_id = await upload(alice, image(60, 60, "BMP"))
    for height in range(1, 7):
        opened(await thumbnail(alice, media_id, width=32, height=height, method="crop"))
    async with api.process.reader_pool.connection() as connection:
        cursor = await connection.execute(
            "select count(*) from media.thumbnails t join media.uploads u on u.blob = t.blob where u.media_id = %s",
            [media_id],
        )
        row = await cursor.fetchone()
    assert row == (4,)


def bomb() -> bytes:
    """A PNG of 30,000 times 30,000 pixels, all alike, of some bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"", (400, "M_UNKNOWN")),
        (b"some text", (400, "M_UNKNOWN")),
        (os.urandom(5000), (400, "M_UNKNOWN")),
        (b"\x89PNG\r\n\x1a\n" + os.urandom(5000), (400, "M_UNKNOWN")),
        (b"\xff\xd8\xff" + os.urandom(5000), (400, "M_UNKNOWN")),
        (b"GIF89a" + b"\xff" * 100, (400, "M_UNKNOWN")),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", (400, "M_UNKNOWN")),
        (image(200, 200)[:300], (400, "M_UNKNOWN")),
        (bomb(), (413, "M_TOO_LARGE")),
    ],
)
async def test_what_is_no_image_has_no_thumbnail(api: Api, content: bytes, refusal: tuple[int, str]) -> None:
    alice = await api.register()
    media_id = await upload(alice, content)
    for _ in range(2):
        answer = await thumbnail(alice, media_id, width=32, height=32)
        assert (answer.status_code, answer.json()["errcode"]) == refusal


@pytest.mark.parametrize(
    "query",
    [
        *("width=32", "height=32", "width=x&height=1", "width=-1&height=1", "width=0&height=1", "width=1&height=1.5"),
        *("width=1&height=1&method=stretch", "width=1&height=1&animated=perhaps", "width=1&height=1&timeout_ms=soon"),
    ],
)
async def test_sizes_and_methods_are_checked(api: Api, query: str) -> None:
    alice = await api.register()
    media_id = await upload(alice, image(100, 100))
    answer = await ask(alice, "GET", f"{V1}/thumbnail/{SERVER_NAME}/{media_id}?{query}")
    assert answer.status_code == 400
    assert answer.json()["errcode"] in ("M_MISSING_PARAM", "M_INVALID_PARAM")


async def test_thumbnails_are_for_users(api: Api) -> None:
    alice = await api.register()
    media_id = await upload(alice, image(100, 100))
    assert (await thumbnail(api.anybody, media_id, width=32, height=32)).status_code == 401
    assert (await thumbnail(api.anybody, media_id, base=OLD, width=32, height=32)).status_code == 404
