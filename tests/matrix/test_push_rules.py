"""Push rules: the defaults, and what a user makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.errors import MatrixError
from matrix.push_rules import DEFAULT_RULES, KINDS, MASTER, OWN_USER_ID, PushRuleset

ALICE = "@alice:example.org"
ROOM = "!room:example.org"


def order(rules: PushRuleset, kind: str) -> list[str]:
    return [rule["rule_id"] for rule in rules.client_form(ALICE)[kind]]


def test_the_default_rules_are_those_of_the_specification_in_its_order() -> None:
    form = PushRuleset().client_form(ALICE)
    assert list(form) == list(KINDS)
    assert [rule["rule_id"] for rule in form["override"]] == [
        ".m.rule.master",
        ".m.rule.suppress_notices",
        ".m.rule.invite_for_me",
        ".m.rule.member_event",
        ".m.rule.is_user_mention",
        ".m.rule.is_room_mention",
        ".m.rule.tombstone",
        ".m.rule.reaction",
        ".m.rule.room.server_acl",
        ".m.rule.suppress_edits",
    ]
    assert [rule["rule_id"] for rule in form["underride"]] == [
        ".m.rule.call",
        ".m.rule.encrypted_room_one_to_one",
        ".m.rule.room_one_to_one",
        ".m.rule.message",
        ".m.rule.encrypted",
    ]
    assert form["content"] == form["room"] == form["sender"] == []
    assert [rule["rule_id"] for rule in form["override"] if not rule["enabled"]] == [MASTER]


def test_a_default_rule_names_the_user_whom_it_is_shown_to() -> None:
    form = PushRuleset().client_form(ALICE)
    assert OWN_USER_ID not in json.dumps(form)
    assert form["override"][2] == {
        "rule_id": ".m.rule.invite_for_me",
        "default": True,
        "enabled": True,
        "conditions": [
            {"kind": "event_match", "key": "type", "pattern": "m.room.member"},
            {"kind": "event_match", "key": "content.membership", "pattern": "invite"},
            {"kind": "event_match", "key": "state_key", "pattern": ALICE},
        ],
        "actions": ["notify", {"set_tweak": "sound", "value": "default"}],
    }


def test_a_rule_of_ones_own_comes_before_the_defaults_but_after_the_master_rule() -> None:
    rules = PushRuleset().put("override", "mine", {"actions": []})
    assert order(rules, "override")[:3] == [MASTER, "mine", ".m.rule.suppress_notices"]
    assert rules.rule("override", "mine").enabled


def test_a_new_rule_is_the_most_important_of_its_kind_unless_a_place_is_given() -> None:
    rules = PushRuleset()
    for name in ("c", "b", "a"):
        rules = rules.put("room", name, {"actions": []})
    assert order(rules, "room") == ["a", "b", "c"]
    assert order(rules.put("room", "x", {"actions": []}, before="b"), "room") == ["a", "x", "b", "c"]
    assert order(rules.put("room", "x", {"actions": []}, after="b"), "room") == ["a", "b", "x", "c"]
    assert order(rules.put("room", "c", {"actions": []}, before="a"), "room") == ["c", "a", "b"]
    assert order(rules.put("room", "b", {"actions": ["notify"]}), "room") == ["a", "b", "c"]


def test_a_place_relative_to_no_rule_of_ones_own_is_refused() -> None:
    with pytest.raises(MatrixError) as refusal:
        PushRuleset().put("override", "mine", {"actions": []}, after=".m.rule.master")
    assert (refusal.value.status, refusal.value.errcode) == (400, "M_UNKNOWN")


def test_changing_a_disabled_rule_leaves_it_disabled() -> None:
    rules = PushRuleset().put("sender", ALICE, {"actions": []}).set_enabled("sender", ALICE, False)
    changed = rules.put("sender", ALICE, {"actions": ["notify"]}).rule("sender", ALICE)
    assert not changed.enabled
    assert changed.actions == ("notify",)


def test_default_rules_can_be_switched_and_given_other_actions_but_not_removed() -> None:
    rules = PushRuleset().set_enabled("override", MASTER, True).set_actions("underride", ".m.rule.message", [])
    assert rules.rule("override", MASTER).enabled
    assert rules.rule("underride", ".m.rule.message").actions == ()
    assert not rules.is_default
    with pytest.raises(MatrixError) as refusal:
        rules.delete("override", MASTER)
    assert refusal.value.errcode == "M_NOT_FOUND"


def test_historical_actions_are_kept_for_the_client_that_gave_them() -> None:
    rules = PushRuleset().put("room", ROOM, {"actions": ["dont_notify", "coalesce"]})
    assert PushRuleset.from_stored(rules.stored()).rule("room", ROOM).actions == ("dont_notify", "coalesce")


def test_there_is_no_rule_of_a_kind_that_does_not_exist() -> None:
    for ask in (PushRuleset().rule, PushRuleset().delete):
        with pytest.raises(MatrixError) as refusal:
            ask("postcontent", "x")
        assert refusal.value.errcode == "M_NOT_FOUND"


def test_a_removed_rule_is_gone() -> None:
    rules = PushRuleset().put("room", ROOM, {"actions": []}).delete("room", ROOM)
    assert rules == PushRuleset()
    with pytest.raises(MatrixError) as refusal:
        rules.rule("room", ROOM)
    assert (refusal.value.status, refusal.value.errcode) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("kind", "rule_id", "body", "errcode"),
    [
        ("device", "x", {"actions": []}, "M_INVALID_PARAM"),
        ("override", ".mine", {"actions": []}, "M_INVALID_PARAM"),
        ("override", "a/b", {"actions": []}, "M_INVALID_PARAM"),
        ("override", "a\\b", {"actions": []}, "M_INVALID_PARAM"),
        ("override", "", {"actions": []}, "M_INVALID_PARAM"),
        ("override", "x", {}, "M_MISSING_PARAM"),
        ("override", "x", {"actions": "notify"}, "M_BAD_JSON"),
        ("override", "x", {"actions": [1]}, "M_BAD_JSON"),
        ("override", "x", {"actions": ["explode"]}, "M_INVALID_PARAM"),
        ("override", "x", {"actions": [{"value": 1}]}, "M_INVALID_PARAM"),
        ("override", "x", {"actions": [], "conditions": {}}, "M_BAD_JSON"),
        ("override", "x", {"actions": [], "conditions": [1]}, "M_BAD_JSON"),
        ("override", "x", {"actions": [], "conditions": [{}]}, "M_MISSING_PARAM"),
        ("override", "x", {"actions": [], "conditions": [{"kind": "event_match"}] * 101}, "M_INVALID_PARAM"),
        ("override", "x", {"actions": [], "conditions": [{"kind": "x", "key": 1}]}, "M_BAD_JSON"),
        ("override", "x", {"actions": [], "conditions": [{"kind": "x", "pattern": ["a"]}]}, "M_BAD_JSON"),
        ("underride", "x", {"actions": [], "conditions": [{"kind": "x", "is": 2}]}, "M_BAD_JSON"),
        ("underride", "x", {"actions": [], "conditions": [{"kind": "x", "value": {}}]}, "M_BAD_JSON"),
        ("content", "x", {"actions": []}, "M_MISSING_PARAM"),
    ],
)
def test_what_is_no_rule_is_refused(kind: str, rule_id: str, body: dict[str, Any], errcode: str) -> None:
    with pytest.raises(MatrixError) as refusal:
        PushRuleset().put(kind, rule_id, body)
    assert (refusal.value.status, refusal.value.errcode) == (400, errcode)


def test_a_user_may_have_a_thousand_rules_and_no_more() -> None:
    rules = PushRuleset()
    for number in range(1_000):
        rules = rules.put("content", str(number), {"actions": [], "pattern": "cake"})
    with pytest.raises(MatrixError):
        rules.put("content", "one more", {"actions": [], "pattern": "cake"})
    rules.put("content", "7", {"actions": ["notify"], "pattern": "tea"})


changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(KINDS), st.sampled_from("abc")),
        st.tuples(st.just("delete"), st.sampled_from(KINDS), st.sampled_from("abc")),
        st.tuples(st.just("enabled"), st.sampled_from(DEFAULT_RULES), st.booleans()),
        st.tuples(st.just("actions"), st.sampled_from(DEFAULT_RULES), st.sampled_from([[], ["notify"]])),
    )
)


@given(changes)
def test_what_is_stored_comes_back_the_same(steps: list[tuple[Any, Any, Any]]) -> None:
    rules = PushRuleset()
    for what, first, second in steps:
        if what == "put":
            rules = rules.put(first, second, {"actions": ["notify"], "pattern": "a*", "conditions": [{"kind": "x"}]})
        elif what == "delete":
            try:
                rules = rules.delete(first, second)
            except MatrixError:
                assert (first, second) not in {(rule.kind, rule.rule_id) for rule in rules.own}
        elif what == "enabled":
            rules = rules.set_enabled(first.kind, first.rule_id, second)
        else:
            rules = rules.set_actions(first.kind, first.rule_id, second)
    again = PushRuleset.from_stored(json.loads(json.dumps(rules.stored())))
    assert again == rules
    assert again.client_form(ALICE) == rules.client_form(ALICE)
    assert PushRuleset.from_stored({}) == PushRuleset()
