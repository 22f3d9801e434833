"""Sending events: messages and state. The first of these is the hottest path there is.

Invariant: a transaction id is claimed in the append itself, so a repeated request gets the first one's event whoever answers it.
Source: client-server API, "Sending events to a room".
"""

from __future__ import annotations

from typing import Any

import orjson
from falcon.asgi import Request, Response

from matrix.auth_selection import AuthError
from matrix.errors import (
    MatrixError,
    bad_json,
    bad_state,
    guest_forbidden,
    invalid_param,
    too_large,
    user_suspended,
)
from matrix.identifiers import fits, is_room_alias, is_user_id
from matrix.power_level_rules import check_form_of_power_levels
from matrix.power_levels import BadPowerLevel, check_integers
from writer.aliases import Aliases
from writer.drafts import Draft
from writer.federating import check_local_invitee
from writer.guests import GUEST_ACCESS, Guests
from writer.invite_permissions import InvitePermissions
from writer.log_writer import LogWriter
from writer.permissions import CREATE, LEVELS, POWER_KEYS, check_may_leave, membership_of
from writer.rate_limits import RateLimits
from writer.redacting import Redacting, check_txn_id
from writer.relating import Relating
from writer.requests import Body, check_room_id, read_body, session_of, text
from writer.restricted import JOIN_RULES, RestrictedRooms
from writer.views import RoomView, StateKey

MOST_ALIASES = 100
MEMBER = "m.room.member"
AUTHORISER = "join_authorised_via_users_server"
_ASKED: dict[str, tuple[StateKey, ...]] = {MEMBER: (JOIN_RULES, *POWER_KEYS), LEVELS[0]: (CREATE,)}
"""What else of a room is looked at before a state event of a type is set."""


def check_type(event_type: str) -> str:
    """The event type; M_INVALID_PARAM when empty, M_TOO_LARGE beyond 255 bytes, M_BAD_STATE for what makes a room."""
    if not event_type:
        raise invalid_param("The event type is empty.")
    if event_type == "m.room.create":
        raise bad_state("A room is made once.")
    if not fits(event_type):
        raise too_large("An event type may have 255 bytes.")
    return event_type


class Send:
    """PUT /rooms/{room_id}/send/{event_type}/{txn_id}."""

    def __init__(
        self, log: LogWriter, relating: Relating, redacting: Redacting, guests: Guests, limits: RateLimits
    ) -> None:
        self._log = log
        self._guests = guests
        self._relating = relating
        self._redacting = redacting
        self._limits = limits

    async def on_put(self, req: Request, resp: Response, room_id: str, event_type: str, txn_id: str) -> None:
        """Sends an event without a state key."""
        session = session_of(req)
        if session.suspended and event_type != "m.room.redaction":
            raise user_suspended()
        self._limits.take("message", session.user_id)
        draft = Draft(
            check_room_id(room_id),
            session.user_id,
            check_type(event_type),
            await read_body(req),
            device_id=session.device_id,
            txn_id=check_txn_id(txn_id),
            txn_path=f"send/{room_id}/{event_type}",
        )
        if "m.relates_to" in draft.content:
            await self._relating.check(draft)
        redacted = None
        if event_type == "m.room.redaction" and (redacts := text(draft.content, "redacts")) is not None:
            # "In rooms with a version older than 11 they MUST move the redacts property … to the top level": where it is
            # written is the version's own affair.
            del draft.content["redacts"]
            draft.redacts = redacts
            redacted = await self._redacting.check(session.user_id, room_id, redacts, own_only=session.suspended)
        elif session.suspended:
            raise user_suspended()
        sent = await self._log.send([draft])
        if redacted == GUEST_ACCESS[0]:
            await self._guests.expel(room_id)
        resp.data = orjson.dumps({"event_id": sent[0].event_id})


class State:
    """PUT /rooms/{room_id}/state/{event_type}/{state_key}."""

    def __init__(
        self,
        log: LogWriter,
        aliases: Aliases,
        guests: Guests,
        permissions: InvitePermissions,
        restricted: RestrictedRooms,
        limits: RateLimits,
        server_name: str,
        notices_id: str,
    ) -> None:
        self._notices_id = notices_id
        self._log = log
        self._aliases = aliases
        self._guests = guests
        self._permissions = permissions
        self._restricted = restricted
        self._limits = limits
        self._server_name = server_name

    async def on_put(self, req: Request, resp: Response, room_id: str, event_type: str, state_key: str = "") -> None:
        """Sets a state event; one that says what the room's says already is not sent again."""
        session = session_of(req)
        self._limits.take("message", session.user_id)
        content = await read_body(req)
        check_room_id(room_id)
        check_type(event_type)
        if not fits(state_key):
            raise too_large("A state key may have 255 bytes.")
        if event_type == MEMBER:
            if session.guest and content.get("membership") != "leave":
                # Whether they may be let in is asked where they join.
                raise guest_forbidden()
            check_local_invitee(content, state_key, self._server_name)
            _check_member(content)
            if content.get("membership") == "invite" and is_user_id(state_key):
                await self._permissions.check(session.user_id, [state_key])
        key = (event_type, state_key)
        own = (MEMBER, session.user_id)
        more = [asked for asked in (*_ASKED[event_type], own) if asked != key] if event_type in _ASKED else []
        view = await self._log.view(room_id, [key, *more])
        current = view.state.get(key)
        if current is not None and current.sender == session.user_id and _same(current.content, content):
            resp.data = orjson.dumps({"event_id": current.event_id})
            return
        if key == ("m.room.canonical_alias", ""):
            await self._check_aliases(room_id, content, {} if current is None else current.content)
        elif key == LEVELS:
            _check_levels(content, view, session.user_id)
        elif event_type == MEMBER:
            # Every event has this server's signature: whose word a join rests on is not for who joins to say.
            content.pop(AUTHORISER, None)
            if state_key == session.user_id and content.get("membership") == "join":
                await self._vouch(content, view, session.user_id)
            elif state_key == session.user_id and content.get("membership") == "leave":
                check_may_leave(current, self._notices_id)
        sent = await self._log.send([Draft(room_id, session.user_id, event_type, content, state_key=state_key)])
        if (event_type, state_key) == GUEST_ACCESS:
            await self._guests.expel(room_id)
        resp.data = orjson.dumps({"event_id": sent[0].event_id})

    async def _vouch(self, content: Body, view: RoomView, user_id: str) -> None:
        """Names who authorises a join, where one is needed. M_FORBIDDEN where nobody does."""
        if membership_of(view.state.get((MEMBER, user_id))) not in ("join", "invite"):
            authoriser = await self._restricted.authoriser(view, user_id)
            if authoriser is not None:
                content[AUTHORISER] = authoriser

    async def _check_aliases(self, room_id: str, content: Body, before: dict[str, Any]) -> None:
        # "the server MUST verify that each alias that was not in the event before points to the room": M_BAD_ALIAS if
        # not, M_INVALID_PARAM if it is no alias (client-server API, PUT …/state).
        known = set(_aliases_of(before, strict=False))
        for alias in _aliases_of(content, strict=True):
            if alias not in known and await self._aliases.room_of(alias) != room_id:
                raise MatrixError(400, "M_BAD_ALIAS", f"{alias} does not point to this room.")


def _check_member(content: Body) -> None:
    """M_BAD_JSON for a third-party invite without what is signed, of which servers do not agree what a redaction leaves."""
    invite = content.get("third_party_invite", {"signed": {}})
    if not isinstance(invite, dict) or not isinstance(invite.get("signed"), dict):
        raise bad_json("third_party_invite must have signed.")


def _check_levels(content: Body, view: RoomView, user_id: str) -> None:
    """M_BAD_JSON for power levels that nobody could set; who is not in the room is told nothing of who made it."""
    create = view.state.get(CREATE)
    if create is not None and membership_of(view.state.get((MEMBER, user_id))) == "join":
        try:
            # "A homeserver should take reasonable precautions to prevent users from sending" strings and floats in old rooms.
            check_integers(content)
            check_form_of_power_levels(content, create)
        except AuthError as error:
            raise bad_json(error.reason) from error
        except BadPowerLevel as error:
            raise bad_json(f"{error}.") from error


def _same(one: Any, other: Any) -> bool:
    # Not by ==, to which 1, 1.0 and true are equal.
    try:
        return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return False


def _aliases_of(content: dict[str, Any], *, strict: bool) -> list[str]:
    alias, others = content.get("alias"), content.get("alt_aliases")
    found = ([alias] if alias is not None and alias != "" else []) + (others if isinstance(others, list) else [])
    if strict:
        if others is not None and not isinstance(others, list):
            raise bad_json("alt_aliases must be a list.")
        if len(found) > MOST_ALIASES:
            raise too_large(f"A room may name {MOST_ALIASES} aliases.")
        if not all(is_room_alias(one) for one in found):
            raise invalid_param("That is not a room alias.")
    return [one for one in found if isinstance(one, str)]
