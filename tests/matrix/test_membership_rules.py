"""The authorisation rules for memberships: every transition, and who may bring it about."""

from __future__ import annotations

from typing import Any

import pytest
from auth_rooms import ALICE, ALL_VERSIONS, BOB, CREATOR, REMOTE, AuthRoom, from_version, until_version

from matrix.signatures import SigningKey, sign_json

MEMBERSHIPS = ["join", "invite", "leave", "ban", "knock"]


@pytest.fixture(params=ALL_VERSIONS)
def room(request: pytest.FixtureRequest) -> AuthRoom:
    """A room of each version with ALICE joined at 50 and default levels otherwise."""
    room = AuthRoom(request.param)
    room.power(users={ALICE: 50})
    room.member(ALICE, "join")
    return room


# 5.1


def test_a_membership_without_state_key_is_rejected(room: AuthRoom) -> None:
    assert "state key" in room.refusal(room.event("m.room.member", ALICE, None, {"membership": "join"}))


def test_a_membership_event_without_membership_is_rejected(room: AuthRoom) -> None:
    assert "needs a membership" in room.refusal(room.event("m.room.member", ALICE, ALICE, {}))


@pytest.mark.parametrize("state_key", ["", "bob", "bob:x", "@bob"])
def test_a_membership_of_what_is_no_user_is_rejected(room: AuthRoom, state_key: str) -> None:
    assert "not a user ID" in room.refusal(room.transition(CREATOR, state_key, "ban"))


@pytest.mark.parametrize("membership", ["", "joined", "JOIN", None, 1, [], {}, True])
def test_an_unknown_membership_is_rejected(room: AuthRoom, membership: Any) -> None:
    assert "unknown" in room.refusal(room.transition(ALICE, ALICE, membership))


# 5.3 join


def test_the_creator_joins_right_after_the_create_event(room: AuthRoom) -> None:
    room.state = {("m.room.create", ""): room.create}
    assert room.allows(room.event("m.room.member", CREATOR, CREATOR, {"membership": "join"}, prev_events=["$c"]))


def test_nobody_else_joins_right_after_the_create_event(room: AuthRoom) -> None:
    room.state = {("m.room.create", ""): room.create}
    assert not room.allows(room.event("m.room.member", ALICE, ALICE, {"membership": "join"}, prev_events=["$c"]))


def test_the_creator_joins_later_like_anybody(room: AuthRoom) -> None:
    room.state = {("m.room.create", ""): room.create}
    for prev_events in (["$other"], ["$c", "$other"], []):
        join = room.event("m.room.member", CREATOR, CREATOR, {"membership": "join"}, prev_events=prev_events)
        assert not room.allows(join)


def test_of_several_creators_the_sender_of_the_create_event_joins_first() -> None:
    room = AuthRoom("12", additional_creators=[ALICE])
    room.state = {("m.room.create", ""): room.create}
    assert room.allows(room.event("m.room.member", CREATOR, CREATOR, {"membership": "join"}, prev_events=["$c"]))
    assert not room.allows(room.event("m.room.member", ALICE, ALICE, {"membership": "join"}, prev_events=["$c"]))


def test_nobody_joins_for_somebody_else(room: AuthRoom) -> None:
    room.join_rule("public")
    room.member(BOB, "invite")
    assert "somebody else" in room.refusal(room.transition(ALICE, BOB, "join"))
    assert "somebody else" in room.refusal(room.transition(CREATOR, BOB, "join"))


@pytest.mark.parametrize("join_rule", ["public", "invite", "knock", "restricted", "knock_restricted", "private"])
def test_a_banned_user_does_not_join(room: AuthRoom, join_rule: str) -> None:
    room.join_rule(join_rule)
    room.member(BOB, "ban")
    assert "banned" in room.refusal(room.transition(BOB, BOB, "join"))


@pytest.mark.parametrize("membership", [None, "invite", "join", "leave", "knock"])
def test_anybody_not_banned_joins_a_public_room(room: AuthRoom, membership: str | None) -> None:
    room.join_rule("public")
    if membership is not None:
        room.member(BOB, membership)
    assert room.allows(room.transition(BOB, BOB, "join"))


def _joins_with(room: AuthRoom, join_rule: Any) -> set[str]:
    """The memberships from which a user joins under a join rule, without anybody's authorisation."""
    room.join_rule(join_rule)
    allowed = set()
    for membership in MEMBERSHIPS:
        room.member(BOB, membership)
        if room.allows(room.transition(BOB, BOB, "join")):
            allowed.add(membership)
    return allowed


def test_an_invite_room_is_joined_by_who_is_invited_or_already_joined(room: AuthRoom) -> None:
    assert _joins_with(room, "invite") == {"invite", "join"}


def test_without_join_rules_a_room_is_joined_by_invitation(room: AuthRoom) -> None:
    assert not room.allows(room.transition(BOB, BOB, "join"))
    room.member(BOB, "invite")
    assert room.allows(room.transition(BOB, BOB, "join"))


def test_join_rules_that_name_none_are_invite(room: AuthRoom) -> None:
    room.set("m.room.join_rules", {})
    room.member(BOB, "invite")
    assert room.allows(room.transition(BOB, BOB, "join"))
    room.member(BOB, "leave")
    assert not room.allows(room.transition(BOB, BOB, "join"))


@pytest.mark.parametrize("join_rule", ["private", "x", "", None, 1, {}])
def test_an_unknown_join_rule_lets_nobody_join(room: AuthRoom, join_rule: Any) -> None:
    assert _joins_with(room, join_rule) == set()


@pytest.mark.parametrize(("join_rule", "since"), [("knock", 7), ("restricted", 8), ("knock_restricted", 10)])
def test_a_join_rule_works_like_invite_from_the_version_that_knows_it(join_rule: str, since: int) -> None:
    for version in ALL_VERSIONS:
        room = AuthRoom(version)
        room.power()
        assert _joins_with(room, join_rule) == ({"invite", "join"} if int(version) >= since else set())


RESTRICTED = [(version, "restricted") for version in from_version(8)]
RESTRICTED += [(version, "knock_restricted") for version in from_version(10)]


@pytest.mark.parametrize(("version", "join_rule"), RESTRICTED)
def test_a_restricted_room_is_joined_with_the_authorisation_of_a_member_who_may_invite(
    version: str, join_rule: str
) -> None:
    room = AuthRoom(version)
    room.join_rule(join_rule)
    room.power(users={ALICE: 10}, invite=10)
    room.member(ALICE, "join")
    join = room.transition(BOB, BOB, "join", join_authorised_via_users_server=ALICE)
    assert room.allows(join)
    room.power(users={ALICE: 10}, invite=11)
    assert "may not invite" in room.refusal(join)
    room.power(users={ALICE: 10}, invite=10)
    for membership in ("leave", "invite", "ban", "knock"):
        room.member(ALICE, membership)
        assert "No member" in room.refusal(join)


@pytest.mark.parametrize("authoriser", [None, "", 1, [], "@nobody:x", "x"])
def test_a_restricted_room_is_not_joined_with_the_authorisation_of_nobody(authoriser: Any) -> None:
    room = AuthRoom("12")
    room.join_rule("restricted")
    join = room.transition(BOB, BOB, "join", join_authorised_via_users_server=authoriser)
    assert "No member" in room.refusal(join)


def test_authorisation_does_not_open_an_invite_room() -> None:
    room = AuthRoom("12")
    room.join_rule("invite")
    assert not room.allows(room.transition(BOB, BOB, "join", join_authorised_via_users_server=CREATOR))


# 5.4 invite


@pytest.mark.parametrize("membership", [None, "invite", "leave", "ban", "knock"])
def test_who_is_not_joined_does_not_invite(room: AuthRoom, membership: str | None) -> None:
    if membership is not None:
        room.member(BOB, membership)
    assert "not joined" in room.refusal(room.transition(BOB, REMOTE, "invite"))


@pytest.mark.parametrize(
    ("membership", "allowed"),
    [(None, True), ("invite", True), ("leave", True), ("knock", True), ("join", False), ("ban", False)],
)
def test_who_is_joined_or_banned_is_not_invited(room: AuthRoom, membership: str | None, allowed: bool) -> None:
    if membership is not None:
        room.member(BOB, membership)
    assert room.allows(room.transition(ALICE, BOB, "invite")) == allowed


def test_inviting_needs_the_invite_level(room: AuthRoom) -> None:
    room.power(users={ALICE: 50}, invite=50)
    assert room.allows(room.transition(ALICE, BOB, "invite"))
    room.power(users={ALICE: 50}, invite=51)
    assert "inviting" in room.refusal(room.transition(ALICE, BOB, "invite"))


# 5.5 leave


def _leaves_from(room: AuthRoom) -> set[str]:
    allowed = set()
    for membership in MEMBERSHIPS:
        room.member(BOB, membership)
        if room.allows(room.transition(BOB, BOB, "leave")):
            allowed.add(membership)
    return allowed


@pytest.mark.parametrize("version", from_version(7))
def test_who_is_joined_invited_or_knocking_leaves(version: str) -> None:
    assert _leaves_from(AuthRoom(version)) == {"join", "invite", "knock"}


@pytest.mark.parametrize("version", until_version(6))
def test_nobody_takes_a_knock_back_before_version_7(version: str) -> None:
    assert _leaves_from(AuthRoom(version)) == {"join", "invite"}


def test_who_never_was_in_the_room_does_not_leave_it(room: AuthRoom) -> None:
    assert not room.allows(room.transition(BOB, BOB, "leave"))


def test_kicking_needs_the_kick_level_and_more_power_than_the_target(room: AuthRoom) -> None:
    room.member(BOB, "join")
    kick = room.transition(ALICE, BOB, "leave")
    room.power(users={ALICE: 50, BOB: 49})
    assert room.allows(kick)
    room.power(users={ALICE: 50, BOB: 50})
    assert "not above" in room.refusal(kick)
    room.power(users={ALICE: 49, BOB: 0})
    assert "kicking" in room.refusal(kick)
    room.power(users={ALICE: 10, BOB: 0}, kick=10)
    assert room.allows(kick)


def test_who_is_not_joined_does_not_kick(room: AuthRoom) -> None:
    room.member(BOB, "join")
    room.member(ALICE, "leave")
    assert "not joined" in room.refusal(room.transition(ALICE, BOB, "leave"))


@pytest.mark.parametrize("membership", ["invite", "knock"])
def test_invitations_and_knocks_are_taken_back_like_kicks(room: AuthRoom, membership: str) -> None:
    room.member(BOB, membership)
    assert room.allows(room.transition(ALICE, BOB, "leave"))


def test_unbanning_needs_the_ban_level_and_the_kick_level(room: AuthRoom) -> None:
    room.member(BOB, "ban")
    unban = room.transition(ALICE, BOB, "leave")
    assert room.allows(unban)
    room.power(users={ALICE: 50}, ban=51)
    assert "unbanning" in room.refusal(unban)
    room.power(users={ALICE: 50}, kick=51)
    assert "kicking" in room.refusal(unban)


# 5.6 ban


@pytest.mark.parametrize("membership", [None, *MEMBERSHIPS])
def test_anybody_below_is_banned(room: AuthRoom, membership: str | None) -> None:
    if membership is not None:
        room.member(BOB, membership)
    assert room.allows(room.transition(ALICE, BOB, "ban"))


def test_banning_needs_the_ban_level_and_more_power_than_the_target(room: AuthRoom) -> None:
    ban = room.transition(ALICE, BOB, "ban")
    room.power(users={ALICE: 49})
    assert "banning" in room.refusal(ban)
    room.power(users={ALICE: 50, BOB: 50})
    assert "not above" in room.refusal(ban)
    room.power(users={ALICE: 10, BOB: 9}, ban=10)
    assert room.allows(ban)


def test_nobody_bans_themselves(room: AuthRoom) -> None:
    assert "not above" in room.refusal(room.transition(ALICE, ALICE, "ban"))


def test_who_is_not_joined_does_not_ban(room: AuthRoom) -> None:
    room.member(ALICE, "leave")
    assert "not joined" in room.refusal(room.transition(ALICE, BOB, "ban"))


# 5.7 knock


def _knocks_with(room: AuthRoom, join_rule: str) -> set[str]:
    room.join_rule(join_rule)
    allowed = set()
    for membership in MEMBERSHIPS:
        room.member(BOB, membership)
        if room.allows(room.transition(BOB, BOB, "knock")):
            allowed.add(membership)
    return allowed


@pytest.mark.parametrize("version", from_version(7))
def test_who_has_left_or_knocked_already_knocks(version: str) -> None:
    assert _knocks_with(AuthRoom(version), "knock") == {"leave", "knock"}


@pytest.mark.parametrize("version", from_version(7))
def test_a_stranger_knocks(version: str) -> None:
    room = AuthRoom(version)
    room.join_rule("knock")
    assert room.allows(room.transition(BOB, BOB, "knock"))


@pytest.mark.parametrize("version", until_version(6))
def test_nobody_knocks_before_version_7(version: str) -> None:
    assert _knocks_with(AuthRoom(version), "knock") == set()


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_knock_restricted_rooms_are_knocked_on_from_version_10_on(version: str) -> None:
    expected = {"leave", "knock"} if int(version) >= 10 else set()
    assert _knocks_with(AuthRoom(version), "knock_restricted") == expected


@pytest.mark.parametrize("join_rule", ["public", "invite", "restricted", "private"])
def test_no_other_join_rule_lets_anybody_knock(join_rule: str) -> None:
    assert _knocks_with(AuthRoom("12"), join_rule) == set()


def test_nobody_knocks_for_somebody_else() -> None:
    room = AuthRoom("12")
    room.join_rule("knock")
    assert "somebody else" in room.refusal(room.transition(CREATOR, BOB, "knock"))


# 5.4.1 third-party invites

IDENTITY_KEY = SigningKey("ed25519:0", bytes(range(32)))
OTHER_KEY = SigningKey("ed25519:0", bytes(32))


def _signed(key: SigningKey = IDENTITY_KEY, **members: Any) -> dict[str, Any]:
    return sign_json({"mxid": BOB, "token": "token", **members}, "id.example", key)


def _third_party_room(version: str, **content: Any) -> AuthRoom:
    room = AuthRoom(version)
    room.power(invite=100)
    room.member(ALICE, "join")
    content = content or {"public_key": IDENTITY_KEY.verify_key_base64}
    room.set("m.room.third_party_invite", {"display_name": "b", **content}, "token", ALICE)
    return room


def _third_party_invite(room: AuthRoom, invite: Any, sender: str = ALICE) -> Any:
    return room.transition(sender, BOB, "invite", third_party_invite=invite)


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_signed_third_party_invite_needs_no_invite_level(version: str) -> None:
    room = _third_party_room(version)
    assert room.allows(_third_party_invite(room, {"display_name": "b", "signed": _signed()}))


def test_a_key_among_the_listed_ones_is_enough() -> None:
    keys = [{"public_key": OTHER_KEY.verify_key_base64}, {"public_key": IDENTITY_KEY.verify_key_base64}, "x", {}]
    room = _third_party_room("12", public_key="bad!", public_keys=keys)
    assert room.allows(_third_party_invite(room, {"signed": _signed()}))


@pytest.mark.parametrize("place", ["public_key", "public_keys"])
def test_a_key_may_be_written_in_the_url_safe_alphabet(place: str) -> None:
    key = IDENTITY_KEY.verify_key_base64.replace("+", "-").replace("/", "_")
    assert "_" in key
    room = _third_party_room("12", **{place: key if place == "public_key" else [{"public_key": key}]})
    assert room.allows(_third_party_invite(room, {"signed": _signed()}))


def test_one_matching_signature_among_several_is_enough() -> None:
    room = _third_party_room("12")
    signed = sign_json(_signed(OTHER_KEY), "id2.example", IDENTITY_KEY)
    assert room.allows(_third_party_invite(room, {"signed": signed}))


def test_a_banned_user_is_not_invited_by_third_party_invite() -> None:
    room = _third_party_room("12")
    room.member(BOB, "ban")
    assert "banned" in room.refusal(_third_party_invite(room, {"signed": _signed()}))


@pytest.mark.parametrize("invite", [None, "x", [], {}, {"signed": None}, {"signed": "x"}])
def test_a_third_party_invite_that_is_not_signed_is_rejected(invite: Any) -> None:
    room = _third_party_room("12")
    assert "not signed" in room.refusal(_third_party_invite(room, invite))


@pytest.mark.parametrize("member", ["mxid", "token"])
@pytest.mark.parametrize("value", [None, 1, []])
def test_a_third_party_invite_without_mxid_or_token_is_rejected(member: str, value: Any) -> None:
    room = _third_party_room("12")
    assert "lacks" in room.refusal(_third_party_invite(room, {"signed": _signed(**{member: value})}))


def test_a_third_party_invite_for_another_user_is_rejected() -> None:
    room = _third_party_room("12")
    assert "another user" in room.refusal(_third_party_invite(room, {"signed": _signed(mxid=REMOTE)}))


def test_a_third_party_invite_with_an_unknown_token_is_rejected() -> None:
    room = _third_party_room("12")
    assert "no third-party invite" in room.refusal(_third_party_invite(room, {"signed": _signed(token="t2")}))


def test_a_third_party_invite_of_another_sender_is_rejected() -> None:
    room = _third_party_room("12")
    assert "made by another" in room.refusal(_third_party_invite(room, {"signed": _signed()}, CREATOR))


@pytest.mark.parametrize(
    "signed",
    [
        _signed(OTHER_KEY),
        {**_signed(), "extra": 1},
        {"mxid": BOB, "token": "token"},
        {**_signed(), "signatures": []},
        {**_signed(), "signatures": {"id.example": "x", "other": {"ed25519:0": 1}}},
        {**_signed(), "signatures": {"id.example": {"rsa:0": _signed()["signatures"]["id.example"]["ed25519:0"]}}},
    ],
)
def test_a_third_party_invite_without_a_matching_signature_is_rejected(signed: dict[str, Any]) -> None:
    room = _third_party_room("12")
    assert "matches" in room.refusal(_third_party_invite(room, {"signed": signed}))


def test_a_third_party_invite_without_public_keys_is_rejected() -> None:
    room = _third_party_room("12", public_keys="x")
    assert "matches" in room.refusal(_third_party_invite(room, {"signed": _signed()}))


def test_a_third_party_invite_does_not_keep_the_server_busy() -> None:
    keys = [{"public_key": SigningKey("ed25519:0", bytes([n]) * 32).verify_key_base64} for n in range(20)]
    room = _third_party_room("12", public_keys=keys)
    signatures = {f"s{n}": {"ed25519:0": _signed()["signatures"]["id.example"]["ed25519:0"]} for n in range(20)}
    assert "too many" in room.refusal(_third_party_invite(room, {"signed": {**_signed(), "signatures": signatures}}))
