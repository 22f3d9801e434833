"""Global account data in a response.

Push rules are stored as a user's changes to the server's rules; clients are shown all rules, whether anything was changed or not.
Source: client-server API, "Push notifications: Events", m.push_rules.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from matrix.filters import EventFilter
from matrix.push_rules import PushRuleset
from readers.sync import response
from readers.sync.unread import PUSH_RULES
from readers.sync.users import AccountData


def render_account_data(
    user_id: str, entries: Iterable[AccountData], chosen: EventFilter, *, whole: bool
) -> list[bytes]:
    """The events of global account data, the last of each type. `whole`: the client knows nothing yet."""
    latest = {entry.type: entry.content for entry in entries if not entry.room_id}
    if whole:
        latest.setdefault(PUSH_RULES, b"{}")
    if PUSH_RULES in latest:
        latest[PUSH_RULES] = _push_rules(user_id, latest[PUSH_RULES])
    return [response.account_data_event(kind, content) for kind, content in latest.items() if chosen.matches(kind)]


def _push_rules(user_id: str, stored: bytes) -> bytes:
    try:
        ruleset = PushRuleset.from_stored(orjson.loads(stored))
    except (KeyError, TypeError, ValueError, AttributeError):
        ruleset = PushRuleset()
    return orjson.dumps({"global": ruleset.client_form(user_id)})
