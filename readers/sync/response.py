"""Sync responses as bytes: fragments joined, never an object made and serialised.

Source: client-server API, "GET /_matrix/client/v3/sync", 200 response.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from readers.sync.event_bytes import quoted
from readers.sync.rooms import Receipt

NO_STOCK: Final = b',"device_one_time_keys_count":{},"device_unused_fallback_key_types":[]'
"""What is said of a device that has no keys here."""


def empty(token: str, stock: bytes) -> bytes:
    """A response that says nothing but where the client is, and which of the device's keys are left."""
    return b'{"next_batch":"%b"%b}' % (token.encode(), stock)


def stock_members(counts: dict[str, int], unused: list[str]) -> bytes:
    """The members that say which of a device's keys are left: one-time keys by algorithm, algorithms of unused fallback keys."""
    # "If an algorithm is not listed, the count for that algorithm is assumed to be zero."
    return b',"device_one_time_keys_count":%b,"device_unused_fallback_key_types":%b' % (
        orjson.dumps(counts),
        orjson.dumps(unused),
    )


def whole(
    token: str,
    *,
    join: Sequence[bytes] = (),
    invite: Sequence[bytes] = (),
    knock: Sequence[bytes] = (),
    leave: Sequence[bytes] = (),
    account_data: Sequence[bytes] = (),
    presence: Sequence[bytes] = (),
    to_device: Sequence[bytes] = (),
    changed: Sequence[str] = (),
    left: Sequence[str] = (),
    stock: bytes = NO_STOCK,
) -> bytes:
    """A response of rendered rooms (each `"room id":{…}`), events of global account data, of presence and to the device, users
    whose devices changed and who share no room any more, and the device's stock of keys."""
    parts = [b'{"next_batch":"', token.encode(), b'"']
    rooms = [
        b'"%b":{%b}' % (name, b",".join(section))
        for name, section in ((b"join", join), (b"invite", invite), (b"knock", knock), (b"leave", leave))
        if section
    ]
    if rooms:
        parts += (b',"rooms":{', b",".join(rooms), b"}")
    if presence:
        parts += (b',"presence":', batch(presence))
    if account_data:
        parts += (b',"account_data":', batch(account_data))
    if to_device:
        parts += (b',"to_device":', batch(to_device))
    if changed or left:
        parts += (b',"device_lists":', orjson.dumps({"changed": list(changed), "left": list(left)}))
    parts += (stock, b"}")
    return b"".join(parts)


def batch(events: Iterable[bytes]) -> bytes:
    """A list of events as the specification's EventBatch."""
    return b'{"events":[%b]}' % b",".join(events)


def history(
    timeline: Iterable[bytes], *, limited: bool, prev_batch: int, state: Iterable[bytes], state_after: bool
) -> bytes:
    """The members `timeline` and `state` (or `state_after`) of a room; `prev_batch` is an order in its timeline."""
    return b'"timeline":{"events":[%b],"limited":%b,"prev_batch":"t%d"},"%b":{"events":[%b]}' % (
        b",".join(timeline),
        b"true" if limited else b"false",
        prev_batch,
        b"state_after" if state_after else b"state",
        b",".join(state),
    )


def room(room_id: str, members: Iterable[bytes]) -> bytes:
    """A room of a section, from its members."""
    return b"%b:{%b}" % (quoted(room_id), b",".join(members))


def summary(joined: int | None, invited: int | None, heroes: Sequence[str] | None) -> bytes:
    """The member `summary`; what is None has not changed."""
    parts: dict[str, object] = {}
    if heroes is not None:
        parts["m.heroes"] = list(heroes)
    if joined is not None:
        parts["m.joined_member_count"] = joined
    if invited is not None:
        parts["m.invited_member_count"] = invited
    return b'"summary":' + orjson.dumps(parts)


def account_data_event(kind: str, content: bytes) -> bytes:
    """An event of account data; its content is JSON already."""
    return b'{"content":%b,"type":%b}' % (content, quoted(kind))


def typing_event(users: Sequence[str]) -> bytes:
    """m.typing."""
    return b'{"content":{"user_ids":%b},"type":"m.typing"}' % orjson.dumps(list(users))


def receipt_events(receipts: Iterable[Receipt]) -> list[bytes]:
    """m.receipt events that carry the receipts, as few as can hold them: a user may have one of a type per event."""
    contents: list[dict[str, dict[str, dict[str, dict[str, object]]]]] = []
    # Within one response the last of a user's receipts of a kind is the one that counts.
    latest = {(receipt.user_id, receipt.receipt_type, receipt.thread_id): receipt for receipt in receipts}
    for receipt in latest.values():
        value: dict[str, object] = {"ts": receipt.ts}
        if receipt.thread_id:
            value["thread_id"] = receipt.thread_id
        for content in contents:
            users = content.setdefault(receipt.event_id, {}).setdefault(receipt.receipt_type, {})
            if users.get(receipt.user_id, value).get("thread_id") == value.get("thread_id"):
                users[receipt.user_id] = value
                break
        else:
            contents.append({receipt.event_id: {receipt.receipt_type: {receipt.user_id: value}}})
    return [b'{"content":%b,"type":"m.receipt"}' % orjson.dumps(content) for content in contents]
