"""What a user has said about what is to notify them: push rules, whom they ignore, whose invitations they take.

Invariant: nobody is notified of what they are not told: messages of those they ignore, and invitations they do not take. Source:
client-server API, "Push notifications", "Ignoring Users", "Invite permission".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from matrix.events import Event
from matrix.ignored_users import IGNORED_USERS, ignored_users
from matrix.invite_permission import INVITE_PERMISSION_TYPES, InvitePermission, Permission
from matrix.push_evaluation import DEFAULT_EVALUATOR, SILENT, Evaluator, EventFacts, Notification, compile_ruleset
from matrix.push_rules import PushRuleset

PUSH_RULES: Final = "m.push_rules"
TYPES: Final = (PUSH_RULES, IGNORED_USERS, *INVITE_PERMISSION_TYPES)
"""The types of global account data that preferences are made of."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """The preferences of one user."""

    evaluator: Evaluator = DEFAULT_EVALUATOR
    ignored: frozenset[str] = frozenset()
    invites: InvitePermission = field(default_factory=InvitePermission)

    @classmethod
    def parse(cls, contents: Mapping[str, Any]) -> Preferences:
        """Those of account data contents by type."""
        evaluator = _evaluator(contents[PUSH_RULES]) if PUSH_RULES in contents else DEFAULT_EVALUATOR
        return cls(evaluator, ignored_users(contents.get(IGNORED_USERS)), InvitePermission.parse(contents))

    def outcome(self, event: Event, facts: EventFacts, user_id: str, display_name: str | None) -> Notification:
        """What an event does to the user, by the name they have in its room."""
        if event.sender in self.ignored and event.state_key is None:
            return SILENT
        if event.type == "m.room.member" and event.state_key == user_id and not self._takes(event):
            return SILENT
        return self.evaluator.evaluate(facts, user_id, display_name)

    def _takes(self, event: Event) -> bool:
        """Whether an event about the user's membership is told to them."""
        invites = event.content.get("membership") == "invite"
        return not invites or (event.sender not in self.ignored and self.invites.of(event.sender) is Permission.ALLOW)


NONE: Final = Preferences()
"""Those of who has said nothing."""


def _evaluator(stored: Any) -> Evaluator:
    try:
        return compile_ruleset(PushRuleset.from_stored(stored))
    except (KeyError, TypeError, ValueError, AttributeError):
        return DEFAULT_EVALUATOR
