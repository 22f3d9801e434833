"""Uploads and downloads: what was sent comes back, whole and in parts, and is harmless to whoever looks at it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from api_server import SERVER_NAME, Api, Client, part, serving, settings_for

from eventlog.blobs import path_of
from matrix.errors import MatrixError
from readers.media import resources
from writer.media import uploads

V1 = "/_matrix/client/v1/media"
OLD = "/_matrix/media/v3"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


async def ask(client: Client, method: str, path: str, content: Any = None, **headers: str) -> httpx.Response:
    """A request whose answer need not be JSON."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if client.token:
        sent["authorization"] = f"Bearer {client.token}"
    return await client.api.http.request(method, path, content=content, headers=sent)


async def upload(client: Client, content: Any, name: str | None = None, **headers: str) -> str:
    """Uploads; the media id."""
    query = "" if name is None else f"?filename={part(name)}"
    answer = await ask(client, "POST", f"{OLD}/upload{query}", content, **{"content_type": "image/png", **headers})
    assert answer.status_code == 200, answer.text
    uri: str = answer.json()["content_uri"]
    assert uri.startswith(f"mxc://{SERVER_NAME}/")
    return uri.rpartition("/")[2]


async def download(client: Client, media_id: str, more: str = "", base: str = V1, **headers: str) -> httpx.Response:
    return await ask(client, "GET", f"{base}/download/{SERVER_NAME}/{media_id}{more}", **headers)


@pytest.mark.parametrize("size", [0, 1, 131_072, 262_143, 262_144, 262_145, 1_000_000])
async def test_what_was_uploaded_comes_back(api: Api, size: int) -> None:
    alice, bob = await api.register(), await api.register()
    content = os.urandom(size)
    answer = await download(bob, await upload(alice, content))
    assert answer.status_code == 200
    assert answer.content == content
    assert answer.headers["content-length"] == str(size)
    assert answer.headers["content-type"] == "image/png"


async def test_an_upload_may_come_without_its_length(api: Api) -> None:
    alice = await api.register()

    async def parts() -> Any:
        for _ in range(40):
            yield b"x" * 10_000

    media_id = await upload(alice, parts())
    assert (await download(alice, media_id)).content == b"x" * 400_000


async def test_a_download_runs_nothing_in_a_browser(api: Api) -> None:
    alice = await api.register()
    harmful = await upload(alice, b"<script>", content_type="text/html; charset=utf-8")
    answer = await download(alice, harmful)
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none';")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["access-control-allow-origin"] == "*"
    harmless = await upload(alice, PNG, content_type="Text/Plain; charset=utf-8")
    assert (await download(alice, harmless)).headers["content-disposition"] == "inline"
    unsaid = await ask(alice, "POST", f"{OLD}/upload", PNG)
    answer = await download(alice, unsaid.json()["content_uri"].rpartition("/")[2])
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a b;c.png", 'inline; filename="a b;c.png"'),
        ('say "hi" \\', "inline; filename*=utf-8''say%20%22hi%22%20%5C"),
        ("☕", "inline; filename*=utf-8''%E2%98%95"),
        ("", "inline"),
    ],
)
async def test_a_file_has_the_name_that_it_was_given(api: Api, name: str, header: str) -> None:
    alice = await api.register()
    answer = await download(alice, await upload(alice, PNG, name))
    assert answer.headers["content-disposition"] == header


async def test_whoever_downloads_may_give_another_name(api: Api) -> None:
    alice = await api.register()
    media_id = await upload(alice, PNG, "mine.png")
    assert (await download(alice, media_id, "/yours.png")).headers["content-disposition"] == (
        'inline; filename="yours.png"'
    )
    assert "%00" in (await download(alice, media_id, "/a%00b")).headers["content-disposition"]
    assert (await download(alice, media_id, "/" + "x" * 1025)).status_code == 400


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=262140-262150", 262_140, 262_151),
        ("bytes=999999-", 999_999, 1_000_000),
        ("bytes=-5", 999_995, 1_000_000),
        ("bytes=-99999999", 0, 1_000_000),
        ("bytes=10-99999999", 10, 1_000_000),
    ],
)
async def test_a_range_is_what_was_asked_for(api: Api, asked: str, first: int, end: int) -> None:
    alice = await api.register()
    content = bytes(range(250)) * 4000
    answer = await download(alice, await upload(alice, content), range=asked)
    assert answer.status_code == 206
    assert answer.content == content[first:end]
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/1000000"
    assert answer.headers["content-length"] == str(end - first)


@pytest.mark.parametrize("asked", ["bytes=1000-", "bytes=1000-2000", "bytes=-0"])
async def test_a_range_beyond_the_end_is_refused(api: Api, asked: str) -> None:
    alice = await api.register()
    answer = await download(alice, await upload(alice, b"x" * 1000), range=asked)
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */1000"


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=5-2", "bytes=-", "lines=1-2", "bytes=a-b"])
async def test_what_is_no_single_range_is_answered_with_everything(api: Api, asked: str) -> None:
    alice = await api.register()
    answer = await download(alice, await upload(alice, PNG), range=asked)
    assert (answer.status_code, answer.content) == (200, PNG)


async def test_who_has_it_already_is_told_so(api: Api) -> None:
    alice = await api.register()
    media_id = await upload(alice, PNG)
    tag = (await download(alice, media_id)).headers["etag"]
    assert (await download(alice, media_id, if_none_match=tag)).status_code == 304
    assert (await download(alice, media_id, range="bytes=0-3", if_range='"other"')).status_code == 200
    assert (await download(alice, media_id, range="bytes=0-3", if_range=tag)).status_code == 206


@pytest.mark.parametrize("media_id", ["unknown", "..%2F..%2Fetc%2Fpasswd", "a b", "%00", "x" * 300])
async def test_what_nobody_uploaded_is_not_found(api: Api, media_id: str) -> None:
    alice = await api.register()
    answer = await download(alice, media_id)
    assert (answer.status_code, answer.json()["errcode"]) in ((404, "M_NOT_FOUND"), (400, "M_INVALID_PARAM"))


async def test_media_of_other_servers_are_not_here(api: Api) -> None:
    alice = await api.register()
    media_id = await upload(alice, PNG)
    answer = await ask(alice, "GET", f"{V1}/download/elsewhere.example/{media_id}")
    assert (answer.status_code, answer.json()["errcode"]) == (404, "M_NOT_FOUND")


async def test_without_a_token_nothing_is_uploaded_or_downloaded(api: Api) -> None:
    alice = await api.register()
    media_id = await upload(alice, PNG)
    for method, path in (
        ("POST", f"{OLD}/upload"),
        ("PUT", f"{OLD}/upload/{SERVER_NAME}/x"),
        ("POST", "/_matrix/media/v1/create"),
        ("GET", f"{V1}/download/{SERVER_NAME}/{media_id}"),
        ("GET", f"{V1}/config"),
        ("GET", f"{OLD}/config"),
    ):
        answer = await ask(api.anybody, method, path, b"")
        assert (answer.status_code, answer.json()["errcode"]) == (401, "M_MISSING_TOKEN"), path
    answer = await download(api.anybody, media_id, base=OLD)
    assert (answer.status_code, answer.json()["errcode"]) == (404, "M_NOT_FOUND")


async def test_an_upload_that_is_too_long_is_refused_before_it_comes(api: Api) -> None:
    alice = await api.register()
    most = (await alice.get(f"{V1}/config")).ok()["m.upload.size"]
    assert (await alice.get("/_matrix/media/r0/config")).ok() == {"m.upload.size": most}
    answer = await ask(alice, "POST", f"{OLD}/upload", b"x", content_length=str(most + 1))
    assert (answer.status_code, answer.json()["errcode"]) == (413, "M_TOO_LARGE")


async def test_an_asynchronous_upload_is_waited_for(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    made = (await alice.post("/_matrix/media/v1/create")).ok()
    media_id = made["content_uri"].rpartition("/")[2]
    answer = await download(bob, media_id, "?timeout_ms=0")
    assert (answer.status_code, answer.json()["errcode"]) == (504, "M_NOT_YET_UPLOADED")
    waiting = asyncio.create_task(download(bob, media_id))
    await asyncio.sleep(0)
    path = f"{OLD}/upload/{SERVER_NAME}/{media_id}?filename=a.png"
    refused = await ask(bob, "PUT", path, PNG, content_type="image/png")
    assert (refused.status_code, refused.json()["errcode"]) == (403, "M_FORBIDDEN")
    stored = await ask(alice, "PUT", path, PNG, content_type="image/png")
    assert (stored.status_code, stored.json()) == (200, {})
    answer = await waiting
    assert answer.content == PNG
    assert answer.headers["content-disposition"] == 'inline; filename="a.png"'
    again = await ask(alice, "PUT", path, PNG)
    assert (again.status_code, again.json()["errcode"]) == (409, "M_CANNOT_OVERWRITE_MEDIA")
    unknown = await ask(alice, "PUT", f"{OLD}/upload/{SERVER_NAME}/unknown", PNG)
    assert (unknown.status_code, unknown.json()["errcode"]) == (404, "M_NOT_FOUND")


async def test_so_many_uris_wait_for_their_content_at_most(api: Api) -> None:
    alice = await api.register()
    for _ in range(api.process.settings.media.pending_uploads):
        (await alice.post("/_matrix/media/v1/create")).ok()
    assert (await alice.post("/_matrix/media/v1/create")).refusal == (429, "M_LIMIT_EXCEEDED")


async def test_equal_contents_are_kept_once(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    content = os.urandom(1000)
    ids = await asyncio.gather(*(upload(user, content) for user in (alice, bob, alice, bob)))
    assert len(set(ids)) == 4
    async with api.process.pool.connection() as connection:
        cursor = await connection.execute(
            "select count(distinct blob) from media.uploads where media_id = any (%s)", [ids]
        )
        assert await cursor.fetchone() == (1,)
        cursor = await connection.execute("select files, bytes from media.usage where user_id = %s", [alice.user_id])
        assert await cursor.fetchone() == (2, 2000)
    assert {(await download(alice, one)).content for one in ids} == {content}


@pytest.mark.parametrize("old", ["/_matrix/media/v3", "/_matrix/media/r0", "/_matrix/media/v1"])
async def test_media_have_their_old_names(api: Api, old: str) -> None:
    alice = await api.register()
    answer = await ask(alice, "POST", f"{old}/upload", PNG, content_type="image/png")
    media_id = answer.json()["content_uri"].rpartition("/")[2]
    assert (await download(alice, media_id)).content == PNG
    # Who sends a token is not refused what is open to users.
    answer = await download(alice, media_id, base=old)
    assert answer.status_code == 404


async def test_what_is_uploaded_while_anybody_may_download_stays_open_to_anybody(
    api: Api, writers_database: str, tmp_path: Path
) -> None:
    open_to_all = settings_for(writers_database, tmp_path, WALDEN_MEDIA_UNAUTHENTICATED="on")
    async with serving(open_to_all) as lax:
        alice = await lax.register()
        early = await upload(alice, os.urandom(100))
        late = await upload(Client(api, alice.user_id, alice.token), os.urandom(100))
        assert {(await download(lax.anybody, one, base=OLD)).status_code for one in (early, late)} == {200}
        assert (await download(lax.anybody, early)).status_code == 401
    answer = await download(api.anybody, early, base=OLD)
    assert answer.status_code == 200 and answer.headers["cache-control"].startswith("public")
    assert (await download(api.anybody, late, base=OLD)).status_code == 404


async def test_what_is_in_quarantine_is_not_found(api: Api) -> None:
    alice = await api.register()
    content = os.urandom(100)
    media_id = await upload(alice, content)
    async with api.process.pool.connection() as connection:
        await connection.execute("update media.uploads set quarantined_at = now() where media_id = %s", [media_id])
    for one in (media_id, await upload(alice, content)):
        answer = await download(alice, one)
        assert (answer.status_code, answer.json()["errcode"]) == (404, "M_NOT_FOUND")


async def test_a_uri_in_quarantine_takes_no_content_until_it_is_released(api: Api) -> None:
    alice = await api.register()
    media_id = (await alice.post("/_matrix/media/v1/create")).ok()["content_uri"].rpartition("/")[2]
    pool = api.process.pool

    async def hold(held: bool) -> None:
        async with pool.connection() as connection:
            await connection.execute(
                "update media.uploads set quarantined_at = case when %s then now() end where media_id = %s",
                [held, media_id],
            )

    async def put(content: Any) -> int:
        return (await ask(alice, "PUT", f"{OLD}/upload/{SERVER_NAME}/{media_id}", content)).status_code

    async def late() -> AsyncIterator[bytes]:
        yield b"x"
        await hold(True)

    assert await put(late()) == 404 and await put(b"x") == 404
    assert (await download(alice, media_id)).status_code == 404
    await hold(False)
    assert await put(b"x") == 200 and (await download(alice, media_id)).content == b"x"


async def test_who_has_uploaded_as_much_as_they_may_is_refused_more(
    writers_database: str, tmp_path: Path, api: Api
) -> None:
    """`api` is there for its room server."""
    limits = {"WALDEN_MEDIA_USER_MAX_BYTES": "1000", "WALDEN_MEDIA_USER_MAX_FILES": "3"}
    async with serving(settings_for(writers_database, tmp_path, **limits)) as here:

        async def parts(size: int) -> Any:
            yield b"x" * size

        async def refusal(client: Client, content: Any) -> tuple[int, str]:
            answer = await ask(client, "POST", f"{OLD}/upload", content)
            return answer.status_code, answer.json()["errcode"]

        alice, bob = await here.register(), await here.register()
        media_id = await upload(alice, b"x" * 900)
        # As soon as its length is known, or once it is.
        for content in (b"x" * 101, parts(101)):
            assert await refusal(alice, content) == (403, "M_FORBIDDEN")
        await upload(alice, parts(100))
        assert (await download(alice, media_id)).content == b"x" * 900
        for _ in range(3):
            await upload(bob, b"")
        assert await refusal(bob, b"") == (403, "M_FORBIDDEN")
        assert (await bob.post("/_matrix/media/v1/create")).refusal == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("path", ["download", "thumbnail"])
async def test_what_is_lost_is_not_found_and_nobody_keeps_that_in_mind(
    writers_database: str, tmp_path: Path, api: Api, path: str
) -> None:
    """The file that a restore did not bring back. `api` is there for its room server."""
    settings = settings_for(writers_database, tmp_path, WALDEN_MEDIA_STORE="directory")
    async with serving(settings) as here:
        alice = await here.register()
        media_id = await upload(alice, os.urandom(300_000))
        assert len((await download(alice, media_id)).content) == 300_000
        (file,) = [one for one in settings.media.directory.rglob("*") if one.is_file()]
        file.rename(tmp_path / "elsewhere")
        lost = await ask(alice, "GET", f"{V1}/{path}/{SERVER_NAME}/{media_id}?width=32&height=32")
        assert (lost.status_code, lost.json()["errcode"]) == (404, "M_NOT_FOUND")
        assert "immutable" not in lost.headers.get("cache-control", "") and "etag" not in lost.headers
        (tmp_path / "elsewhere").rename(file)
        assert len((await download(alice, media_id)).content) == 300_000


@pytest.mark.parametrize("store", ["directory", "database"])
async def test_who_uploads_a_lost_content_again_brings_it_back_for_all(
    writers_database: str, tmp_path: Path, api: Api, store: str
) -> None:
    """`api` is there for its room server."""
    content = PNG + os.urandom(300_000)
    settings = settings_for(writers_database, tmp_path, WALDEN_MEDIA_STORE="directory")
    async with serving(settings) as here:
        alice, bob = await here.register(), await here.register()
        first = [await upload(alice, content), await upload(bob, content)]
        # The second one's is as long and idle: equal contents are one.
        async with api.process.pool.connection() as connection:
            query = "select b.file from media.uploads u join media.blobs b using (blob) where u.media_id = %s"
            row = await (await connection.execute(query, [first[0]])).fetchone()
        assert row is not None
        file = path_of(settings.media.directory, row[0])
    async with serving(settings_for(writers_database, tmp_path, WALDEN_MEDIA_STORE=store)) as here:
        alice, bob = (Client(here, one.user_id, one.token) for one in (alice, bob))
        file.write_bytes(content[:280_000])
        lost = await ask(alice, "GET", f"{V1}/thumbnail/{SERVER_NAME}/{first[0]}?width=32&height=32")
        assert (lost.status_code, lost.json()["errcode"]) == (404, "M_NOT_FOUND")
        again = await asyncio.gather(*(upload(who, content) for who in (alice, bob, alice)))
        for media_id in (*first, *again):
            assert (await download(bob, media_id)).content == content
    async with api.process.pool.connection() as connection:
        query = "select count(distinct blob) from media.uploads where media_id = any (%s)"
        cursor = await connection.execute(query, [[*first, *again]])
        assert await cursor.fetchone() == (1,)


class Talk:
    """A request, without a session, whose client goes away when it is told to."""

    def __init__(self, address: str = "192.0.2.1") -> None:
        self.left = asyncio.Event()
        self.context = SimpleNamespace(session=None)
        self.scope = {"client": (address, 1)}

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_a_download_ends_when_its_client_goes_away() -> None:
    talk, sent = Talk(), []

    async def content() -> Any:
        for number in range(100):
            yield bytes([number])

    async for one in resources.Sending().parts(talk, content()):  # type: ignore[arg-type]
        sent.append(one)
        if len(sent) == 3:
            talk.left.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert len(sent) == 3


async def test_nobody_takes_the_place_of_all_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "EACH", 2)
    sending, near, far = resources.Sending(), Talk(), Talk("192.0.2.2")

    async def content() -> Any:
        yield b"x"

    running = [sending.parts(near, content()) for _ in range(2)]  # type: ignore[arg-type]
    for one in running:
        sending.check(near)  # type: ignore[arg-type]
        assert await anext(one) == b"x"
    with pytest.raises(MatrixError) as refusal:
        sending.check(near)  # type: ignore[arg-type]
    assert refusal.value.status == 429
    sending.check(far)  # type: ignore[arg-type]
    assert [part async for part in running[0]] == []
    sending.check(near)  # type: ignore[arg-type]


async def test_nobody_takes_the_place_of_all_uploads(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "EACH", 2)
    alice, bob = await api.register(), await api.register()
    begun, end = asyncio.Semaphore(0), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        begun.release()
        await end.wait()

    running = [asyncio.create_task(ask(alice, "POST", f"{OLD}/upload", slow())) for _ in range(2)]
    for _ in running:
        await begun.acquire()
    assert (await ask(alice, "POST", f"{OLD}/upload", b"x")).status_code == 429
    assert (await ask(bob, "POST", f"{OLD}/upload", b"x")).status_code == 200
    end.set()
    assert [answer.status_code for answer in await asyncio.gather(*running)] == [200, 200]
    assert (await ask(alice, "POST", f"{OLD}/upload", b"x")).status_code == 200


async def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "STALLED_SECONDS", 0.05)

    async def content() -> Any:
        yield b"x"

    async def take_nothing() -> None:
        async for _ in resources.Sending().parts(Talk(), content()):  # type: ignore[arg-type]
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.create_task(take_nothing()), 30)
