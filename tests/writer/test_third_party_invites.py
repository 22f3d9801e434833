"""Invitations by e-mail address, by way of an identity server, and what comes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from api_server import Api, Client, part, serving, settings_for
from identity_server import TOKEN, IdentityServer, by_address, identifying

from matrix.signatures import SigningKey

CAROL = "carol@post.example"


@pytest_asyncio.fixture(loop_scope="session")
async def both(api: Api, writers_database: str, writers_folder: Path) -> AsyncIterator[tuple[Api, IdentityServer]]:
    # Beside `api`, for it has the room server.
    async with identifying(writers_database, writers_folder) as made:
        yield made


async def membership(client: Client, room_id: str, user: Client) -> str | None:
    answer = await client.get(f"rooms/{room_id}/state/m.room.member/{user.user_id}")
    return answer.ok()["membership"] if answer.status == 200 else None


async def invitation(client: Client, room_id: str, token: str) -> dict[str, Any]:
    return (await client.get(f"rooms/{room_id}/state/m.room.third_party_invite/{token}")).ok()


async def test_who_the_identity_server_knows_is_invited_by_their_id(both: tuple[Api, IdentityServer]) -> None:
    api, there = both
    alice, carol = await api.register(), await api.register()
    there.bindings[CAROL] = carol.user_id
    room_id = await alice.create_room()
    (await alice.post(f"rooms/{room_id}/invite", by_address(there, "Carol@post.example"))).ok()
    assert await membership(alice, room_id, carol) == "invite"
    assert there.invitations == []
    blocked = {"default_action": "block"}
    (await carol.put(f"user/{carol.user_id}/account_data/m.invite_permission_config", blocked)).ok()
    other = await alice.create_room()
    refusal = (await alice.post(f"rooms/{other}/invite", by_address(there, CAROL))).refusal
    assert refusal == (403, "M_INVITE_BLOCKED")


async def test_who_nobody_knows_joins_with_what_the_identity_server_signs(both: tuple[Api, IdentityServer]) -> None:
    api, there = both
    alice, carol = await api.register(), await api.register()
    (await alice.put(f"profile/{alice.user_id}/displayname", {"displayname": "Alice"})).ok()
    room_id = (await alice.post("createRoom", {"name": "Pond"})).ok()["room_id"]
    (await alice.post(f"rooms/{room_id}/invite", by_address(there, CAROL))).ok()
    (asked,) = there.invitations
    assert asked == {
        "medium": "email",
        "address": CAROL,
        "room_id": room_id,
        "sender": alice.user_id,
        "room_name": "Pond",
        "room_join_rules": "invite",
        "sender_display_name": "Alice",
    }
    content = await invitation(alice, room_id, "token1")
    assert content["display_name"] == "c...@p..." and content["public_key"] == there.key.verify_key_base64
    assert content["public_keys"] == [{name: content[name] for name in ("public_key", "key_validity_url")}]

    assert (await carol.post(f"join/{room_id}")).refusal == (403, "M_FORBIDDEN")
    signed = there.signed("token1", alice.user_id, carol.user_id)
    (await carol.post(f"join/{room_id}", {"third_party_signed": signed, "reason": "here I am"})).ok()
    assert await membership(alice, room_id, carol) == "join"
    page = (await alice.get(f"rooms/{room_id}/messages?dir=b&limit=2")).ok()["chunk"]
    assert [(event["sender"], event["content"]["membership"]) for event in page] == [
        (carol.user_id, "join"),
        (alice.user_id, "invite"),
    ]
    assert page[1]["content"]["third_party_invite"] == {"display_name": "c...@p...", "signed": signed}
    # Who is in the room shows nothing any more.
    (await carol.post(f"rooms/{room_id}/join", {"third_party_signed": signed})).ok()
    # Nor does it help who was removed, but for a new invitation.
    (await alice.post(f"rooms/{room_id}/kick", {"user_id": carol.user_id})).ok()
    again = await carol.post(f"join/{room_id}", {"third_party_signed": signed})
    assert again.refusal == (403, "M_FORBIDDEN")
    (await alice.post(f"rooms/{room_id}/invite", by_address(there, CAROL))).ok()
    signed = there.signed("token2", alice.user_id, carol.user_id)
    (await carol.post(f"join/{room_id}", {"third_party_signed": signed})).ok()


async def test_a_proof_that_is_not_ones_own_or_not_of_the_room_lets_nobody_in(both: tuple[Api, IdentityServer]) -> None:
    api, there = both
    alice, carol, eve = await api.register(), await api.register(), await api.register()
    room_id, other = await alice.create_room(), await alice.create_room()
    (await alice.post(f"rooms/{room_id}/invite", by_address(there, CAROL))).ok()
    good = there.signed("token1", alice.user_id, carol.user_id)
    attempts: list[tuple[Client, str, Any, tuple[int, str]]] = [
        (eve, room_id, good, (403, "M_FORBIDDEN")),
        (carol, other, good, (403, "M_FORBIDDEN")),
        (carol, room_id, {**good, "token": "token2"}, (403, "M_FORBIDDEN")),
        (carol, room_id, {**good, "token": "t" * 300}, (403, "M_FORBIDDEN")),
        (carol, room_id, {**good, "token": "nul\0"}, (403, "M_FORBIDDEN")),
        (carol, room_id, {**good, "more": 1}, (403, "M_FORBIDDEN")),
        (carol, room_id, {**good, "more": 1.5}, (403, "M_FORBIDDEN")),
        (carol, room_id, {**good, "signatures": {}}, (403, "M_FORBIDDEN")),
        (carol, room_id, {**good, "signatures": {"a": 5, "b": {"ed25519:0": 5}}}, (403, "M_FORBIDDEN")),
        (carol, room_id, there.signed("token1", eve.user_id, carol.user_id), (403, "M_FORBIDDEN")),
        (carol, room_id, there.signed("token1", "@a:elsewhere.example", carol.user_id), (403, "M_FORBIDDEN")),
        (carol, room_id, {"mxid": carol.user_id}, (400, "M_BAD_JSON")),
        (carol, room_id, {**good, "signatures": 5}, (400, "M_BAD_JSON")),
        (carol, room_id, 5, (400, "M_BAD_JSON")),
    ]
    stranger = SigningKey("ed25519:0", bytes(32))
    forged = there.signed("token1", alice.user_id, carol.user_id, stranger)
    for client, where, signed, refusal in [*attempts, (carol, room_id, forged, (403, "M_FORBIDDEN"))]:
        answer = await client.post(f"rooms/{where}/join", {"third_party_signed": signed})
        assert answer.refusal == refusal, (signed, answer.body)
    there.valid = False
    assert (await carol.post(f"join/{room_id}", {"third_party_signed": good})).refusal == (403, "M_FORBIDDEN")
    there.valid = True
    (await alice.post(f"rooms/{room_id}/ban", {"user_id": carol.user_id})).ok()
    assert (await carol.post(f"join/{room_id}", {"third_party_signed": good})).refusal == (403, "M_FORBIDDEN")
    (await alice.post(f"rooms/{room_id}/unban", {"user_id": carol.user_id})).ok()
    (await alice.post(f"rooms/{room_id}/invite", by_address(there, "dave@post.example"))).ok()
    state = (await alice.get(f"rooms/{room_id}/state")).body
    (redacted,) = [event["event_id"] for event in state if event["state_key"] == "token2"]
    (await alice.put(f"rooms/{room_id}/redact/{part(redacted)}/1", {})).ok()
    of_dave = there.signed("token2", alice.user_id, carol.user_id)
    assert (await carol.post(f"join/{room_id}", {"third_party_signed": of_dave})).refusal == (403, "M_FORBIDDEN")
    # An invitation that is taken back has no keys any more.
    (await alice.put(f"rooms/{room_id}/state/m.room.third_party_invite/token1", {})).ok()
    assert (await carol.post(f"join/{room_id}", {"third_party_signed": good})).refusal == (403, "M_FORBIDDEN")


async def test_a_key_is_asked_after_at_no_address_inside_the_network(both: tuple[Api, IdentityServer]) -> None:
    api, there = both
    alice, carol = await api.register(), await api.register()
    room_id = await alice.create_room()
    for number, url in enumerate(("http://10.0.0.1/x", "https://169.254.1.1/x", "file:///etc/passwd", "https://", 5)):
        content = {"display_name": "c", "public_key": there.key.verify_key_base64, "key_validity_url": url}
        token = f"own{number}"
        (await alice.put(f"rooms/{room_id}/state/m.room.third_party_invite/{token}", content)).ok()
        signed = there.signed(token, alice.user_id, carol.user_id)
        assert (await carol.post(f"join/{room_id}", {"third_party_signed": signed})).refusal == (502, "M_UNKNOWN")
    assert await membership(alice, room_id, carol) is None


async def test_a_room_is_made_with_invitations_by_address(both: tuple[Api, IdentityServer]) -> None:
    api, there = both
    alice, carol = await api.register(), await api.register()
    there.bindings[CAROL] = carol.user_id
    asked = {"invite_3pid": [by_address(there, CAROL), by_address(there, "dave@post.example")]}
    room_id = (await alice.post("createRoom", asked)).ok()["room_id"]
    assert await membership(alice, room_id, carol) == "invite"
    assert (await invitation(alice, room_id, "token1"))["display_name"] == "c...@p..."
    for wrong, refusal in (
        ({"invite_3pid": [{}]}, (400, "M_MISSING_PARAM")),
        ({"invite_3pid": [by_address(there, CAROL)] * 11}, (413, "M_TOO_LARGE")),
        ({"invite_3pid": [by_address(there, CAROL, id_server="other.example")]}, (403, "M_SERVER_NOT_TRUSTED")),
    ):
        assert (await alice.post("createRoom", wrong)).refusal == refusal


async def test_no_room_is_made_twice_because_an_identity_server_fails(both: tuple[Api, IdentityServer]) -> None:
    api, there = both
    alice, carol = await api.register(), await api.register()
    there.bindings[CAROL] = carol.user_id
    asked = {
        "is_direct": True,
        "room_alias_name": f"dm{alice.user_id[1:].partition(':')[0]}",
        "invite_3pid": [by_address(there, "dave@post.example"), by_address(there, CAROL)],
    }
    there.broken = frozenset({"lookup"})
    assert (await alice.post("createRoom", asked)).refusal == (502, "M_UNKNOWN")
    assert (await alice.get("joined_rooms")).ok()["joined_rooms"] == []
    there.broken = frozenset({"store-invite"})
    # Once the room is there, it is what the client has to know.
    room_id = (await alice.post("createRoom", asked)).ok()["room_id"]
    assert (await alice.get("joined_rooms")).ok()["joined_rooms"] == [room_id]
    state = (await alice.get(f"rooms/{room_id}/state")).body
    assert "m.room.third_party_invite" not in {event["type"] for event in state}
    (invite,) = [event["content"] for event in state if event["state_key"] == carol.user_id]
    assert (invite["membership"], invite["is_direct"]) == ("invite", True)


async def test_who_takes_no_invitation_keeps_a_room_from_being_made(both: tuple[Api, IdentityServer]) -> None:
    api, there = both
    alice, carol = await api.register(), await api.register()
    there.bindings |= {CAROL: carol.user_id, "erin@post.example": "@erin:elsewhere.example"}
    blocked = {"default_action": "block"}
    (await carol.put(f"user/{carol.user_id}/account_data/m.invite_permission_config", blocked)).ok()
    for address, refusal in ((CAROL, (403, "M_INVITE_BLOCKED")), ("erin@post.example", (403, "M_FORBIDDEN"))):
        asked = {"invite_3pid": [by_address(there, address)]}
        assert (await alice.post("createRoom", asked)).refusal == refusal
    assert (await alice.get("joined_rooms")).ok()["joined_rooms"] == []


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"id_server": "other.example"}, (403, "M_SERVER_NOT_TRUSTED")),
        ({"id_access_token": None}, (400, "M_MISSING_PARAM")),
        ({"id_access_token": "wrong"}, (403, "M_FORBIDDEN")),
        ({"id_access_token": "a b\n"}, (400, "M_INVALID_PARAM")),
        ({"medium": "msisdn"}, (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")),
        ({"address": "nobody"}, (400, "M_INVALID_PARAM")),
        ({"address": 5}, (400, "M_BAD_JSON")),
    ],
)
async def test_an_invitation_by_address_that_cannot_be_is_refused(
    both: tuple[Api, IdentityServer], change: dict[str, Any], refusal: tuple[int, str]
) -> None:
    api, there = both
    alice = await api.register()
    room_id = await alice.create_room()
    body = by_address(there, CAROL, **change)
    assert (await alice.post(f"rooms/{room_id}/invite", body)).refusal == refusal
    assert there.invitations == []


async def test_who_may_not_invite_has_nobody_written_to(both: tuple[Api, IdentityServer]) -> None:
    api, there = both
    alice, eve = await api.register(), await api.register()
    room_id = await alice.create_room()
    assert (await eve.post(f"rooms/{room_id}/invite", by_address(there, CAROL))).refusal == (403, "M_FORBIDDEN")
    levels = (await alice.get(f"rooms/{room_id}/state/m.room.power_levels")).ok()
    (await alice.put(f"rooms/{room_id}/state/m.room.power_levels", {**levels, "invite": 50})).ok()
    (await alice.post(f"rooms/{room_id}/invite", {"user_id": eve.user_id})).ok()
    (await eve.post(f"join/{room_id}")).ok()
    assert (await eve.post(f"rooms/{room_id}/invite", by_address(there, CAROL))).refusal == (403, "M_FORBIDDEN")
    assert there.invitations == []


async def test_an_identity_server_that_is_not_there_is_told_of(
    api: Api, writers_database: str, writers_folder: Path
) -> None:
    gone = {"WALDEN_IDENTITY_TRUSTED_SERVERS": "127.0.0.1:1", "WALDEN_IDENTITY_ALLOWED_NETWORKS": "127.0.0.0/8"}
    async with serving(settings_for(writers_database, writers_folder, **gone)) as other:
        alice = await other.register()
        room_id = await alice.create_room()
        body = {"id_server": "127.0.0.1:1", "id_access_token": TOKEN, "medium": "email", "address": CAROL}
        assert (await alice.post(f"rooms/{room_id}/invite", body)).refusal == (502, "M_UNKNOWN")
