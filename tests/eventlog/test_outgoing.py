"""Connections on behalf of others go to public addresses, and to those that the operator allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.outgoing import Forbidden, Guard, GuardedResolver


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
        "2002:7f00:1::",
        "not an address",
    ],
)
def test_what_leads_inside_is_out_of_reach(address: str) -> None:
    assert not Guard().may_reach(address)
    if address != "not an address":
        with pytest.raises(Forbidden):
            Guard().check_host(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_and_allowed_networks_are_in_reach(address: str) -> None:
    assert Guard().may_reach(address) and not Guard().is_allowed(address)
    assert Guard(["127.0.0.0/8"]).may_reach("127.0.0.1") and Guard(["127.0.0.0/8"]).is_allowed("::ffff:127.0.0.1")
    assert not Guard(["127.0.0.0/8"]).may_reach("10.0.0.1")
    Guard().check_host("gateway.example")


async def test_a_name_that_leads_inside_is_refused_when_it_is_resolved() -> None:
    with pytest.raises(Forbidden):
        await GuardedResolver(Guard()).resolve("localhost", 80)
    found = await GuardedResolver(Guard(["127.0.0.0/8", "::1/128"])).resolve("localhost", 80)
    assert found


@given(st.ip_addresses())
def test_of_every_address_the_guard_has_an_opinion(address: object) -> None:
    assert Guard().may_reach(str(address)) in (True, False)
