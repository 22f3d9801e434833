"""Which members of a room an event notifies, and how.

An event is read once, into `EventFacts`; each member's rules are compiled once, into an `Evaluator`. What a rule asks of the event
alone is answered once per event, however many members have the rule; of an evaluator that many share (all who have changed
nothing) only the rules are left for each of them that ask for their own name. Nothing that a user can write makes this fail or
take long: unknown and malformed conditions do not match. Source: client-server API, "Push notifications", v1.19.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from matrix.canonical import MAX_CANONICAL_INTEGER
from matrix.events import Event
from matrix.globs import Glob, WordGlob
from matrix.power_levels import BadPowerLevel, PowerLevels
from matrix.property_paths import ABSENT, look_up, parse_path
from matrix.push_rules import DEFAULT_RULES, HISTORICAL_ACTIONS, OWN_USER_ID, PushRule, PushRuleset

__all__ = ["DEFAULT_EVALUATOR", "SILENT", "Evaluator", "EventFacts", "Notification", "compile_ruleset", "event_facts"]


class Notification(NamedTuple):
    """What an event does to one member."""

    notify: bool
    """Whether it is pushed, and counts as a notification."""
    highlight: bool
    """Whether it counts as a highlight."""
    actions: tuple[str | dict[str, Any], ...]
    """The actions of the rule that matched, for the pushers."""


SILENT: Final = Notification(False, False, ())
"""What an event does if no rule matches."""


class EventFacts:
    """One event and its room as conditions see them, with the answers given so far."""

    __slots__ = ("_answers", "_left", "_members", "_strings", "_values", "levels", "member_count", "sender")

    def __init__(self, event: Event, room_member_count: int, levels: PowerLevels) -> None:
        self.sender = event.sender
        self.member_count = room_member_count
        self.levels = levels
        self._members: Mapping[str, Any] = {**event.pdu, "event_id": event.event_id, "room_id": event.room_id}
        self._values: dict[tuple[str, ...], Any] = {}
        self._strings: dict[tuple[str, ...], frozenset[str]] = {}
        self._answers: dict[_OfEvent, bool] = {}
        self._left: dict[Evaluator, _Rules] = {}

    def value(self, path: tuple[str, ...]) -> Any:
        """The property of the event at a path, or ABSENT."""
        found = self._values.get(path, self)
        if found is self:
            found = self._values[path] = look_up(self._members, path)
        return found

    def strings(self, path: tuple[str, ...]) -> frozenset[str]:
        """The strings in the list at a path: a list may have thousands of entries, and a room thousands of members."""
        found = self._strings.get(path)
        if found is None:
            value = self.value(path)
            entries = value if isinstance(value, list) else ()
            found = self._strings[path] = frozenset(entry for entry in entries if isinstance(entry, str))
        return found

    def holds(self, condition: _OfEvent) -> bool:
        """Whether a condition holds, whoever asks."""
        answer = self._answers.get(condition)
        if answer is None:
            answer = self._answers[condition] = condition.holds(self)
        return answer

    def left_of(self, evaluator: Evaluator) -> _Rules:
        """The rules of an evaluator that may still match, up to the first that does for every member."""
        left = self._left.get(evaluator)
        if left is None:
            left = self._left[evaluator] = evaluator.reduce(self)
        return left


def event_facts(event: Event, room_member_count: int, levels: PowerLevels) -> EventFacts:
    """What is needed of an event to evaluate rules: itself, the number of joined members, and the power levels in force."""
    return EventFacts(event, room_member_count, levels)


class Evaluator:
    """One set of push rules, compiled. Compared by identity, so that what many members share is evaluated once."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Iterable[PushRule]) -> None:
        self._rules = tuple(_COMPILED_DEFAULTS.get(id(rule)) or _compile_rule(rule) for rule in rules if rule.enabled)

    def evaluate(self, facts: EventFacts, user_id: str, display_name: str | None) -> Notification:
        """What the event does to a member of the room; `display_name` is theirs in the room."""
        # "Homeservers MUST NOT notify the Push Gateway for events that the user has sent themselves."
        if user_id == facts.sender:
            return SILENT
        for conditions, outcome in facts.left_of(self):
            for condition in conditions:
                if not condition.holds(facts, user_id, display_name):
                    break
            else:
                return outcome
        return SILENT

    def reduce(self, facts: EventFacts) -> _Rules:
        """The rules that the event alone does not rule out, with the conditions that depend on the member."""
        left: list[tuple[tuple[_OfMember, ...], Notification]] = []
        for of_event, of_member, outcome in self._rules:
            if all(map(facts.holds, of_event)) and all(condition.possible(facts) for condition in of_member):
                left.append((of_member, outcome))
                if not of_member:
                    break
        return tuple(left)


def compile_ruleset(ruleset: PushRuleset) -> Evaluator:
    """The evaluator of a user's rules; the same one for all who have changed nothing."""
    return DEFAULT_EVALUATOR if ruleset.is_default else Evaluator(ruleset)


class _OfEvent:
    """A condition that depends on the event alone. Of each there is one object, so that its answer is found again."""

    __slots__ = ("holds",)

    def __init__(self, holds: Callable[[EventFacts], bool]) -> None:
        self.holds = holds


class _OfMember:
    """A condition that depends on the member too. `possible` says whether it can hold for anybody."""

    __slots__ = ("holds", "possible")

    def __init__(
        self, possible: Callable[[EventFacts], bool], holds: Callable[[EventFacts, str, str | None], bool]
    ) -> None:
        self.possible = possible
        self.holds = holds


_Rules = tuple[tuple[tuple[_OfMember, ...], Notification], ...]

_NEVER = _OfEvent(lambda facts: False)
_BODY = ("content", "body")
_COUNT = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,18})", re.ASCII)
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def _compile_rule(rule: PushRule) -> tuple[tuple[_OfEvent, ...], tuple[_OfMember, ...], Notification]:
    if rule.kind == "content":
        # "The match must match any substring of content.body which starts and ends at a word boundary."
        conditions: list[dict[str, Any]] = [{"kind": "event_match", "key": "content.body", "pattern": rule.pattern}]
    elif rule.kind == "room":
        conditions = [{"kind": "event_property_is", "key": "room_id", "value": rule.rule_id}]
    elif rule.kind == "sender":
        conditions = [{"kind": "event_property_is", "key": "sender", "value": rule.rule_id}]
    else:
        conditions = list(rule.conditions or ())
    compiled = [
        _compile_condition(orjson.dumps(condition, option=orjson.OPT_SORT_KEYS), rule.default)
        for condition in conditions
    ]
    return (
        tuple(condition for condition in compiled if isinstance(condition, _OfEvent)),
        tuple(condition for condition in compiled if isinstance(condition, _OfMember)),
        _outcome(rule.actions),
    )


def _outcome(actions: tuple[str | dict[str, Any], ...]) -> Notification:
    # "a rule with ["dont_notify"] actions MUST be equivalent to a rule with an empty actions array"
    actions = tuple(action for action in actions if action not in HISTORICAL_ACTIONS)
    notify = "notify" in actions
    # "If a highlight tweak is given with no value, its value is defined to be true. If no highlight tweak is given at all
    # then the value of highlight is defined to be false."
    highlight = any(
        isinstance(action, dict) and action.get("set_tweak") == "highlight" and action.get("value", True) is True
        for action in actions
    )
    return Notification(notify, notify and highlight, actions) if actions else SILENT


@lru_cache(maxsize=10_000)
def _compile_condition(definition: bytes, default: bool) -> _OfEvent | _OfMember:
    """A condition, given as JSON. `OWN_USER_ID` is special in default rules alone."""
    condition = orjson.loads(definition)
    kind, key = condition.get("kind"), condition.get("key")
    match kind:
        case "event_match":
            return _event_match(key, condition.get("pattern"), default)
        case "event_property_is":
            return _event_property_is(key, condition.get("value", ABSENT))
        case "event_property_contains":
            return _event_property_contains(key, condition.get("value", ABSENT), default)
        case "contains_display_name":
            return _OfMember(lambda facts: isinstance(facts.value(_BODY), str), _contains_display_name)
        case "room_member_count":
            return _room_member_count(condition.get("is"))
        case "sender_notification_permission" if isinstance(key, str):
            return _OfEvent(lambda facts: _may_notify(facts, key))
    # "Unrecognised conditions MUST NOT match any events."
    return _NEVER


def _event_match(key: Any, pattern: Any, default: bool) -> _OfEvent | _OfMember:
    """A glob on the whole of a string property, or on words of `content.body`."""
    if not isinstance(key, str) or not isinstance(pattern, str):
        return _NEVER
    path = parse_path(key)
    if default and pattern == OWN_USER_ID:
        return _OfMember(
            lambda facts: isinstance(facts.value(path), str),
            lambda facts, user_id, _: bool(facts.value(path).lower() == user_id.lower()),
        )
    glob: Glob | WordGlob = WordGlob(pattern) if path == _BODY else Glob(pattern)

    def holds(facts: EventFacts) -> bool:
        # "If the property is completely absent from the event, or does not have a string value, then the condition will
        # not match, even if pattern is *."
        value = facts.value(path)
        return isinstance(value, str) and glob.matches(value)

    return _OfEvent(holds)


def _is_simple(value: Any) -> bool:
    """Whether a value is one that conditions compare: a string, an integer within ±(2^53 - 1), a boolean or null."""
    if type(value) is int:
        return -MAX_CANONICAL_INTEGER <= value <= MAX_CANONICAL_INTEGER
    return value is None or isinstance(value, str | bool)


def _event_property_is(key: Any, value: Any) -> _OfEvent:
    """Exactly this value, of this type."""
    if not isinstance(key, str) or not _is_simple(value):
        return _NEVER
    path = parse_path(key)

    def holds(facts: EventFacts) -> bool:
        found = facts.value(path)
        return type(found) is type(value) and found == value

    return _OfEvent(holds)


def _event_property_contains(key: Any, value: Any, default: bool) -> _OfEvent | _OfMember:
    """A list that has exactly this value, of this type."""
    if not isinstance(key, str) or not _is_simple(value):
        return _NEVER
    path = parse_path(key)
    if default and value == OWN_USER_ID:
        return _OfMember(
            lambda facts: bool(facts.strings(path)),
            lambda facts, user_id, _: user_id in facts.strings(path),
        )

    def holds(facts: EventFacts) -> bool:
        found = facts.value(path)
        return isinstance(found, list) and any(type(each) is type(value) and each == value for each in found)

    return _OfEvent(holds)


def _room_member_count(comparison: Any) -> _OfEvent:
    """`2`, `==2`, `<2`, `>2`, `<=2` or `>=2`."""
    parsed = _COUNT.fullmatch(comparison) if isinstance(comparison, str) else None
    if parsed is None:
        return _NEVER
    compare, count = _COMPARE[parsed[1] or "=="], int(parsed[2])
    return _OfEvent(lambda facts: compare(facts.member_count, count))


def _may_notify(facts: EventFacts, key: str) -> bool:
    """Whether the sender's power level is that of this kind of notification."""
    try:
        return facts.levels.of_user(facts.sender) >= facts.levels.to_notify(key)
    except BadPowerLevel:
        return False


def _contains_display_name(facts: EventFacts, user_id: str, display_name: str | None) -> bool:
    """The body has the member's display name, between word boundaries and whatever the case."""
    return bool(display_name) and _words(display_name or "").search(facts.value(_BODY)) is not None


@lru_cache(maxsize=2_000)
def _words(text: str) -> re.Pattern[str]:
    return re.compile(f"(?<![A-Za-z0-9_]){re.escape(text)}(?![A-Za-z0-9_])", re.IGNORECASE)


# By identity: rules hold dictionaries, and these live as long as the module.
_COMPILED_DEFAULTS = {id(rule): _compile_rule(rule) for rule in DEFAULT_RULES}

DEFAULT_EVALUATOR: Final = Evaluator(PushRuleset())
"""The default rules of a user who has changed nothing."""
