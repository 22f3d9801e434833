"""What a new room begins with: the request's options as the list of its first events, in the specification's order.

Pure: no database, no clock. Source: client-server API, "Creation", POST /createRoom.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from matrix.canonical import check_canonical
from matrix.errors import MatrixError, bad_json, invalid_param, too_large, unsupported_room_version
from matrix.identifiers import fits, is_user_id
from matrix.power_levels import BadPowerLevel, check_integers
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from writer.drafts import Draft
from writer.requests import Body, boolean, json_list, json_object, text, texts

PRESETS: Final[dict[str, dict[str, dict[str, str]]]] = {
    "private_chat": {
        "m.room.join_rules": {"join_rule": "invite"},
        "m.room.history_visibility": {"history_visibility": "shared"},
        "m.room.guest_access": {"guest_access": "can_join"},
    },
    "trusted_private_chat": {
        "m.room.join_rules": {"join_rule": "invite"},
        "m.room.history_visibility": {"history_visibility": "shared"},
        "m.room.guest_access": {"guest_access": "can_join"},
    },
    "public_chat": {
        "m.room.join_rules": {"join_rule": "public"},
        "m.room.history_visibility": {"history_visibility": "shared"},
        "m.room.guest_access": {"guest_access": "forbidden"},
    },
}
MOST_INVITES = 100
MOST_THIRD_PARTY_INVITES = 10
"""For each of them an identity server is asked, up to three times."""
MOST_INITIAL_STATE = 500
# Made by the server alone, whatever initial_state says.
_NOT_INITIAL = ("m.room.create", "m.room.member")


@dataclass(slots=True)
class RoomPlan:
    """A request to make a room, checked. `alias_localpart` is None when none is wanted."""

    creator: str
    version: RoomVersion
    preset: str
    published: bool
    alias_localpart: str | None
    invite: list[str]
    is_direct: bool
    name: str | None
    topic: str | None
    create_content: dict[str, Any]
    power_levels: dict[str, Any]
    initial_state: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    third_party: list[Body] = field(default_factory=list)

    def create(self, room_id: str) -> Draft:
        """The create event; `room_id` is without meaning where the room's id is made from the event."""
        return Draft(room_id, self.creator, "m.room.create", self.create_content, state_key="")

    def rest(self, room_id: str, alias: str | None, members: dict[str, dict[str, str]]) -> list[Draft]:
        """What follows the create event. `members` has what member events say of the creator and of those invited."""
        drafts: list[Draft] = []

        def add(event_type: str, content: dict[str, Any], state_key: str = "") -> None:
            drafts.append(Draft(room_id, self.creator, event_type, content, state_key=state_key))

        # "2. An m.room.member event for the creator to join the room."
        add("m.room.member", {"membership": "join", **members.get(self.creator, {})}, self.creator)
        # "3. A default m.room.power_levels event."
        given = self.initial_state.get(("m.room.power_levels", ""))
        add("m.room.power_levels", self.power_levels if given is None else given)
        # "4. An m.room.canonical_alias event if room_alias_name is given."
        if alias is not None and ("m.room.canonical_alias", "") not in self.initial_state:
            add("m.room.canonical_alias", {"alias": alias})
        # "5. Events set by the preset." initial_state "takes precedence over events set by preset".
        for event_type, content in PRESETS[self.preset].items():
            if (event_type, "") not in self.initial_state:
                add(event_type, dict(content))
        # "6. Events listed in initial_state, in the order that they are listed", but "overridden by name and topic".
        overridden = {
            ("m.room.power_levels", ""),
            *([("m.room.name", "")] if self.name is not None else []),
            *([("m.room.topic", "")] if self.topic is not None else []),
        }
        for (event_type, state_key), content in self.initial_state.items():
            if (event_type, state_key) not in overridden:
                add(event_type, content, state_key)
        # "7. Events implied by name and topic"
        if self.name is not None:
            add("m.room.name", {"name": self.name})
        if self.topic is not None:
            # "an m.room.topic event with a text/plain mimetype"
            add("m.room.topic", {"topic": self.topic, "m.topic": {"m.text": [{"body": self.topic}]}})
        # "8. Invite events"
        for user_id in self.invite:
            direct = {"is_direct": True} if self.is_direct else {}
            add("m.room.member", {"membership": "invite", **members.get(user_id, {}), **direct}, user_id)
        return drafts


def plan_room(body: Body, creator: str, default_version: str) -> RoomPlan:
    """The plan of a request's body. M_BAD_JSON, M_INVALID_PARAM, M_UNSUPPORTED_ROOM_VERSION, M_TOO_LARGE, M_INVALID_ROOM_STATE."""
    version_name = text(body, "room_version") or default_version
    version = ROOM_VERSIONS.get(version_name)
    if version is None:
        raise unsupported_room_version(version_name)
    visibility = text(body, "visibility") or "private"
    if visibility not in ("public", "private"):
        raise invalid_param("visibility must be public or private.")
    preset = text(body, "preset") or ("public_chat" if visibility == "public" else "private_chat")
    if preset not in PRESETS:
        raise invalid_param("There is no such preset.")
    invite = list(dict.fromkeys(texts(body, "invite", MOST_INVITES)))
    if not all(is_user_id(user_id) for user_id in invite):
        raise invalid_param("invite must hold user IDs.")
    third_party = json_list(body, "invite_3pid", MOST_THIRD_PARTY_INVITES)
    if not all(isinstance(one, dict) for one in third_party):
        raise bad_json("invite_3pid must hold objects.")
    trusted = invite if preset == "trusted_private_chat" else []
    plan = RoomPlan(
        creator=creator,
        version=version,
        preset=preset,
        published=visibility == "public",
        alias_localpart=_alias_localpart(text(body, "room_alias_name")),
        invite=[user_id for user_id in invite if user_id != creator],
        is_direct=boolean(body, "is_direct"),
        name=text(body, "name"),
        topic=text(body, "topic"),
        create_content=_create_content(json_object(body, "creation_content") or {}, creator, version, trusted),
        power_levels={},
        initial_state=_initial_state(json_list(body, "initial_state", MOST_INITIAL_STATE)),
        third_party=third_party,
    )
    plan.power_levels = _power_levels(plan, json_object(body, "power_level_content_override") or {}, trusted)
    if version.enforce_canonical_json:
        # Refused here, before anything has been claimed or made.
        check_canonical([plan.create_content, plan.power_levels, list(plan.initial_state.values())])
    try:
        check_integers(plan.initial_state.get(("m.room.power_levels", ""), plan.power_levels))
    except BadPowerLevel as error:
        raise MatrixError(400, "M_INVALID_ROOM_STATE", f"Power levels are malformed: {error}.") from error
    return plan


def _alias_localpart(localpart: str | None) -> str | None:
    if localpart is None:
        return None
    if not localpart or "\0" in localpart or ":" in localpart or localpart.startswith("#"):
        raise invalid_param("room_alias_name is the part of an alias between # and the colon.")
    return localpart


def _create_content(given: Body, creator: str, version: RoomVersion, trusted: list[str]) -> dict[str, Any]:
    # "The server will overwrite the following keys: creator, room_version."
    content = {key: value for key, value in given.items() if key not in ("creator", "room_version")}
    content["room_version"] = version.identifier
    if not version.creator_is_create_sender:
        content["creator"] = creator
    if not isinstance(content.get("m.federate", True), bool):
        raise bad_json("m.federate must be a boolean.")
    if version.privileged_creators:
        additional = content.get("additional_creators", [])
        if not isinstance(additional, list) or not all(is_user_id(user_id) for user_id in additional):
            raise invalid_param("additional_creators must be a list of user IDs.")
        # "the server SHOULD combine additional_creators specified here and the invite array …, deduplicating"
        combined = [user_id for user_id in dict.fromkeys([*additional, *trusted]) if user_id != creator]
        if combined:
            content["additional_creators"] = combined
    return content


def _power_levels(plan: RoomPlan, override: Body, trusted: list[str]) -> dict[str, Any]:
    users = {} if plan.version.privileged_creators else dict.fromkeys([plan.creator, *trusted], 100)
    content: dict[str, Any] = {
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.server_acl": 100,
            "m.room.encryption": 100,
            # "If the room's version is 12 or higher, the power level … MUST explicitly be higher than state_default."
            "m.room.tombstone": 150 if plan.version.privileged_creators else 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 50 if plan.preset == "public_chat" else 0,
        "historical": 100,
    }
    content.update(override)
    events, state_default = content["events"], content["state_default"]
    if (
        plan.version.privileged_creators
        and isinstance(events, dict)
        and type(state_default) is int
        and "m.room.tombstone" not in override.get("events", {})
    ):
        # "…MUST explicitly be higher than state_default", unless the client has said otherwise of this very type.
        content["events"] = {**events, "m.room.tombstone": max(150, state_default + 1)}
    if plan.version.privileged_creators and isinstance(content["users"], dict):
        creators = {plan.creator, *plan.create_content.get("additional_creators", [])}
        if creators & content["users"].keys():
            raise invalid_param("Creators of a room have no power level.")
    return content


def _initial_state(given: list[Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """By type and state key; of two events for one key the later counts, in its place."""
    state: dict[tuple[str, str], dict[str, Any]] = {}
    for one in given:
        if not isinstance(one, dict):
            raise bad_json("initial_state must hold objects.")
        event_type, state_key, content = one.get("type"), one.get("state_key", ""), one.get("content")
        if not isinstance(event_type, str) or not isinstance(state_key, str):
            raise bad_json("type and state_key of initial_state must be strings.")
        if not isinstance(content, dict):
            raise bad_json("content of initial_state must be an object.")
        if not event_type or event_type in _NOT_INITIAL:
            raise invalid_param(f"initial_state cannot have {event_type or 'an empty type'}.")
        if not fits(event_type) or not fits(state_key):
            raise too_large("type and state_key may have 255 bytes each.")
        state.pop((event_type, state_key), None)
        state[event_type, state_key] = content
    return state
