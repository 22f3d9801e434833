"""Where this server may connect to on behalf of others: the guard of every request whose address somebody else chose.

Invariant: a connection goes to an address that was checked, not to a name that was: names are resolved by the guard, for each
connection, and what leads into the machine or its networks is refused unless the operator allows it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

Network = IPv4Network | IPv6Network

_NAT64: Final = ip_network("64:ff9b::/96")


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

    def check_host(self, host: str) -> None:
        """Raises Forbidden for a host that is an address which may not be connected to; names are checked when resolved."""
        if _parse(host.strip("[]")) is not None and not self.may_reach(host.strip("[]")):
            raise Forbidden(f"{host} is not an address to connect to")


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


def guarded_session(
    guard: Guard, *, agent: str, at_once: int, timeout: aiohttp.ClientTimeout, reuse: bool
) -> aiohttp.ClientSession:
    """A session whose connections go where the guard lets them, and which carries nothing of ours: no cookies, no proxy.

    `reuse` is for servers that are asked again and again: their connections are kept for some seconds.
    Addresses are not resolved, so the resolver does not see them: `Guard.check_host` before each request, also a redirected one.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=GuardedResolver(guard), limit=at_once, use_dns_cache=False, force_close=not reuse
        ),
        timeout=timeout,
        headers={"user-agent": agent},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        return parsed.ipv4_mapped or parsed
    return parsed


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        # What carries an IPv4 address within leads to it.
        carried = address.sixtofour or (address.teredo and address.teredo[1])
        if address in _NAT64:
            carried = IPv4Address(int(address) & 0xFFFFFFFF)
        if carried and not _is_public(carried):
            return False
    return address.is_global and not address.is_multicast
