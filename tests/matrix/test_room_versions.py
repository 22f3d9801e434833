"""Room versions: each is the one before with the changes that its page names, and no others."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import pytest

from matrix.room_versions import DEFAULT_ROOM_VERSION, ROOM_VERSIONS, RedactionRules, RoomVersion

CHANGES = {
    "2": {"state_resolution"},
    "3": {"event_id_format", "references_carry_hashes", "event_id_server_must_sign", "redactions_need_power"},
    "4": {"event_id_format"},
    "5": {"enforce_key_validity"},
    "6": {"enforce_canonical_json", "aliases_by_server", "power_to_change_notifications", "keeps_aliases"},
    "7": {"knocking"},
    "8": {"restricted_join_rule", "keeps_join_rules_allow"},
    "9": {"keeps_join_authorised_via_users_server"},
    "10": {"integer_power_levels", "knock_restricted_join_rule"},
    "11": {
        "creator_is_create_sender",
        "redacts_in_content",
        "keeps_origin_membership_and_prev_state",
        "keeps_third_party_invite_signed",
        "keeps_all_of_create",
        "keeps_redacts",
        "keeps_power_levels_invite",
    },
    "12": {"room_id_is_create_event_id", "create_event_in_auth_events", "privileged_creators", "state_resolution"},
}


def _rules(version: RoomVersion) -> dict[str, object]:
    of_version = {field.name: getattr(version, field.name) for field in fields(RoomVersion)}
    redaction = of_version.pop("redaction")
    del of_version["identifier"]
    return of_version | {field.name: getattr(redaction, field.name) for field in fields(RedactionRules)}


def test_there_are_twelve_versions_and_the_last_is_the_default() -> None:
    assert list(ROOM_VERSIONS) == [str(number) for number in range(1, 13)]
    assert DEFAULT_ROOM_VERSION == "12"
    assert all(version.identifier == key for key, version in ROOM_VERSIONS.items())


@pytest.mark.parametrize(("before", "after"), list(pairwise(ROOM_VERSIONS.values())), ids=lambda v: v.identifier)
def test_a_version_changes_what_its_page_says_and_nothing_else(before: RoomVersion, after: RoomVersion) -> None:
    old, new = _rules(before), _rules(after)
    assert {name for name in old if old[name] != new[name]} == CHANGES[after.identifier]


def test_a_version_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ROOM_VERSIONS["1"].knocking = True  # type: ignore[misc]
