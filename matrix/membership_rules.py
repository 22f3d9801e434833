"""Authorisation of m.room.member events: every transition between memberships, and who may bring it about.

Part of `auth_rules`, which is what others call. Comments number the rules as room version 12 does (rule 5).
Source: "Authorisation rules" of each room version; server-server API, "Verifying the invite".
"""

from __future__ import annotations

from typing import Any

from matrix.auth_selection import AuthError, StateMap
from matrix.events import Event
from matrix.identifiers import is_user_id
from matrix.power_levels import PowerLevels, creators_of
from matrix.room_versions import RoomVersion
from matrix.third_party_invites import THIRD_PARTY_INVITE, TooManySignatures, verifying_key

__all__ = ["check_member", "membership_of"]


def membership_of(state: StateMap, user_id: str) -> str:
    """The membership that a state gives a user; `leave` if none or malformed."""
    member = state.get(("m.room.member", user_id))
    if member is None:
        return "leave"
    membership = member.content.get("membership")
    return membership if isinstance(membership, str) else "leave"


def check_member(event: Event, state: StateMap, create: Event, levels: PowerLevels) -> None:
    """Rule 5 of the authorisation rules. Raises AuthError, or BadPowerLevel for malformed levels."""
    rules = create.room_version
    content = event.content
    # 5.1 There is a state key and a membership.
    if event.state_key is None:
        raise AuthError("A membership needs a state key.")
    if "membership" not in content:
        raise AuthError("A membership event needs a membership.")
    # The state key is the target user, so it has to be one.
    if not is_user_id(event.state_key):
        raise AuthError("The state key of a membership is not a user ID.")
    membership = content["membership"]
    if membership == "join":
        _check_join(event, state, create, levels)
    elif membership == "invite":
        _check_invite(event, state, levels)
    elif membership == "leave":
        _check_leave(event, state, levels)
    elif membership == "ban":
        _check_ban(event, state, levels)
    elif membership == "knock" and rules.knocking:
        _check_knock(event, state, rules)
    else:
        # 5.8 No other membership exists.
        raise AuthError("The membership is unknown.")


def _join_rule(state: StateMap) -> Any:
    join_rules = state.get(("m.room.join_rules", ""))
    return "invite" if join_rules is None else join_rules.content.get("join_rule", "invite")


def _check_join(event: Event, state: StateMap, create: Event, levels: PowerLevels) -> None:
    rules = create.room_version
    user = event.state_key
    assert user is not None
    # 5.3.1 The first to join, directly after the create event, is its sender (the creator, before version 11). Additional
    # creators join like anybody.
    if event.prev_events == (create.event_id,) and creators_of(create)[:1] == (user,):
        return
    # 5.3.2 A join is sent by who joins, …
    if event.sender != user:
        raise AuthError("Nobody can join for somebody else.")
    current = membership_of(state, user)
    # 5.3.3 … unless banned.
    if current == "ban":
        raise AuthError("The user is banned.")
    join_rule = _join_rule(state)
    # 5.3.6 The public joins a public room.
    if join_rule == "public":
        return
    invited = current in ("invite", "join")
    # 5.3.4 A room by invitation is joined by who is invited, or changed by who is joined; one to knock on likewise, since
    # a knock is answered with an invite.
    if join_rule == "invite" or (join_rule == "knock" and rules.knocking):
        if not invited:
            raise AuthError("The room is joined by invitation, and the user has none.")
        return
    # 5.3.5 A restricted room is joined …
    if (join_rule == "restricted" and rules.restricted_join_rule) or (
        join_rule == "knock_restricted" and rules.knock_restricted_join_rule
    ):
        # 5.3.5.1 … in the same way, …
        if invited:
            return
        # 5.3.5.2 … or with the authorisation of a joined member whose level is enough to invite.
        authoriser = event.content.get("join_authorised_via_users_server")
        if not isinstance(authoriser, str) or membership_of(state, authoriser) != "join":
            raise AuthError("No member of the room has authorised the join.")
        if levels.of_user(authoriser) < levels.named("invite"):
            raise AuthError("The member who has authorised the join may not invite.")
        return
    # 5.3.7
    raise AuthError("The join rule does not let the user join.")


def _check_invite(event: Event, state: StateMap, levels: PowerLevels) -> None:
    target = event.state_key
    assert target is not None
    if "third_party_invite" in event.content:
        _check_third_party_invite(event, state)
        return
    # 5.4.2 Members invite, …
    if membership_of(state, event.sender) != "join":
        raise AuthError("The inviter is not joined to the room.")
    # 5.4.3 … whom neither a membership nor a ban makes it pointless to invite, …
    current = membership_of(state, target)
    if current in ("join", "ban"):
        raise AuthError("The invited user is banned." if current == "ban" else "The invited user is already joined.")
    # 5.4.4 … if they have the invite level.
    if levels.of_user(event.sender) < levels.named("invite"):
        raise AuthError("The inviter's power level does not allow inviting.")


def _check_third_party_invite(event: Event, state: StateMap) -> None:
    """Rule 5.4.1."""
    target = event.state_key
    assert target is not None
    # 1. The target is not banned.
    if membership_of(state, target) == "ban":
        raise AuthError("The invited user is banned.")
    # 2. There is something signed …
    invite = event.content["third_party_invite"]
    signed = invite.get("signed") if isinstance(invite, dict) else None
    if not isinstance(signed, dict):
        raise AuthError("The third-party invite is not signed.")
    # 3. … that says whom it is for and which invitation it answers; …
    mxid, token = signed.get("mxid"), signed.get("token")
    if not isinstance(mxid, str) or not isinstance(token, str):
        raise AuthError("The third-party invite lacks mxid or token.")
    # 4. … it is for the target, …
    if mxid != target:
        raise AuthError("The third-party invite is for another user.")
    # 5. … the invitation is in the room, …
    invitation = state.get((THIRD_PARTY_INVITE, token))
    if invitation is None:
        raise AuthError("There is no third-party invite with this token.")
    # 6. … made by who now sends the invite, …
    if event.sender != invitation.sender:
        raise AuthError("The third-party invite was made by another user.")
    # 7. … and one of its public keys verifies one of the signatures.
    strict = event.room_version.enforce_canonical_json
    try:
        verified = verifying_key(signed, invitation.content, strict=strict)
    except TooManySignatures:
        raise AuthError("The third-party invite has too many signatures.") from None
    if verified is None:
        # 8.
        raise AuthError("No signature of the third-party invite matches.")


def _check_leave(event: Event, state: StateMap, levels: PowerLevels) -> None:
    target = event.state_key
    assert target is not None
    current = membership_of(state, target)
    # 5.5.1 Whoever is in the room, invited or knocking may leave of their own accord; others have nothing to leave.
    if event.sender == target:
        if current in ("invite", "join") or (current == "knock" and event.room_version.knocking):
            return
        raise AuthError("The user is not in the room, invited to it, or knocking.")
    # 5.5.2 Members alone make others leave.
    if membership_of(state, event.sender) != "join":
        raise AuthError("The sender is not joined to the room.")
    level = levels.of_user(event.sender)
    # 5.5.3 To unban somebody takes the ban level, …
    if current == "ban" and level < levels.named("ban"):
        raise AuthError("The sender's power level does not allow unbanning.")
    # 5.5.4 … and like any kick the kick level and more power than the target has.
    if level < levels.named("kick"):
        raise AuthError("The sender's power level does not allow kicking.")
    if levels.of_user(target) >= level:
        raise AuthError("The sender's power level is not above that of the user.")


def _check_ban(event: Event, state: StateMap, levels: PowerLevels) -> None:
    target = event.state_key
    assert target is not None
    # 5.6.1 Members ban, …
    if membership_of(state, event.sender) != "join":
        raise AuthError("The sender is not joined to the room.")
    level = levels.of_user(event.sender)
    # 5.6.2 … if they have the ban level and more power than the target.
    if level < levels.named("ban"):
        raise AuthError("The sender's power level does not allow banning.")
    if levels.of_user(target) >= level:
        raise AuthError("The sender's power level is not above that of the user.")


def _check_knock(event: Event, state: StateMap, rules: RoomVersion) -> None:
    # 5.7.1 The room can be knocked on.
    join_rule = _join_rule(state)
    if join_rule != "knock" and not (join_rule == "knock_restricted" and rules.knock_restricted_join_rule):
        raise AuthError("The join rule does not let the user knock.")
    # 5.7.2 A knock is sent by who knocks, …
    if event.sender != event.state_key:
        raise AuthError("Nobody can knock for somebody else.")
    # 5.7.3 … who is neither in the room, nor invited to it, nor banned from it.
    current = membership_of(state, event.sender)
    if current in ("ban", "invite", "join"):
        raise AuthError(f"The user's membership is {current}.")
