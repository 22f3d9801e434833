"""Where this server may connect to on behalf of others: the guard of every request whose address somebody else chose.

Invariant: a connection goes to an address that was checked, whatever was written for it: the address is looked at when the socket
is made that will connect to it, and what leads into the machine or its networks is refused unless the operator allows it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

Network = IPv4Network | IPv6Network

_NAT64: Final = ip_network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ip_network("2000::/3")
_PROTOCOL_ASSIGNMENTS: Final = ip_network("192.0.0.0/24")


class Forbidden(OSError):
    """The address may not be connected to."""


class Guard:
    """Which addresses may be connected to: public ones, and those in `allowed` networks."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        """ValueError for what is no network in CIDR notation."""
        self._allowed: tuple[Network, ...] = tuple(ip_network(network, strict=False) for network in allowed)

    def is_allowed(self, address: str) -> bool:
        """Whether the operator allows an address by name of its network."""
        parsed = _parse(address)
        return parsed is not None and any(
            parsed.version == network.version and parsed in network for network in self._allowed
        )

    def may_reach(self, address: str) -> bool:
        """Whether an address may be connected to."""
        if self.is_allowed(address):
            return True
        parsed = _parse(address)
        return parsed is not None and _is_public(parsed)

    def socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """A socket that is about to be connected to an address. Raises Forbidden where it may not be."""
        family, kind, protocol, _, place = address
        if not self.may_reach(str(place[0])):
            raise Forbidden(f"{place[0]} is not an address to connect to")
        return socket.socket(family, kind, protocol)


class GuardedResolver(AbstractResolver):
    """Resolves names to addresses that may be connected to."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises Forbidden when none of them may be connected to."""
        found = await self._inner.resolve(host, port, family)
        reachable = [one for one in found if self._guard.may_reach(one["host"])]
        if not reachable:
            raise Forbidden(f"{host} does not lead to an address to connect to")
        return reachable

    async def close(self) -> None:
        """Nothing is kept."""
        await self._inner.close()


class GuardedClient:
    """HTTP requests to whom somebody else chose; an async context manager. They carry nothing of ours: no cookies, no proxy."""

    def __init__(self, guard: Guard, *, agent: str, at_once: int, timeout: aiohttp.ClientTimeout, reuse: bool) -> None:
        """`reuse` is for servers that are asked again and again: their connections are kept for some seconds."""
        self._guard = guard
        self._headers = {"user-agent": agent}
        self._at_once, self._timeout, self._reuse = at_once, timeout, reuse
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(self._guard),
            socket_factory=self._guard.socket,
            limit=self._at_once,
            use_dns_cache=False,
            force_close=not self._reuse,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    def request(self, method: str, url: str, **options: Any) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A request, to be entered; where it is redirected to is the caller's to ask."""
        assert self._session is not None
        return self._session.request(method, url, allow_redirects=False, **options)

    async def is_private(self, url: str) -> bool:
        """Whether what is sent stays between us: by https, or in networks that the operator names. Raises OSError."""
        parts = urlsplit(url)
        if parts.scheme == "https":
            return True
        found = await GuardedResolver(self._guard).resolve(parts.hostname or "")
        return all(self._guard.is_allowed(one["host"]) for one in found)


async def body_of(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body of an answer, however many parts it comes in. ValueError for one longer than `most`."""
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > most:
            raise ValueError("the answer is too long")
    return bytes(body)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        return parsed.ipv4_mapped or parsed
    return parsed


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and address not in _PROTOCOL_ASSIGNMENTS
    if address in _NAT64:
        return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    # What carries an IPv4 address within leads to it.
    carried = address.sixtofour or (address.teredo and address.teredo[1])
    return address in _GLOBAL_UNICAST and address.is_global and (not carried or _is_public(carried))
