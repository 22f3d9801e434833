"""Push rules: what the specification sets, and what a user makes of it.

A `PushRuleset` is the server-default rules with one user's changes: rules of their own, and rules enabled, disabled or given
other actions. It is immutable; each change returns another, and only the changes are stored, so that a new default rule reaches
everybody. Evaluating rules is `push_evaluation`'s. Source: client-server API, "Push notifications", v1.19.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from matrix.errors import MatrixError, bad_json, invalid_param, missing_param, not_found
from matrix.identifiers import fits

__all__ = ["DEFAULT_RULES", "KINDS", "MASTER", "MAX_RULES", "OWN_USER_ID", "PushRule", "PushRuleset"]

KINDS: Final = ("override", "content", "room", "sender", "underride")
"""The kinds of rules, in the order in which they are checked."""

OWN_USER_ID: Final = "[the user's Matrix ID]"
"""Stands, as the value of a default rule's condition, for the id of whoever the rule is evaluated for."""

MASTER: Final = ".m.rule.master"
"""The one default rule that comes before a user's own."""

MAX_RULES: Final = 1_000
"""The most rules of their own that a user may have."""

_MAX_CONDITIONS = 100
_MAX_ACTIONS = 20
HISTORICAL_ACTIONS: Final = ("dont_notify", "coalesce")
"""Kept as the client gave them, and without a meaning: "Clients and homeservers MUST ignore these actions"."""

Json = dict[str, Any]
Action = str | Json


@dataclass(frozen=True, slots=True)
class PushRule:
    """One rule. `conditions` is for override and underride rules alone, `pattern` for content rules alone."""

    kind: str
    rule_id: str
    actions: tuple[Action, ...] = ()
    conditions: tuple[Json, ...] | None = None
    pattern: str | None = None
    enabled: bool = True
    default: bool = False

    def client_form(self, user_id: str) -> Json:
        """The rule as the API shows it to a user."""
        form: Json = {
            "rule_id": self.rule_id,
            "default": self.default,
            "enabled": self.enabled,
            "actions": list(self.actions),
        }
        if self.conditions is not None:
            form["conditions"] = [dict(condition) for condition in self.conditions]
            if self.default:
                for condition in form["conditions"]:
                    condition.update({name: user_id for name, value in condition.items() if value == OWN_USER_ID})
        if self.pattern is not None:
            form["pattern"] = self.pattern
        return form


def _match(key: str, pattern: str) -> Json:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _default(kind: str, name: str, conditions: Sequence[Json], *actions: Action, enabled: bool = True) -> PushRule:
    return PushRule(kind, f".m.rule.{name}", tuple(actions), tuple(conditions), enabled=enabled, default=True)


_SOUND: Json = {"set_tweak": "sound", "value": "default"}
_RING: Json = {"set_tweak": "sound", "value": "ring"}
_HIGHLIGHT: Json = {"set_tweak": "highlight"}
_TWO_MEMBERS: Json = {"kind": "room_member_count", "is": "2"}
_MENTIONED: Json = {
    "kind": "event_property_contains",
    "key": r"content.m\.mentions.user_ids",
    "value": OWN_USER_ID,
}
_ROOM_MENTIONED: Json = {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True}
_MAY_MENTION_ROOM: Json = {"kind": "sender_notification_permission", "key": "room"}
_REPLACES: Json = {"kind": "event_property_is", "key": r"content.m\.relates_to.rel_type", "value": "m.replace"}
_MEMBER = _match("type", "m.room.member")
_MESSAGE = _match("type", "m.room.message")
_ENCRYPTED = _match("type", "m.room.encrypted")
_INVITE = _match("content.membership", "invite")
_OF_ROOM = _match("state_key", "")
_ABOUT_ME = _match("state_key", OWN_USER_ID)

DEFAULT_RULES: Final[tuple[PushRule, ...]] = (
    _default("override", "master", [], enabled=False),
    _default("override", "suppress_notices", [_match("content.msgtype", "m.notice")]),
    _default("override", "invite_for_me", [_MEMBER, _INVITE, _ABOUT_ME], "notify", _SOUND),
    _default("override", "member_event", [_MEMBER]),
    _default("override", "is_user_mention", [_MENTIONED], "notify", _SOUND, _HIGHLIGHT),
    _default("override", "is_room_mention", [_ROOM_MENTIONED, _MAY_MENTION_ROOM], "notify", _HIGHLIGHT),
    _default("override", "tombstone", [_match("type", "m.room.tombstone"), _OF_ROOM], "notify", _HIGHLIGHT),
    _default("override", "reaction", [_match("type", "m.reaction")]),
    _default("override", "room.server_acl", [_match("type", "m.room.server_acl"), _OF_ROOM]),
    _default("override", "suppress_edits", [_REPLACES]),
    _default("underride", "call", [_match("type", "m.call.invite")], "notify", _RING),
    _default("underride", "encrypted_room_one_to_one", [_TWO_MEMBERS, _ENCRYPTED], "notify", _SOUND),
    _default("underride", "room_one_to_one", [_TWO_MEMBERS, _MESSAGE], "notify", _SOUND),
    _default("underride", "message", [_MESSAGE], "notify"),
    _default("underride", "encrypted", [_ENCRYPTED], "notify"),
)
"""The server-default rules, in the order of the specification."""


@dataclass(frozen=True, slots=True)
class PushRuleset:
    """The default rules with one user's changes."""

    own: tuple[PushRule, ...] = ()
    """The user's own rules; within a kind the most important first."""
    enabled: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """By kind and id, the default rules that the user has switched on or off."""
    actions: Mapping[tuple[str, str], tuple[Action, ...]] = field(default_factory=dict)
    """By kind and id, the actions that the user has given to default rules."""

    @property
    def is_default(self) -> bool:
        """Whether the user has changed nothing, so that what is made of the default rules can be shared."""
        return not (self.own or self.enabled or self.actions)

    def __iter__(self) -> Iterator[PushRule]:
        """All rules, disabled ones too, in the order in which they are checked."""
        defaults = [self._changed(rule) for rule in DEFAULT_RULES]
        # "Server-default rules operate at a lower priority than user-defined rules, except for .m.rule.master"
        yield from (rule for rule in defaults if rule.rule_id == MASTER)
        for kind in KINDS:
            yield from (rule for rule in self.own if rule.kind == kind)
            yield from (rule for rule in defaults if rule.kind == kind and rule.rule_id != MASTER)

    def _changed(self, rule: PushRule) -> PushRule:
        key = (rule.kind, rule.rule_id)
        if key not in self.enabled and key not in self.actions:
            return rule
        enabled, actions = self.enabled.get(key, rule.enabled), self.actions.get(key, rule.actions)
        return replace(rule, enabled=enabled, actions=actions)

    def client_form(self, user_id: str) -> Json:
        """The ruleset as the API and `m.push_rules` show it under `global`: for each kind a list of rules."""
        form: dict[str, list[Json]] = {kind: [] for kind in KINDS}
        for rule in self:
            form[rule.kind].append(rule.client_form(user_id))
        return form

    def rule(self, kind: str, rule_id: str) -> PushRule:
        """One rule; M_NOT_FOUND if there is none, as of a kind that does not exist."""
        for rule in self:
            if rule.kind == kind and rule.rule_id == rule_id:
                return rule
        raise not_found("The push rule was not found.")

    def put(
        self, kind: str, rule_id: str, body: Json, *, before: str | None = None, after: str | None = None
    ) -> PushRuleset:
        """Add a rule of the user's own, or change it, as the body of a request says.

        Raises M_BAD_JSON, M_MISSING_PARAM or M_INVALID_PARAM for a rule that is none, and M_UNKNOWN (400) if there is no
        rule `before` or `after` which it could go.
        """
        rule = _parse_rule(kind, rule_id, body)
        rules = list(self.own)
        at = next((index for index, each in enumerate(rules) if (each.kind, each.rule_id) == (kind, rule_id)), None)
        if at is not None:
            # What is changed stays on or off as it was, and where it was unless a place is given.
            rule = replace(rule, enabled=rules[at].enabled)
            if before is None and after is None:
                rules[at] = rule
                return replace(self, own=tuple(rules))
            del rules[at]
        elif len(rules) >= MAX_RULES:
            raise invalid_param(f"A user may have {MAX_RULES} push rules.")
        # "If both after and before are provided, the rule must be the next most important one with respect to before."
        neighbour = before if before is not None else after
        at = 0
        if neighbour is not None:
            places = [index for index, each in enumerate(rules) if (each.kind, each.rule_id) == (kind, neighbour)]
            if not places:
                raise MatrixError(400, "M_UNKNOWN", f"before/after rule not found: {neighbour}")
            at = places[0] if before is not None else places[0] + 1
        rules.insert(at, rule)
        return replace(self, own=tuple(rules))

    def delete(self, kind: str, rule_id: str) -> PushRuleset:
        """Remove a rule of the user's own; M_NOT_FOUND if it is none, default rules included."""
        kept = tuple(rule for rule in self.own if (rule.kind, rule.rule_id) != (kind, rule_id))
        if len(kept) == len(self.own):
            raise not_found("The push rule was not found.")
        return replace(self, own=kept)

    def set_enabled(self, kind: str, rule_id: str, enabled: Any) -> PushRuleset:
        """Switch a rule on or off. Raises M_NOT_FOUND, and M_BAD_JSON for what is no boolean."""
        if not isinstance(enabled, bool):
            raise bad_json("enabled must be a boolean.")
        if self.rule(kind, rule_id).default:
            return replace(self, enabled={**self.enabled, (kind, rule_id): enabled})
        return self._with_own(kind, rule_id, enabled=enabled)

    def set_actions(self, kind: str, rule_id: str, actions: Any) -> PushRuleset:
        """Give a rule other actions. Raises M_NOT_FOUND, and M_BAD_JSON or M_INVALID_PARAM for what are no actions."""
        parsed = _parse_actions(actions)
        if self.rule(kind, rule_id).default:
            return replace(self, actions={**self.actions, (kind, rule_id): parsed})
        return self._with_own(kind, rule_id, actions=parsed)

    def for_successor(self, old_room: str, new_room: str) -> PushRuleset:
        """With every rule of the user's own about a room repeated for the room that replaced it; itself if there is none."""
        known = {(rule.kind, rule.rule_id) for rule in self.own}
        about = _match("room_id", old_room)
        rules: list[PushRule] = []
        for rule in self.own:
            rules.append(rule)
            named = (rule.kind == "room" and rule.rule_id == old_room) or about in (rule.conditions or ())
            if named and (rule.kind, new_room) not in known and len(known) < MAX_RULES:
                known.add((rule.kind, new_room))
                conditions = rule.conditions and tuple(
                    {**about, "pattern": new_room} if condition == about else condition for condition in rule.conditions
                )
                rules.append(replace(rule, rule_id=new_room, conditions=conditions))
        return replace(self, own=tuple(rules)) if len(rules) > len(self.own) else self

    def _with_own(self, kind: str, rule_id: str, **changes: Any) -> PushRuleset:
        key = (kind, rule_id)
        changed = (replace(rule, **changes) if (rule.kind, rule.rule_id) == key else rule for rule in self.own)
        return replace(self, own=tuple(changed))

    def stored(self) -> Json:
        """The user's changes as a JSON object, from which `from_stored` makes this ruleset again."""
        return {
            "own": [
                {
                    "kind": rule.kind,
                    "rule_id": rule.rule_id,
                    "actions": list(rule.actions),
                    "conditions": None if rule.conditions is None else list(rule.conditions),
                    "pattern": rule.pattern,
                    "enabled": rule.enabled,
                }
                for rule in self.own
            ],
            "enabled": {"/".join(key): enabled for key, enabled in self.enabled.items()},
            "actions": {"/".join(key): list(actions) for key, actions in self.actions.items()},
        }

    @classmethod
    def from_stored(cls, stored: Json) -> PushRuleset:
        """The ruleset of what `stored` gave; an empty object is that of a user who has changed nothing."""
        return cls(
            own=tuple(
                PushRule(
                    rule["kind"],
                    rule["rule_id"],
                    tuple(rule["actions"]),
                    None if rule["conditions"] is None else tuple(rule["conditions"]),
                    rule["pattern"],
                    rule["enabled"],
                )
                for rule in stored.get("own", ())
            ),
            enabled={_key(name): enabled for name, enabled in stored.get("enabled", {}).items()},
            actions={_key(name): tuple(actions) for name, actions in stored.get("actions", {}).items()},
        )


def _key(name: str) -> tuple[str, str]:
    kind, _, rule_id = name.partition("/")
    return kind, rule_id


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise invalid_param(f"There is no kind {kind!r} of push rules.")


def _parse_rule(kind: str, rule_id: str, body: Json) -> PushRule:
    _check_kind(kind)
    # "If the string starts with a dot, the request MUST be rejected. Slashes and backslashes are also not allowed."
    if not rule_id or rule_id.startswith(".") or "/" in rule_id or "\\" in rule_id or not fits(rule_id):
        raise invalid_param("The rule ID may not be empty, start with a dot, hold slashes, or have over 255 bytes.")
    if "actions" not in body:
        raise missing_param("A push rule needs actions.")
    actions = _parse_actions(body["actions"])
    if kind == "content":
        pattern = body.get("pattern")
        if not isinstance(pattern, str):
            raise missing_param("A content rule needs a pattern.")
        return PushRule(kind, rule_id, actions, pattern=pattern)
    if kind in ("room", "sender"):
        return PushRule(kind, rule_id, actions)
    conditions = body.get("conditions", [])
    if not isinstance(conditions, list) or not all(isinstance(condition, dict) for condition in conditions):
        raise bad_json("conditions must be a list of objects.")
    if len(conditions) > _MAX_CONDITIONS:
        raise invalid_param(f"A push rule may have {_MAX_CONDITIONS} conditions.")
    if not all(isinstance(condition.get("kind"), str) for condition in conditions):
        raise missing_param("A condition needs a kind.")
    for condition in conditions:
        _check_condition(condition)
    return PushRule(kind, rule_id, actions, tuple(conditions))


def _check_condition(condition: Json) -> None:
    """M_BAD_JSON for a parameter that has another type than the specification gives it, whatever the kind."""
    for name in ("key", "pattern", "is"):
        if not isinstance(condition.get(name, ""), str):
            raise bad_json(f"{name} of a condition must be a string.")
    if not isinstance(condition.get("value"), str | int | None):
        raise bad_json("value of a condition must be a string, an integer, a boolean or null.")


def _parse_actions(actions: Any) -> tuple[Action, ...]:
    if not isinstance(actions, list):
        raise bad_json("actions must be a list.")
    if len(actions) > _MAX_ACTIONS:
        raise invalid_param(f"A push rule may have {_MAX_ACTIONS} actions.")
    for action in actions:
        if isinstance(action, dict):
            if not isinstance(action.get("set_tweak"), str):
                raise invalid_param("An action that is an object has a set_tweak.")
        elif not isinstance(action, str):
            raise bad_json("An action is a string or an object.")
        elif action != "notify" and action not in HISTORICAL_ACTIONS:
            raise invalid_param(f"There is no action {action!r:.40}.")
    return tuple(actions)
