"""Authorisation rules: may this event be in its room?

Two checks, as the rules split: `check_event_alone` once per event, against the auth events that it lists; and
`check_against_state` once per state that matters (at its auth events, before it, now). The comments name the rules of
the specification, numbered as in room version 12 unless they say otherwise. Signatures are checked before.
Source: "Authorisation rules" of each room version; server-server API, "Auth events selection".
"""

from __future__ import annotations

from collections.abc import Mapping

from matrix.auth_selection import AuthError, StateMap, UnknownAuthEvent, auth_event_keys
from matrix.events import Event
from matrix.identifiers import is_user_id, server_name_of
from matrix.membership_rules import check_member
from matrix.power_level_rules import check_power_levels
from matrix.power_levels import BadPowerLevel, PowerLevels
from matrix.room_versions import ROOM_VERSIONS

__all__ = [
    "AuthError",
    "StateMap",
    "UnknownAuthEvent",
    "auth_event_keys",
    "check_against_state",
    "check_event_alone",
]

_CREATE = ("m.room.create", "")
_POWER_LEVELS = ("m.room.power_levels", "")


def check_event_alone(event: Event, auth_events_by_id: Mapping[str, Event]) -> None:
    """Apply the rules that depend on the event and on the auth events that it lists (rules 1 to 3, and 5.2).

    `auth_events_by_id` holds the event's auth events and, where the room id is that of the create event, the create
    event too. Raises AuthError, or UnknownAuthEvent for one that is missing there.
    """
    rules = event.room_version
    if event.type == "m.room.create":
        _check_create(event)
        return

    # 2. The room id, with the sigil $ in place of !, is the id of a create event that was accepted.
    if rules.room_id_is_create_event_id:
        create_id = "$" + event.room_id[1:]
        create = auth_events_by_id.get(create_id)
        if create is None:
            raise UnknownAuthEvent(create_id)
        if create.type != "m.room.create" or create.rejected:
            raise AuthError("The room ID does not name an accepted create event.")

    # 3. What the event cites as its auth events:
    expected = auth_event_keys(event.type, event.sender, event.state_key, event.content, rules)
    seen = set()
    for event_id in event.auth_events:
        auth_event = auth_events_by_id.get(event_id)
        if auth_event is None:
            raise UnknownAuthEvent(event_id)
        key = (auth_event.type, auth_event.state_key)
        # 3.1 No pair of type and state key occurs twice.
        if key in seen:
            raise AuthError(f"There are two auth events for {key}.")
        # 3.2 Each is one that the selection would have picked, or could have.
        if key not in expected:
            raise AuthError(f"The auth event {event_id} for {key} is not one to select.")
        # 3.3 None was rejected when it was received.
        if auth_event.rejected:
            raise AuthError(f"The auth event {event_id} was rejected.")
        # 3.5 Each is of the same room.
        if auth_event.room_id != event.room_id:
            raise AuthError(f"The auth event {event_id} is of another room.")
        seen.add(key)
    # 2.4 of versions 1 to 11: the create event is one of them.
    if rules.create_event_in_auth_events and _CREATE not in seen:
        raise AuthError("There is no create event among the auth events.")

    # 5.2 A join that names a user who authorises it carries the signature of that user's server. That signatures are
    # valid has been checked before; that this one is there is left.
    if event.type == "m.room.member" and rules.restricted_join_rule:
        authoriser = event.content.get("join_authorised_via_users_server")
        if "join_authorised_via_users_server" in event.content and (
            not isinstance(authoriser, str) or not event.pdu["signatures"].get(server_name_of(authoriser))
        ):
            raise AuthError("The server that authorises the join has not signed it.")


def _check_create(event: Event) -> None:
    rules = event.room_version
    # 1.1 Nothing comes before it.
    if event.prev_events:
        raise AuthError("A create event has no previous events.")
    if rules.room_id_is_create_event_id:
        # 1.2 It has no room id, since its own id is the room's.
        if "room_id" in event.pdu:
            raise AuthError("A create event has no room ID in this room version.")
    # 1.2 before version 12: the room id has the server name of the sender.
    elif server_name_of(event.room_id) != event.sender_server:
        raise AuthError("The room ID is not of the creating server.")
    # 1.3 The room version, if it names one, is one that we know.
    if "room_version" in event.content:
        version = event.content["room_version"]
        if not isinstance(version, str) or version not in ROOM_VERSIONS:
            raise AuthError("The room version is not a recognised one.")
    # 1.4 before version 11: it names a creator.
    if not rules.creator_is_create_sender and "creator" not in event.content:
        raise AuthError("The create event names no creator.")
    # 1.4 The additional creators, if any, are a list of what could be senders.
    if rules.privileged_creators and "additional_creators" in event.content:
        additional = event.content["additional_creators"]
        if not isinstance(additional, list) or not all(is_user_id(user) for user in additional):
            raise AuthError("additional_creators is not a list of user IDs.")


def check_against_state(event: Event, state: StateMap) -> None:
    """Apply the rules that depend on a state of the room (rules 4 to 11). Raises AuthError.

    `state` must answer for the keys of `auth_event_keys` and always for the create event, also in the versions where
    that is not an auth event.
    """
    if event.type == "m.room.create":
        return
    create = state.get(_CREATE)
    if create is None:
        raise AuthError("There is no create event in the state.")
    rules = create.room_version
    sender = event.sender
    # 4. A room that is not federated (m.federate is false in its create event) takes events of the server that made it
    # alone.
    if create.content.get("m.federate") is False and event.sender_server != create.sender_server:
        raise AuthError("The room is not federated, and the sender is of another server.")
    # 4. of versions 1 to 5
    if rules.aliases_by_server and event.type == "m.room.aliases":
        if event.state_key is None or event.state_key != event.sender_server:
            raise AuthError("Aliases are set under the sender's own server name.")
        return
    levels = PowerLevels(create, state.get(_POWER_LEVELS))
    try:
        if event.type == "m.room.member":
            check_member(event, state, create, levels)
            return
        # 6. Only members send anything but memberships.
        member = state.get(("m.room.member", sender))
        if member is None or member.content.get("membership") != "join":
            raise AuthError("The sender is not joined to the room.")
        level = levels.of_user(sender)
        # 7. A third-party invite needs the invite level and nothing else.
        if event.type == "m.room.third_party_invite":
            if level < levels.named("invite"):
                raise AuthError("The sender's power level does not allow inviting.")
            return
        # 8. The sender has the level that the event's type requires.
        if levels.to_send(event.type, is_state=event.is_state) > level:
            raise AuthError(f"The sender's power level does not allow sending {event.type}.")
        # 9. A state key that begins with @ is the sender's own.
        state_key = event.state_key
        if state_key is not None and state_key[:1] == "@" and state_key != sender:
            raise AuthError("The state key is another user's ID.")
        if event.type == "m.room.power_levels":
            check_power_levels(event, create, state.get(_POWER_LEVELS), level)
        elif rules.redactions_need_power and event.type == "m.room.redaction":
            _check_redaction(event, levels, level)
    except BadPowerLevel as error:
        raise AuthError(f"Power levels are malformed: {error}.") from error


def _check_redaction(event: Event, levels: PowerLevels, level: int | float) -> None:
    """Rule 11 of versions 1 and 2."""
    # Who has the redact level redacts anything …
    if level >= levels.named("redact"):
        return
    # … and everybody what has an event id of the same server as the redaction's.
    if event.redacts is None or server_name_of(event.redacts) != server_name_of(event.event_id):
        raise AuthError("The sender's power level does not allow redacting events of other servers.")
