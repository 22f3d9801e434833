"""Evaluating push rules: every kind of condition, the default rules, and how long it takes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.events import Event
from matrix.power_levels import PowerLevels
from matrix.push_evaluation import DEFAULT_EVALUATOR, SILENT, EventFacts, compile_ruleset, event_facts
from matrix.push_rules import OWN_USER_ID, PushRule, PushRuleset
from matrix.room_versions import ROOM_VERSIONS

ALICE, BOB, CAROL = "@alice:example.org", "@bob:example.org", "@carol:example.org"
ROOM = "!room:example.org"
SOUND = {"set_tweak": "sound", "value": "default"}
HIGHLIGHT = {"set_tweak": "highlight"}


def event(type: str, content: dict[str, Any], state_key: str | None = None, sender: str = ALICE) -> Event:
    pdu = {
        "type": type,
        "sender": sender,
        "content": content,
        "room_id": ROOM,
        "depth": 5,
        "origin_server_ts": 1,
        "prev_events": [],
        "auth_events": [],
    }
    if state_key is not None:
        pdu["state_key"] = state_key
    return Event.from_pdu(pdu, ROOM_VERSIONS["11"], f"${type}")


def facts(of: Event, *, members: int = 10, levels: dict[str, Any] | None = None) -> EventFacts:
    create = event("m.room.create", {}, "")
    power_levels = event("m.room.power_levels", levels or {"users": {ALICE: 100}}, "")
    return event_facts(of, members, PowerLevels(create, power_levels))


def message(body: Any = "Hello", **content: Any) -> Event:
    return event("m.room.message", {"msgtype": "m.text", "body": body, **content})


def holds(condition: dict[str, Any], of: Event, **room: Any) -> bool:
    """Whether an override rule with this condition alone matches for Bob."""
    rules = PushRuleset(own=(PushRule("override", "x", ("notify", HIGHLIGHT), (condition,)),))
    return compile_ruleset(rules).evaluate(facts(of, **room), BOB, "Bob").highlight


def default(of: Event, user_id: str = BOB, **room: Any) -> tuple[bool, bool, tuple[Any, ...]]:
    return DEFAULT_EVALUATOR.evaluate(facts(of, **room), user_id, "Bob")


# The default rules.


def test_a_message_notifies_everybody_but_its_sender() -> None:
    assert default(message()) == (True, False, ("notify",))
    assert default(message(), ALICE) == SILENT


def test_a_message_between_two_makes_a_sound() -> None:
    assert default(message(), members=2) == (True, False, ("notify", SOUND))
    assert default(event("m.room.encrypted", {}), members=2) == (True, False, ("notify", SOUND))
    assert default(event("m.room.encrypted", {}), members=3) == (True, False, ("notify",))


def test_a_call_rings() -> None:
    assert default(event("m.call.invite", {})).actions == ("notify", {"set_tweak": "sound", "value": "ring"})


@pytest.mark.parametrize(
    "silent",
    [
        message(msgtype="m.notice"),
        message(**{"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}}),
        event("m.reaction", {}),
        event("m.room.server_acl", {}, ""),
        event("m.room.member", {"membership": "join"}, CAROL),
        event("m.room.member", {"membership": "invite"}, CAROL),
        event("m.room.topic", {"topic": "Hello"}, ""),
        event("org.example.unknown", {}),
    ],
    ids=lambda of: str(of.type),
)
def test_what_the_defaults_silence_or_do_not_know_notifies_nobody(silent: Event) -> None:
    assert default(silent) == SILENT


def test_an_invitation_notifies_the_invited_user_alone() -> None:
    invitation = event("m.room.member", {"membership": "invite"}, BOB)
    assert default(invitation) == (True, False, ("notify", SOUND))
    assert default(invitation, CAROL) == SILENT


def test_a_mention_highlights_for_the_mentioned_user_alone() -> None:
    mention = message(**{"m.mentions": {"user_ids": [BOB, 1, None, {}, []]}})
    assert default(mention) == (True, True, ("notify", SOUND, HIGHLIGHT))
    assert default(mention, CAROL) == (True, False, ("notify",))
    assert not default(message(**{"m.mentions": {"user_ids": BOB}})).highlight


def test_a_mention_of_the_room_highlights_if_its_sender_may() -> None:
    mention = message(**{"m.mentions": {"room": True}})
    assert default(mention) == (True, True, ("notify", HIGHLIGHT))
    assert not default(mention, levels={"users": {ALICE: 49}}).highlight
    assert default(mention, levels={"users": {ALICE: 10}, "notifications": {"room": 10}}).highlight
    assert not default(mention, levels={"users": {ALICE: 50}, "notifications": {"room": 51}}).highlight
    assert not default(mention, levels={"users": {ALICE: "fifty"}}).highlight


def test_a_tombstone_highlights_only_as_a_state_event() -> None:
    assert default(event("m.room.tombstone", {}, "")).highlight
    assert default(event("m.room.tombstone", {})) == SILENT


def test_the_master_rule_silences_everything_ones_own_rules_too() -> None:
    rules = (
        PushRuleset().put("override", "mine", {"actions": ["notify"]}).set_enabled("override", ".m.rule.master", True)
    )
    assert compile_ruleset(rules).evaluate(facts(message()), BOB, None) == SILENT


def test_a_historical_action_is_no_action() -> None:
    rules = PushRuleset().put("room", ROOM, {"actions": ["dont_notify"]})
    assert compile_ruleset(rules).evaluate(facts(message()), BOB, "Bob") == SILENT


def test_changed_actions_of_a_default_rule_are_what_happens() -> None:
    rules = PushRuleset().set_actions("underride", ".m.rule.message", ["notify", SOUND])
    assert compile_ruleset(rules).evaluate(facts(message()), BOB, None).actions == ("notify", SOUND)


# Kinds of rules.


def test_the_kinds_of_rules_are_checked_in_their_order() -> None:
    rules = PushRuleset()
    of = facts(message("tea time"))
    for kind, rule_id in (("underride", "u"), ("sender", ALICE), ("room", ROOM), ("content", "c"), ("override", "o")):
        rules = rules.put(kind, rule_id, {"actions": [{"set_tweak": kind}], "pattern": "TEA"})
        assert compile_ruleset(rules).evaluate(of, BOB, None).actions == ({"set_tweak": kind},)


def test_rules_of_a_room_a_sender_and_a_pattern_match_only_these() -> None:
    rules = PushRuleset()
    for kind, rule_id in (("sender", CAROL), ("room", "!other:example.org"), ("content", "c")):
        rules = rules.put(kind, rule_id, {"actions": ["notify", HIGHLIGHT], "pattern": "coffee"})
    assert not compile_ruleset(rules).evaluate(facts(message("tea time")), BOB, None).highlight


def test_a_disabled_rule_never_matches() -> None:
    rules = PushRuleset().put("room", ROOM, {"actions": []}).set_enabled("room", ROOM, False)
    assert compile_ruleset(rules).evaluate(facts(message()), BOB, None).notify


@pytest.mark.parametrize(("value", "highlight"), [({}, True), ({"value": True}, True), ({"value": False}, False)])
def test_a_highlight_without_a_value_is_one(value: dict[str, Any], highlight: bool) -> None:
    rules = PushRuleset().put("room", ROOM, {"actions": ["notify", {"set_tweak": "highlight", **value}]})
    assert compile_ruleset(rules).evaluate(facts(message()), BOB, None).highlight is highlight


def test_a_sound_without_a_value_is_no_highlight() -> None:
    rules = PushRuleset().put("room", ROOM, {"actions": ["notify", {"set_tweak": "sound"}]})
    assert not compile_ruleset(rules).evaluate(facts(message()), BOB, None).highlight


# Conditions.


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("lunc?*", "Lunch plans", True),
        ("lunc?*", "LUNCH", True),
        ("lunc?*", " lunch", False),
        ("lunc?*", "lunc", False),
        ("lunc?*", None, False),
        ("*", 7, False),
        ("*", "", True),
        ("lunch", "Lunch plans", False),
    ],
)
def test_event_match_is_a_glob_on_the_whole_string(pattern: str, topic: Any, expected: bool) -> None:
    condition = {"kind": "event_match", "key": "content.topic", "pattern": pattern}
    assert holds(condition, event("m.room.topic", {"topic": topic}, "")) is expected


def test_event_match_on_the_body_matches_words_within_it() -> None:
    condition = {"kind": "event_match", "key": "content.body", "pattern": "ex*ple"}
    assert holds(condition, message("An exciting triple-whammy"))
    assert not holds(condition, message("counterexamples"))
    assert not holds(condition, message(None))


def test_event_match_sees_the_members_of_the_event_itself() -> None:
    for key, pattern in (("type", "m.room.*"), ("sender", ALICE), ("room_id", ROOM), ("event_id", "$m.room.message")):
        assert holds({"kind": "event_match", "key": key, "pattern": pattern}, message())
    assert not holds({"kind": "event_match", "key": "state_key", "pattern": "*"}, message())


@pytest.mark.parametrize(
    ("found", "value", "expected"),
    [
        (True, True, True),
        (1, True, False),
        ("true", True, False),
        (True, 1, False),
        (1, 1, True),
        (1.0, 1, False),
        (None, None, True),
        ("a", "A", False),
        ([], [], False),
        (2**53, 2**53, False),
        (-(2**53), -(2**53), False),
        (2**53 - 1, 2**53 - 1, True),
        (1 - 2**53, 1 - 2**53, True),
    ],
)
def test_event_property_is_compares_exactly_and_by_type(found: Any, value: Any, expected: bool) -> None:
    of = event("org.example.test", {"m.property": found})
    assert holds({"kind": "event_property_is", "key": r"content.m\.property", "value": value}, of) is expected
    of = event("org.example.test", {"m.property": [0, found, {}]})
    assert holds({"kind": "event_property_contains", "key": r"content.m\.property", "value": value}, of) is expected


def test_an_absent_property_is_not_null_and_contains_nothing() -> None:
    assert not holds({"kind": "event_property_is", "key": "content.x", "value": None}, message())
    assert not holds({"kind": "event_property_contains", "key": "content.x", "value": None}, message())


@pytest.mark.parametrize(
    ("body", "name", "expected"),
    [
        ("Hello Bob!", "bob", True),
        ("Hello Bobby", "bob", False),
        ("Hello b.b", "b.b", True),
        ("Hello bab", "b.b", False),
        ("Hello *", "*", True),
        ("Hello", "*", False),
        ("Hello", "", False),
        ("Hello", None, False),
        (7, "7", False),
    ],
)
def test_contains_display_name_finds_the_name_as_it_is_between_word_boundaries(
    body: Any, name: str | None, expected: bool
) -> None:
    rules = PushRuleset().put(
        "override", "x", {"actions": ["notify", HIGHLIGHT], "conditions": [{"kind": "contains_display_name"}]}
    )
    assert compile_ruleset(rules).evaluate(facts(message(body)), BOB, name).highlight is expected


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("5", True),
        ("==5", True),
        ("<5", False),
        ("<=5", True),
        (">4", True),
        (">=6", False),
        ("= 5", False),
        ("", False),
    ],
)
def test_room_member_count_compares_the_number_of_members(comparison: str, expected: bool) -> None:
    assert holds({"kind": "room_member_count", "is": comparison}, message(), members=5) is expected


@pytest.mark.parametrize(
    "condition",
    [
        {"kind": "org.example.unknown"},
        {"kind": "event_match"},
        {"kind": "event_match", "key": "type", "pattern": 1},
        {"kind": "event_property_is", "key": "type"},
        {"kind": "event_property_contains", "key": 1, "value": 1},
        {"kind": "room_member_count"},
        {"kind": "room_member_count", "is": 2},
        {"kind": "sender_notification_permission"},
        {"kind": "event_match", "key": "sender", "pattern": OWN_USER_ID},
    ],
)
def test_a_condition_that_is_unknown_or_malformed_never_matches(condition: dict[str, Any]) -> None:
    assert not holds(condition, message(), members=2)


def test_who_owns_a_rule_is_a_placeholder_in_default_rules_alone() -> None:
    of = event("org.example.test", {"who": BOB, "all": [BOB]}, BOB)
    for kind, key, name in (
        ("event_match", "state_key", "pattern"),
        ("event_match", "content.who", "pattern"),
        ("event_property_contains", "content.all", "value"),
    ):
        assert not holds({"kind": kind, "key": key, name: OWN_USER_ID}, of)
        assert holds({"kind": kind, "key": key, name: BOB}, of)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["key", "pattern", "value", "is"]), json_values),
    st.sampled_from(
        [
            "event_match",
            "event_property_is",
            "event_property_contains",
            "room_member_count",
            "sender_notification_permission",
        ]
    ),
    st.dictionaries(st.sampled_from(["body", "msgtype", "m.mentions", "m.relates_to"]), json_values),
)
def test_nothing_in_a_rule_or_an_event_makes_evaluation_fail(
    members: dict[str, Any], kind: str, content: dict[str, Any]
) -> None:
    # Rules of before conditions were checked may be anything.
    rules = PushRuleset(own=(PushRule("override", "x", ("notify",), ({"kind": kind, **members},)),))
    of = facts(event("m.room.message", content), members=2)
    assert compile_ruleset(rules).evaluate(of, BOB, "Bob").notify in (True, False)
    assert DEFAULT_EVALUATOR.evaluate(of, BOB, "Bob").notify in (True, False)


def test_sharing_answers_between_members_changes_none() -> None:
    rules = PushRuleset().put("content", "tea", {"actions": ["notify", HIGHLIGHT], "pattern": "tea"})
    own = compile_ruleset(rules)
    of = message("tea", **{"m.mentions": {"user_ids": [CAROL]}})
    shared = facts(of)
    for _ in range(2):
        for user in (ALICE, BOB, CAROL):
            assert DEFAULT_EVALUATOR.evaluate(shared, user, None) == DEFAULT_EVALUATOR.evaluate(facts(of), user, None)
            assert own.evaluate(shared, user, None) == own.evaluate(facts(of), user, None)


def test_a_member_with_the_default_rules_costs_a_few_microseconds() -> None:
    members = [f"@user{number}:example.org" for number in range(10_000)]
    of = message(**{"m.mentions": {"user_ids": members[:50]}})
    begun = time.perf_counter()
    shared = facts(of)
    highlights = sum(DEFAULT_EVALUATOR.evaluate(shared, user, "Somebody").highlight for user in members)
    each = (time.perf_counter() - begun) / len(members)
    print(f"\n{each * 1e6:.2f} µs for each member with the default rules")
    own = [compile_ruleset(PushRuleset().put("room", ROOM, {"actions": ["notify"]})) for _ in range(1_000)]
    begun = time.perf_counter()
    shared = facts(of)
    for evaluator, user in zip(own, members, strict=False):
        evaluator.evaluate(shared, user, "Somebody")
    print(f"{(time.perf_counter() - begun) / len(own) * 1e6:.2f} µs for each member with rules of their own")
    assert highlights == 50
    assert each < 20e-6
