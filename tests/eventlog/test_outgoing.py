"""Connections on behalf of others go to public addresses, and to those that the operator allows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from eventlog.outgoing import Forbidden, Guard, GuardedClient, GuardedResolver, body_of


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "2002:7f00:1::",
        "fec0::1",
        "2001:db8::1",
        "192.0.0.192",
        "not an address",
    ],
)
def test_what_leads_inside_is_out_of_reach(address: str) -> None:
    assert not Guard().may_reach(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101", "2002:101:101::"])
def test_public_addresses_and_allowed_networks_are_in_reach(address: str) -> None:
    assert Guard().may_reach(address) and not Guard().is_allowed(address)
    assert Guard(["127.0.0.0/8"]).may_reach("127.0.0.1") and Guard(["127.0.0.0/8"]).is_allowed("::ffff:127.0.0.1")
    assert not Guard(["127.0.0.0/8"]).may_reach("10.0.0.1")


async def test_a_name_that_leads_inside_is_refused_when_it_is_resolved() -> None:
    with pytest.raises(Forbidden):
        await GuardedResolver(Guard()).resolve("localhost", 80)
    found = await GuardedResolver(Guard(["127.0.0.0/8", "::1/128"])).resolve("localhost", 80)
    assert found


@given(st.ip_addresses())
def test_of_every_address_the_guard_has_an_opinion(address: object) -> None:
    assert Guard().may_reach(str(address)) in (True, False)


class Inside(NamedTuple):
    """A server of this machine, and what it was asked."""

    port: int
    asked: list[str]


@pytest.fixture
async def inside() -> AsyncIterator[Inside]:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        response = web.StreamResponse()
        await response.prepare(request)
        for part in (b"in ", b"three ", b"parts"):
            await response.write(part)
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Inside(runner.addresses[0][1], asked)
    await runner.cleanup()


def client(*allowed: str) -> GuardedClient:
    timeout = aiohttp.ClientTimeout(total=30)
    return GuardedClient(Guard(allowed), agent="a test", at_once=1, timeout=timeout, reuse=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "127.0.0.１", "localhost"])
async def test_an_address_inside_is_not_reached_in_whatever_way_it_is_written(inside: Inside, host: str) -> None:
    url = f"http://{host}:{inside.port}/"
    async with client() as stranger:
        with pytest.raises(aiohttp.ClientError) as refused:
            async with stranger.request("GET", url):
                pass
    assert any(isinstance(error, Forbidden) for error in causes(refused.value)) and inside.asked == []
    async with client("127.0.0.0/8") as friend, friend.request("GET", url) as answer:
        assert answer.status == 200


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


async def test_a_body_is_read_whole_up_to_its_bound(inside: Inside) -> None:
    url = f"http://127.0.0.1:{inside.port}/"
    async with client("127.0.0.0/8") as one:
        async with one.request("GET", url) as answer:
            assert await body_of(answer, 14) == b"in three parts"
        async with one.request("GET", url) as answer:
            with pytest.raises(ValueError, match="too long"):
                await body_of(answer, 13)
