"""Previews of URLs: what pages say of themselves, and nothing of what only this server could reach."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.resolver import ThreadedResolver
from api_server import Answer, Api, Client, serving, settings_for
from test_media import V1, download
from test_thumbnails import image

PICTURE = image(40, 30)
TITLE = "<title> A \n page </title>"


class Site:
    """Pages on an address that may be reached, by what tests put there, and how often each was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.redirects: dict[str, str] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if request.path in self.redirects:
            return web.Response(status=302, headers={"location": self.redirects[request.path]})
        if request.path not in self.pages:
            return web.Response(status=404)
        content_type, body = self.pages[request.path]
        return web.Response(body=body, headers={"content-type": content_type})

    def page(self, name: str, head: str, content_type: str = "text/html; charset=utf-8") -> str:
        self.pages[name] = content_type, f"<html><head>{head}</head><body>text</body></html>".encode()
        return self.url + name


@pytest_asyncio.fixture(loop_scope="session")
async def site() -> AsyncIterator[Site]:
    site = Site()
    application = web.Application()
    application.router.add_get("/{path:.*}", site.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    listener = socket.create_server(("127.0.0.2", 0))
    await web.SockSite(runner, listener).start()
    site.url = f"http://127.0.0.2:{listener.getsockname()[1]}"
    yield site
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def near(api: Api, writers_database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An API process that may reach one address of this machine."""
    folder: Path = tmp_path_factory.mktemp("previews")
    networks = {"WALDEN_MEDIA_PREVIEW_ALLOWED_NETWORKS": "127.0.0.2/32"}
    async with serving(settings_for(writers_database, folder, **networks)) as found:
        yield found


async def preview(client: Client, url: str, base: str = V1) -> Answer:
    return await client.get(f"{base}/preview_url?url={quote(url, safe='')}")


async def test_a_page_says_what_it_is_about(near: Api, site: Site) -> None:
    alice = await near.register()
    url = site.page(
        "/page",
        f"{TITLE}<meta property='og:title' content='The &amp; title'><meta name='description' content='says &lt;so'>"
        "<meta property='og:type' content='video'><meta property='og:image' content='picture.png'>"
        "<meta property='og:image:width' content='1'><meta property='og:url' content='http://other.example/'>",
    )
    site.pages["/picture.png"] = "image/png", PICTURE
    said = (await preview(alice, url)).ok()
    uri = said.pop("og:image")
    assert said == {
        "og:title": "The & title",
        "og:description": "says <so",
        "og:type": "video",
        "og:url": "http://other.example/",
        "og:image:type": "image/png",
        "og:image:width": 40,
        "og:image:height": 30,
        "matrix:image:size": len(PICTURE),
    }
    answer = await download(alice, uri.rpartition("/")[2])
    assert (answer.content, answer.headers["content-type"]) == (PICTURE, "image/png")
    assert all("cookie" not in sent and "authorization" not in sent for sent in site.headers)


async def test_a_picture_is_where_the_pages_base_says(near: Api, site: Site) -> None:
    alice = await near.register()
    url = site.page(
        "/deep/page", "<base href='/pictures/'><base href='/no/'><meta property='og:image' content='a.png'>"
    )
    site.pages["/pictures/a.png"] = "image/png", PICTURE
    assert (await preview(alice, url)).ok()["og:image:width"] == 40
    inside = site.page("/inside", f"{TITLE}<base href='http://127.0.0.3:1/'><meta property='og:image' content='a.png'>")
    assert (await preview(alice, inside)).ok() == {"og:title": "A page"}


async def test_a_page_is_fetched_once_for_all(near: Api, site: Site) -> None:
    alice, bob = await near.register(), await near.register()
    url = site.page("/once", TITLE)
    answers = await asyncio.gather(*(preview(who, url) for who in (alice, bob, alice, bob)))
    again = await preview(bob, url + "#part", "/_matrix/media/v3")
    assert {str(answer.ok()) for answer in (*answers, again)} == {str({"og:title": "A page"})}
    assert site.asked == ["/once"]


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("text/html; charset=iso-8859-1", "<title>café</title>".encode("latin-1"), {"og:title": "café"}),
        ("text/html", b"<meta charset=utf-16><title>x</title>", {}),
        ("text/html", b"<title>caf\xc3\xa9</title>", {"og:title": "café"}),
        ("text/html; charset=nonsense", b"<title>x</title>", {"og:title": "x"}),
        ("text/html", "\ufeff<title>café</title>".encode("utf-16-le"), {"og:title": "café"}),
        ("text/html; charset=koi8-r", "\ufeff<title>café</title>".encode(), {"og:title": "café"}),
        ("text/html", b"<title>\0\x01</title>" + b"<!--" * 50_000, {"og:title": "\0\x01"}),
        ("text/html", b"", {}),
        ("application/octet-stream", b"<title>x</title>", {}),
        ("image/png", b"no picture", {}),
    ],
)
async def test_a_page_of_any_kind_has_a_preview(
    near: Api, site: Site, content_type: str, body: bytes, said: dict[str, Any]
) -> None:
    alice = await near.register()
    site.pages["/any"] = content_type, body
    found = (await preview(alice, site.url + "/any")).ok()
    if "utf-16" not in body.decode("latin-1"):
        assert found == said


async def test_a_picture_is_its_own_preview(near: Api, site: Site) -> None:
    alice = await near.register()
    site.pages["/a.png"] = "image/png", PICTURE
    said = (await preview(alice, site.url + "/a.png")).ok()
    assert (said["og:image:width"], said["matrix:image:size"]) == (40, len(PICTURE))
    async with near.process.pool.connection() as connection:
        cursor = await connection.execute("select 1 from media.usage where user_id = %s", [alice.user_id])
        assert await cursor.fetchone() is None


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://１２７.0.0.1/",
        "http://127。0。0。1/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.1.1:8080/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[fd00:ec2::254]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
    ],
)
async def test_no_address_inside_is_reached(api: Api, url: str) -> None:
    alice = await api.register()
    assert (await preview(alice, url)).refusal == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://a.example/", "file:///etc/passwd", "http://", "http://user:pass@a.example/", "http://a:0/"]
)
async def test_what_is_no_url_of_the_web_is_refused(api: Api, url: str) -> None:
    alice = await api.register()
    assert (await preview(alice, url)).status == 400
    assert (await api.anybody.get(f"{V1}/preview_url?url=http://a.example/")).refusal == (401, "M_MISSING_TOKEN")


@pytest.mark.parametrize("inside", ["http://127.0.0.1:1/", "http://[::1]/", "file:///etc/passwd", "http://localhost/"])
async def test_a_redirect_does_not_lead_inside(near: Api, site: Site, inside: str) -> None:
    alice = await near.register()
    site.redirects = {"/way": "/further", "/further": inside}
    assert (await preview(alice, site.url + "/way")).refusal == (403, "M_FORBIDDEN")
    assert site.asked == ["/way", "/further"]
    # Nor does the picture of a page.
    url = site.page(f"/page-{len(inside)}", f"{TITLE}<meta property='og:image' content='{inside}'>")
    assert (await preview(alice, url)).ok() == {"og:title": "A page"}


async def test_a_redirect_in_a_circle_ends(near: Api, site: Site) -> None:
    alice = await near.register()
    site.redirects = {"/round": "/round"}
    assert (await preview(alice, site.url + "/round")).refusal == (502, "M_UNKNOWN")
    assert len(site.asked) < 10


async def test_a_name_that_changes_its_mind_leads_nowhere(
    near: Api, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await near.register()
    answers = ["127.0.0.2", "127.0.0.1", "127.0.0.2"]
    given: list[str] = []

    async def resolve(_: ThreadedResolver, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        assert host == "rebound.example"
        given.append(answers[len(given)])
        return [{"hostname": host, "host": given[-1], "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    port = site.url.rpartition(":")[2]
    site.page("/one", TITLE)
    # Asked once for a connection, which then goes to the address that was checked.
    assert (await preview(alice, f"http://rebound.example:{port}/one")).ok() == {"og:title": "A page"}
    assert given == ["127.0.0.2"]
    site.redirects = {"/away": f"http://rebound.example:{port}/one"}
    assert (await preview(alice, site.url + "/away")).refusal == (403, "M_FORBIDDEN")
    assert given == ["127.0.0.2", "127.0.0.1"]


async def test_a_long_page_is_read_only_so_far(near: Api, site: Site) -> None:
    alice = await near.register()
    site.pages["/long"] = (
        "text/html",
        b"<title>long</title>" + b"x" * (3 << 20) + b"<meta property=og:type content=late>",
    )
    assert (await preview(alice, site.url + "/long")).ok() == {"og:title": "long"}
    site.pages["/huge.png"] = "image/png", PICTURE + b"\0" * (11 << 20)
    assert (await preview(alice, site.url + "/huge.png")).ok() == {}
