"""Push rules: the defaults and what a user changed about them.

Invariant: only the changes are stored, so that the defaults can be corrected for everybody; they are read and written under a
claim, and as a whole, so that they have a bound in bytes. Source: client-server API, "Push rules".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import orjson
from falcon.asgi import Request, Response

from matrix.errors import missing_param, too_large
from matrix.push_rules import PushRuleset
from writer.account_data import PUSH_RULES, AccountData
from writer.claims import Claims
from writer.requests import read_body, session_of

MOST_BYTES: Final = 524_288
"""What a user has changed about the default rules, as it is stored: room for `matrix.push_rules.MAX_RULES` ordinary rules."""


class PushRules:
    """/pushrules/, /pushrules/global/ and what lies below."""

    def __init__(self, data: AccountData, claims: Claims) -> None:
        self._data = data
        self._claims = claims

    async def on_get_all(self, req: Request, resp: Response) -> None:
        """All rulesets: the global one."""
        user_id = session_of(req).user_id
        resp.media = {"global": (await self._rules(user_id)).client_form(user_id)}

    async def on_get_global(self, req: Request, resp: Response) -> None:
        """The global ruleset."""
        user_id = session_of(req).user_id
        resp.media = (await self._rules(user_id)).client_form(user_id)

    async def on_get(self, req: Request, resp: Response, kind: str, rule_id: str) -> None:
        """One rule."""
        user_id = session_of(req).user_id
        resp.media = (await self._rules(user_id)).rule(kind, rule_id).client_form(user_id)

    async def on_put(self, req: Request, resp: Response, kind: str, rule_id: str) -> None:
        """Adds or changes a rule of the user's own."""
        body = await read_body(req)
        before, after = req.get_param("before"), req.get_param("after")
        await self._change(req, lambda rules: rules.put(kind, rule_id, body, before=before, after=after))
        resp.media = {}

    async def on_delete(self, req: Request, resp: Response, kind: str, rule_id: str) -> None:
        """Removes a rule of the user's own."""
        await self._change(req, lambda rules: rules.delete(kind, rule_id))
        resp.media = {}

    async def on_get_enabled(self, req: Request, resp: Response, kind: str, rule_id: str) -> None:
        """Whether a rule is on."""
        resp.media = {"enabled": (await self._rules(session_of(req).user_id)).rule(kind, rule_id).enabled}

    async def on_put_enabled(self, req: Request, resp: Response, kind: str, rule_id: str) -> None:
        """Switches a rule on or off."""
        body = await read_body(req)
        if body.get("enabled") is None:
            raise missing_param("enabled is missing.")
        await self._change(req, lambda rules: rules.set_enabled(kind, rule_id, body["enabled"]))
        resp.media = {}

    async def on_get_actions(self, req: Request, resp: Response, kind: str, rule_id: str) -> None:
        """What a rule does."""
        rule = (await self._rules(session_of(req).user_id)).rule(kind, rule_id)
        resp.media = {"actions": list(rule.actions)}

    async def on_put_actions(self, req: Request, resp: Response, kind: str, rule_id: str) -> None:
        """Gives a rule other actions."""
        body = await read_body(req)
        if body.get("actions") is None:
            raise missing_param("actions is missing.")
        await self._change(req, lambda rules: rules.set_actions(kind, rule_id, body["actions"]))
        resp.media = {}

    async def _rules(self, user_id: str) -> PushRuleset:
        return PushRuleset.from_stored(await self._data.get(user_id, "", PUSH_RULES) or {})

    async def _change(self, req: Request, change: Callable[[PushRuleset], PushRuleset]) -> None:
        user_id = session_of(req).user_id
        async with self._claims.hold(PUSH_RULES, user_id):
            rules = await self._rules(user_id)
            changed = change(rules).stored()
            size = len(orjson.dumps(changed))
            if size > MOST_BYTES and size > len(orjson.dumps(rules.stored())):
                raise too_large("The push rules of a user may have 512 KiB.")
            await self._data.put(user_id, "", PUSH_RULES, changed)
