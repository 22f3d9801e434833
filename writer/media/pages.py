"""Fetching what is behind a URL that a user has sent: pages and pictures of the web.

Invariant: each connection, also one that a redirect leads to, goes to an address that `eventlog.outgoing` has checked, and to the
very address that it has checked. Nothing that fetches carries anything of ours: no cookies, no credentials, no proxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

import aiohttp

from eventlog.outgoing import Forbidden, Guard, GuardedClient

MOST_SECONDS: Final = 30.0
"""For one page or picture, redirects and decoding included."""
MOST_REDIRECTS: Final = 5
MOST_URL: Final = 2_000
AT_ONCE: Final = 8
PART_BYTES: Final = 65_536
LANGUAGES: Final = {"accept-language": "en, *;q=0.5"}
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


class Unreachable(Exception):
    """There is nothing to be had behind the URL."""


class Response(NamedTuple):
    """What a server answered: where in the end, of which type, and the body as it comes, up to a length."""

    url: str
    content_type: str
    charset: str
    body: AsyncIterator[bytes]


def is_fetchable(url: str) -> bool:
    """Whether the text is an http or https URL of a host, without a password."""
    if len(url) > MOST_URL or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:
        return False


class Pages(GuardedClient):
    """Fetches; an async context manager."""

    def __init__(self, guard: Guard) -> None:
        timeout = aiohttp.ClientTimeout(total=None, connect=MOST_SECONDS, sock_read=MOST_SECONDS)
        super().__init__(guard, agent="Walden (URL preview bot)", at_once=AT_ONCE, timeout=timeout, reuse=False)

    @asynccontextmanager
    async def fetch(self, url: str, most: int) -> AsyncIterator[Response]:
        """What is behind a URL; of a longer body the first `most` bytes. Raises Forbidden, Unreachable."""
        try:
            async with asyncio.timeout(MOST_SECONDS):
                for _ in range(MOST_REDIRECTS + 1):
                    if not is_fetchable(url):
                        raise Forbidden("not a URL to follow")
                    async with self.request("GET", url, headers=LANGUAGES) as answer:
                        if answer.status in _REDIRECTS and "location" in answer.headers:
                            url = urljoin(url, answer.headers["location"])
                            continue
                        if answer.status != 200:
                            raise Unreachable(f"status {answer.status}")
                        kind = answer.content_type.lower()
                        yield Response(url, kind, answer.charset or "", _up_to(answer.content, most))
                        return
                raise Unreachable("too many redirects")
        except aiohttp.InvalidURL as error:
            # As 127.1 for an address: not even looked at.
            raise Forbidden("not a URL to follow") from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if forbidden := _forbidden(error):
                raise forbidden from error
            raise Unreachable(str(error) or type(error).__name__) from error


def _forbidden(error: BaseException | None) -> Forbidden | None:
    """The guard's word, which aiohttp wraps."""
    while error is not None and not isinstance(error, Forbidden):
        error = getattr(error, "os_error", None) or error.__cause__
    return error


async def _up_to(content: aiohttp.StreamReader, most: int) -> AsyncIterator[bytes]:
    rest = most
    while rest > 0 and (part := await content.read(min(PART_BYTES, rest))):
        rest -= len(part)
        yield part
