"""Room versions 1 to 12 as structs of named rules.

Each version is everything of the one before, except what is listed, in the order of its specification page; and no code
asks for a version's number: it asks for a rule. Source: room versions specification (content/rooms/v1.md to v12.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

__all__ = ["DEFAULT_ROOM_VERSION", "ROOM_VERSIONS", "EventIdFormat", "RedactionRules", "RoomVersion", "StateResolution"]


class EventIdFormat(Enum):
    """How the id of an event is made."""

    OPAQUE_WITH_DOMAIN = "$opaque:domain, carried in the event"
    REFERENCE_HASH = "the reference hash in unpadded base64"
    URL_SAFE_REFERENCE_HASH = "the reference hash in URL-safe unpadded base64"


class StateResolution(Enum):
    """Which algorithm resolves the state of several branches."""

    V1 = "1"
    V2 = "2"
    V2_1 = "2.1"


@dataclass(frozen=True, slots=True)
class RedactionRules:
    """What a redaction leaves, beyond what it leaves in every version."""

    keeps_origin_membership_and_prev_state: bool
    """The top-level keys `origin`, `membership` and `prev_state` stay."""
    keeps_aliases: bool
    """`m.room.aliases` keeps `aliases`."""
    keeps_join_rules_allow: bool
    """`m.room.join_rules` keeps `allow`."""
    keeps_join_authorised_via_users_server: bool
    """`m.room.member` keeps `join_authorised_via_users_server`."""
    keeps_third_party_invite_signed: bool
    """`m.room.member` keeps `third_party_invite`, reduced to `signed`."""
    keeps_all_of_create: bool
    """`m.room.create` keeps its whole content, not `creator` alone."""
    keeps_redacts: bool
    """`m.room.redaction` keeps `redacts` of its content."""
    keeps_power_levels_invite: bool
    """`m.room.power_levels` keeps `invite`."""


# Compared and hashed by identity: there is one object per version, and hashing thirty fields on a hot path is waste.
@dataclass(frozen=True, slots=True, eq=False)
class RoomVersion:
    """The rules of one room version, each named for what is true when it is set."""

    identifier: str
    """What `room_version` of the create event says."""

    event_id_format: EventIdFormat
    """How event ids are made; with any but OPAQUE_WITH_DOMAIN the event does not carry its id over federation."""
    references_carry_hashes: bool
    """`prev_events` and `auth_events` are lists of [event id, {"sha256": reference hash}], not of event ids."""
    room_id_is_create_event_id: bool
    """The room id is the create event's id with the sigil `!`; the create event has no `room_id`."""
    create_event_in_auth_events: bool
    """The create event is selected as an auth event, and must be among them; otherwise it must not."""
    redacts_in_content: bool
    """`redacts` of a redaction event is in its content, not at its top level."""

    state_resolution: StateResolution
    """The algorithm that resolves state."""

    enforce_canonical_json: bool
    """Events must be canonical JSON: no floats, integers within ±(2^53 - 1). Lowers the bound of `depth` likewise."""
    enforce_key_validity: bool
    """A signature counts only if the key's `valid_until_ts` is not before the event's `origin_server_ts`."""
    event_id_server_must_sign: bool
    """Besides the sender's server, the server named in the event id must have signed the event."""

    redactions_need_power: bool
    """The auth rules themselves decide on `m.room.redaction` (same server, or the redact level)."""
    aliases_by_server: bool
    """`m.room.aliases` is allowed to every member of the server that its state key names."""
    power_to_change_notifications: bool
    """Changing `notifications` in power levels is limited in the same way as changing `events`."""
    knocking: bool
    """The membership and the join rule `knock` exist."""
    restricted_join_rule: bool
    """The join rule `restricted`, and `join_authorised_via_users_server`, exist."""
    knock_restricted_join_rule: bool
    """The join rule `knock_restricted` exists."""
    integer_power_levels: bool
    """Power levels must be integers: no strings and no floats that stand for one."""
    creator_is_create_sender: bool
    """The creator is the sender of the create event, not its `content.creator`."""
    privileged_creators: bool
    """Creators have infinite power and may not be named in power levels; `additional_creators` are creators too."""

    redaction: RedactionRules
    """What redaction keeps."""


_V1 = RoomVersion(
    identifier="1",
    event_id_format=EventIdFormat.OPAQUE_WITH_DOMAIN,
    references_carry_hashes=True,
    room_id_is_create_event_id=False,
    create_event_in_auth_events=True,
    redacts_in_content=False,
    state_resolution=StateResolution.V1,
    enforce_canonical_json=False,
    enforce_key_validity=False,
    event_id_server_must_sign=True,
    redactions_need_power=True,
    aliases_by_server=True,
    power_to_change_notifications=False,
    knocking=False,
    restricted_join_rule=False,
    knock_restricted_join_rule=False,
    integer_power_levels=False,
    creator_is_create_sender=False,
    privileged_creators=False,
    redaction=RedactionRules(
        keeps_origin_membership_and_prev_state=True,
        keeps_aliases=True,
        keeps_join_rules_allow=False,
        keeps_join_authorised_via_users_server=False,
        keeps_third_party_invite_signed=False,
        keeps_all_of_create=False,
        keeps_redacts=False,
        keeps_power_levels_invite=False,
    ),
)

_V2 = replace(_V1, identifier="2", state_resolution=StateResolution.V2)

_V3 = replace(
    _V2,
    identifier="3",
    event_id_format=EventIdFormat.REFERENCE_HASH,
    references_carry_hashes=False,
    event_id_server_must_sign=False,
    redactions_need_power=False,
)

_V4 = replace(_V3, identifier="4", event_id_format=EventIdFormat.URL_SAFE_REFERENCE_HASH)

_V5 = replace(_V4, identifier="5", enforce_key_validity=True)

_V6 = replace(
    _V5,
    identifier="6",
    enforce_canonical_json=True,
    aliases_by_server=False,
    power_to_change_notifications=True,
    redaction=replace(_V5.redaction, keeps_aliases=False),
)

_V7 = replace(_V6, identifier="7", knocking=True)

_V8 = replace(
    _V7,
    identifier="8",
    restricted_join_rule=True,
    redaction=replace(_V7.redaction, keeps_join_rules_allow=True),
)

_V9 = replace(_V8, identifier="9", redaction=replace(_V8.redaction, keeps_join_authorised_via_users_server=True))

_V10 = replace(_V9, identifier="10", integer_power_levels=True, knock_restricted_join_rule=True)

_V11 = replace(
    _V10,
    identifier="11",
    creator_is_create_sender=True,
    redacts_in_content=True,
    redaction=replace(
        _V10.redaction,
        keeps_origin_membership_and_prev_state=False,
        keeps_third_party_invite_signed=True,
        keeps_all_of_create=True,
        keeps_redacts=True,
        keeps_power_levels_invite=True,
    ),
)

_V12 = replace(
    _V11,
    identifier="12",
    room_id_is_create_event_id=True,
    create_event_in_auth_events=False,
    privileged_creators=True,
    state_resolution=StateResolution.V2_1,
)

ROOM_VERSIONS: dict[str, RoomVersion] = {
    version.identifier: version for version in (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10, _V11, _V12)
}
"""Every version that this server implements, by identifier. All twelve are stable."""

DEFAULT_ROOM_VERSION = "12"
"""What a room is created with when nobody says otherwise."""
