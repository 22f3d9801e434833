"""POST /createRoom.

Invariant: all events of a new room are one append, accepted together or not at all. Its alias is held while it is made, so that a
room is never made under an alias that somebody else has just taken. What other servers have to say is asked before; once the
room is there its id is answered, also when an identity server then fails to take an invitation.
"""

from __future__ import annotations

import contextlib

import structlog
from falcon.asgi import Request, Response

from matrix.errors import MatrixError
from matrix.identifiers import new_room_id
from writer.aliases import Aliases
from writer.carried_settings import CarriedSettings, predecessor_of
from writer.drafts import Draft
from writer.federating import check_local_user
from writer.invite_permissions import InvitePermissions
from writer.log_writer import LogWriter
from writer.profiles import Profiles
from writer.rate_limits import RateLimits
from writer.requests import read_body, session_of
from writer.room_plan import plan_room
from writer.third_party_invites import Invitee, ThirdPartyInvites

log = structlog.get_logger(__name__)


class CreateRoom:
    """POST /createRoom."""

    def __init__(
        self,
        log: LogWriter,
        aliases: Aliases,
        profiles: Profiles,
        settings: CarriedSettings,
        permissions: InvitePermissions,
        third_party: ThirdPartyInvites,
        limits: RateLimits,
        server_name: str,
        default_version: str,
    ) -> None:
        self._log = log
        self._aliases = aliases
        self._profiles = profiles
        self._settings = settings
        self._permissions = permissions
        self._third_party = third_party
        self._limits = limits
        self._server_name = server_name
        self._default_version = default_version

    async def on_post(self, req: Request, resp: Response) -> None:
        """Makes a room."""
        session, body = session_of(req), await read_body(req)
        plan = plan_room(body, session.user_id, self._default_version)
        invitees = [self._third_party.invitee_of(one) for one in plan.third_party]
        self._limits.take("room", session.user_id)
        if invitees:
            self._limits.take("invite", session.user_id, len(invitees))
        unknown: list[Invitee] = []
        for invitee in invitees:
            user_id = await self._third_party.user_of(invitee)
            if user_id is None:
                unknown.append(invitee)
            elif user_id not in (session.user_id, *plan.invite):
                plan.invite.append(user_id)
        for user_id in plan.invite:
            check_local_user(user_id, self._server_name)
        await self._permissions.check(session.user_id, plan.invite)
        alias = None if plan.alias_localpart is None else f"#{plan.alias_localpart}:{self._server_name}"
        if alias is not None:
            self._aliases.check(alias)
        members = await self._profiles.names([session.user_id, *plan.invite])

        def rest(room_id: str) -> list[Draft]:
            return plan.rest(room_id, alias, members)

        async with contextlib.AsyncExitStack() as held:
            if alias is not None:
                await held.enter_async_context(self._aliases.hold(alias))
            try:
                room_id = await self._log.create_room(plan.version, plan.create(new_room_id(self._server_name)), rest)
            except MatrixError as error:
                if error.status != 403:
                    raise
                # "The initial state implied by the parameters to the request is invalid": nobody else has said anything in it.
                raise MatrixError(400, "M_INVALID_ROOM_STATE", error.error) from None
            if alias is not None:
                await self._aliases.put(session.user_id, alias, room_id)
        if plan.published:
            await self._log.append_entry(
                type="directory",
                user_id=session.user_id,
                content={"room_id": room_id, "published": True},
                room_id=room_id,
            )
        if (former := predecessor_of(plan.create_content)) is not None:
            await self._settings.carry(session.user_id, former, room_id)
        for invitee in unknown:
            await self._announce(room_id, session.user_id, invitee)
        resp.media = {"room_id": room_id}

    async def _announce(self, room_id: str, sender: str, invitee: Invitee) -> None:
        try:
            await self._third_party.announce(room_id, sender, invitee)
        except MatrixError as error:
            # An error here would have the client make the room a second time; that nobody is invited shows in its state.
            log.warning("a new room lacks an invitation", room_id=room_id, server=invitee.server, error=str(error))
