"""Memberships: join, invite, leave, kick, ban, unban, knock, forget.

Invariant: the auth rules decide, in the log writer and again in the room server; what is asked here beforehand is what they
leave open (kicking who is not there would be a kick of nobody) and what makes a repeated request harmless.
Source: client-server API, "Room membership".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.shared_statement import SharedStatement
from matrix.errors import MatrixError, forbidden, guest_forbidden, unknown
from matrix.events import Event
from writer.aliases import Aliases
from writer.carried_settings import CarriedSettings, predecessor_of
from writer.drafts import Draft
from writer.federating import check_local_user, unknown_room
from writer.guests import GUEST_ACCESS, lets_guests_in
from writer.invite_permissions import InvitePermissions
from writer.log_writer import LogWriter
from writer.permissions import POWER_KEYS, check_may_leave, membership_of
from writer.profiles import Profiles
from writer.rate_limits import RateLimits
from writer.requests import Body, check_room_id, json_object, read_body, required_user_id, session_of, text
from writer.restricted import JOIN_RULES, RestrictedRooms, is_restricted
from writer.rooms_of_user import membership_in
from writer.third_party_invites import ThirdPartyInvites
from writer.views import RoomView, StateKey

SQL = Queries("writer", "membership.sql")

NOT_THE_CLIENTS = frozenset(
    (
        *("membership", "displayname", "avatar_url", "reason", "is_direct"),
        *("third_party_signed", "third_party_invite", "join_authorised_via_users_server"),
    )
)
"""What a join's body cannot say in the member event: what the server says there, and what has a meaning of its own."""

MOST_AT_ONCE = 100
"""Joins that share a look."""


class _BeforeJoin(NamedTuple):
    """`membership` is a letter; the others are JSON: an event, the names of a profile, an event with a predecessor."""

    membership: str | None
    join_rules: str | None
    names: str | None
    create: str | None


class Memberships:
    """What the endpoints of memberships have in common."""

    def __init__(self, log: LogWriter, server_name: str) -> None:
        self.log = log
        self.server_name = server_name

    async def view(self, room_id: str, user_id: str, *more: StateKey) -> tuple[RoomView, Event | None]:
        """The room and the member event of a user in it. M_NOT_FOUND if the room is not known here."""
        key = ("m.room.member", user_id)
        try:
            view = await self.log.view(check_room_id(room_id), [key, *more])
        except MatrixError as error:
            if error.status == 404:
                raise unknown_room(room_id, self.server_name) from error
            raise
        return view, view.state.get(key)

    async def set(self, room_id: str, sender: str, user_id: str, content: dict[str, Any]) -> None:
        """Appends a member event."""
        await self.log.send([Draft(room_id, sender, "m.room.member", content, state_key=user_id)])


class Join:
    """POST /rooms/{room_id}/join, /join/{room_id_or_alias}, /knock/{room_id_or_alias}."""

    def __init__(
        self,
        pool: Pool,
        memberships: Memberships,
        aliases: Aliases,
        profiles: Profiles,
        restricted: RestrictedRooms,
        third_party: ThirdPartyInvites,
        settings: CarriedSettings,
        limits: RateLimits,
    ) -> None:
        self._third_party = third_party
        self._settings = settings
        self._pool = pool
        self._looks = SharedStatement(self._look, most=MOST_AT_ONCE, name="looks before joins")
        self._memberships = memberships
        self._aliases = aliases
        self._profiles = profiles
        self._restricted = restricted
        self._limits = limits

    async def on_post(self, req: Request, resp: Response, room_id: str) -> None:
        """Joins a room by its id."""
        await self._join(req, resp, check_room_id(room_id))

    async def on_post_alias(self, req: Request, resp: Response, room_id_or_alias: str) -> None:
        """Joins a room by its id or alias."""
        await self._join(req, resp, await self._aliases.resolve(room_id_or_alias))

    async def on_post_knock(self, req: Request, resp: Response, room_id_or_alias: str) -> None:
        """Asks to be let in."""
        session, body = session_of(req), await read_body(req, optional=True)
        reason = text(body, "reason")
        room_id = await self._aliases.resolve(room_id_or_alias)
        self._limits.take("join", session.user_id)
        _, member = await self._memberships.view(room_id, session.user_id)
        if membership_of(member) != "knock":
            content = await self._profiles.member(session.user_id, "knock", reason)
            await self._memberships.set(room_id, session.user_id, session.user_id, content)
        resp.media = {"room_id": room_id}

    async def _join(self, req: Request, resp: Response, room_id: str) -> None:
        session, body = session_of(req), await read_body(req, optional=True)
        reason = text(body, "reason")
        signed = json_object(body, "third_party_signed")
        self._limits.take("join", session.user_id)
        before = await self._looks.answer((session.user_id, room_id))
        if before is None:
            raise unknown_room(room_id, self._memberships.server_name)
        membership, rules, names, create = before
        if session.guest:
            view, _ = await self._memberships.view(room_id, session.user_id, GUEST_ACCESS)
            access = view.state.get(GUEST_ACCESS)
            if not lets_guests_in(None if access is None else access.content):
                raise guest_forbidden()
        if membership != "j":
            # Clients mark their joins with fields of their own; that they end up in the event is how every server has it.
            own = {name: value for name, value in body.items() if name not in NOT_THE_CLIENTS}
            content: dict[str, Any] = {**own, "membership": "join", **(orjson.loads(names) if names else {})}
            if reason is not None:
                content["reason"] = reason
            if membership != "i" and signed is not None:
                await self._third_party.accept(room_id, session.user_id, signed)
                membership = "i"
            if membership != "i" and rules is not None and is_restricted(orjson.loads(rules)["content"]):
                view, _ = await self._memberships.view(room_id, session.user_id, JOIN_RULES, *POWER_KEYS)
                authoriser = await self._restricted.authoriser(view, session.user_id)
                if authoriser is not None:
                    content["join_authorised_via_users_server"] = authoriser
            await self._memberships.set(room_id, session.user_id, session.user_id, content)
            if create is not None and (former := predecessor_of(orjson.loads(create)["content"])) is not None:
                await self._settings.carry(session.user_id, former, room_id)
        resp.media = {"room_id": room_id}

    async def _look(self, asked: list[tuple[str, str]]) -> list[_BeforeJoin | None]:
        """What is known of users and rooms, None for a room that is not."""
        user_ids, room_ids = zip(*asked, strict=True)
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                SQL["before_join"], {"user_ids": list(user_ids), "room_ids": list(room_ids)}
            )
            known = {place: _BeforeJoin(*row) for place, *row in await cursor.fetchall()}
        return [known.get(place) for place in range(1, len(asked) + 1)]


class Leave:
    """POST /rooms/{room_id}/leave and /forget. `notices_id` is whose invitations cannot be declined."""

    def __init__(self, pool: Pool, memberships: Memberships, notices_id: str) -> None:
        self._notices_id = notices_id
        self._pool = pool
        self._memberships = memberships

    async def on_post(self, req: Request, resp: Response, room_id: str) -> None:
        """Leaves a room, or declines an invitation to it."""
        session, body = session_of(req), await read_body(req, optional=True)
        reason = text(body, "reason")
        _, member = await self._memberships.view(room_id, session.user_id)
        if member is None:
            raise forbidden("You are not in this room.")
        if membership_of(member) == "ban":
            raise forbidden("You are banned from this room.")
        check_may_leave(member, self._notices_id)
        if membership_of(member) != "leave":
            await self._memberships.set(room_id, session.user_id, session.user_id, _with_reason("leave", reason))
        resp.media = {}

    async def on_post_forget(self, req: Request, resp: Response, room_id: str) -> None:
        """Forgets a room that was left."""
        session = session_of(req)
        await read_body(req, optional=True)
        membership = await membership_in(self._pool, session.user_id, check_room_id(room_id))
        if membership is None or membership not in "lb":
            # "The user has not left the room."
            raise unknown(400, f"User {session.user_id} is in room {room_id}, or never was.")
        await self._memberships.log.append_entry(
            type="forget", user_id=session.user_id, content={"room_id": room_id}, room_id=room_id
        )
        resp.media = {}


class Moderation:
    """POST /rooms/{room_id}/invite, /kick, /ban, /unban."""

    def __init__(
        self,
        memberships: Memberships,
        profiles: Profiles,
        permissions: InvitePermissions,
        third_party: ThirdPartyInvites,
        limits: RateLimits,
    ) -> None:
        self._third_party = third_party
        self._memberships = memberships
        self._profiles = profiles
        self._permissions = permissions
        self._limits = limits

    async def on_post_invite(self, req: Request, resp: Response, room_id: str) -> None:
        """Invites a user, by their id or by an address."""
        session, body = session_of(req), await read_body(req)
        check_room_id(room_id)
        if body.get("user_id") is None and any(name in body for name in ("medium", "address", "id_server")):
            invitee = self._third_party.invitee_of(body)
            self._limits.take("invite", session.user_id)
            await self._third_party.invite(room_id, session.user_id, invitee)
            resp.media = {}
            return
        user_id, reason = required_user_id(body), text(body, "reason")
        self._limits.take("invite", session.user_id)
        check_local_user(user_id, self._memberships.server_name)
        await self._permissions.check(session.user_id, [user_id])
        content = await self._profiles.member(user_id, "invite", reason)
        await self._memberships.set(room_id, session.user_id, user_id, content)
        resp.media = {}

    async def on_post_kick(self, req: Request, resp: Response, room_id: str) -> None:
        """Removes a user who is joined, invited or knocking."""
        sender, user_id, body = await self._about(req, room_id)
        _, member = await self._memberships.view(room_id, user_id)
        if membership_of(member) not in ("join", "invite", "knock"):
            raise forbidden("The user is not in this room.")
        await self._memberships.set(room_id, sender, user_id, _with_reason("leave", text(body, "reason")))
        resp.media = {}

    async def on_post_ban(self, req: Request, resp: Response, room_id: str) -> None:
        """Bans a user."""
        sender, user_id, body = await self._about(req, room_id)
        await self._memberships.set(room_id, sender, user_id, _with_reason("ban", text(body, "reason")))
        resp.media = {}

    async def on_post_unban(self, req: Request, resp: Response, room_id: str) -> None:
        """Lifts a ban."""
        sender, user_id, body = await self._about(req, room_id)
        _, member = await self._memberships.view(room_id, user_id)
        if membership_of(member) != "ban":
            raise MatrixError(403, "M_BAD_STATE", "The user is not banned.")
        await self._memberships.set(room_id, sender, user_id, _with_reason("leave", text(body, "reason")))
        resp.media = {}

    async def _about(self, req: Request, room_id: str) -> tuple[str, str, Body]:
        body = await read_body(req)
        check_room_id(room_id)
        user_id = required_user_id(body)
        text(body, "reason")
        session = session_of(req)
        self._limits.take("message", session.user_id)
        return session.user_id, user_id, body


def _with_reason(membership: str, reason: str | None) -> dict[str, Any]:
    return {"membership": membership} if reason is None else {"membership": membership, "reason": reason}
