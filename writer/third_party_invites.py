"""Invitations by e-mail address, and the proof that somebody is meant by one.

Invariant: an invitation is asked for at an identity server only by who may invite, so that nobody has it send messages by the name
of a room that is not theirs. A proof becomes an invite by who made the invitation, with the signed words that the auth rules want.
Source: client-server API, "Third-party invites", "POST …/join", `third_party_signed`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matrix.errors import MatrixError, bad_json, forbidden, invalid_param
from matrix.identifiers import is_user_id, server_name_of
from matrix.third_party_invites import THIRD_PARTY_INVITE, TooManySignatures, validity_urls, verifying_key
from writer.drafts import Draft
from writer.email_addresses import check_address
from writer.federating import check_local_user
from writer.identity_servers import IdentityServers
from writer.invite_permissions import InvitePermissions
from writer.log_writer import LogWriter
from writer.permissions import CREATE, POWER_KEYS, may_invite, membership_of
from writer.profiles import Profiles
from writer.requests import Body, check_room_id, required_text
from writer.views import RoomView, StateKey

NAME: StateKey = ("m.room.name", "")
ALIAS: StateKey = ("m.room.canonical_alias", "")
AVATAR: StateKey = ("m.room.avatar", "")
JOIN_RULES: StateKey = ("m.room.join_rules", "")
MOST_TOKEN = 255


class Invitee(NamedTuple):
    """Somebody as a client names them: by an address, and an identity server where it has a token."""

    server: str
    access_token: str
    address: str


class ThirdPartyInvites:
    """Makes invitations, and invites of them."""

    def __init__(
        self,
        log: LogWriter,
        servers: IdentityServers,
        profiles: Profiles,
        permissions: InvitePermissions,
        server_name: str,
    ) -> None:
        self._log = log
        self._servers = servers
        self._profiles = profiles
        self._permissions = permissions
        self._server_name = server_name

    def invitee_of(self, body: Body) -> Invitee:
        """Whom a request names. M_MISSING_PARAM, M_BAD_JSON, M_INVALID_PARAM, M_SERVER_NOT_TRUSTED."""
        server, access_token = required_text(body, "id_server"), required_text(body, "id_access_token")
        medium, address = required_text(body, "medium"), required_text(body, "address")
        self._servers.check_trusted(server)
        if not access_token.isascii() or not access_token.isprintable() or " " in access_token:
            raise invalid_param("id_access_token is no access token.")
        if medium != "email":
            # "Currently, invites may only be issued for 3pids of the email medium."
            raise MatrixError(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "Invitations go to e-mail addresses.")
        return Invitee(server, access_token, check_address(address))

    async def user_of(self, invitee: Invitee) -> str | None:
        """The user who has the address, if the identity server knows one."""
        return await self._servers.user_of(invitee.server, invitee.access_token, "email", invitee.address)

    async def invite(self, room_id: str, sender: str, invitee: Invitee) -> None:
        """Invites a user by their address, or makes an invitation that waits for who can prove to have it."""
        view = await self._view_of_inviter(room_id, sender)
        user_id = await self.user_of(invitee)
        if user_id is None:
            await self._announce(view, sender, invitee)
            return
        check_local_user(user_id, self._server_name)
        await self._permissions.check(sender, [user_id])
        content = await self._profiles.member(user_id, "invite")
        await self._log.send([Draft(room_id, sender, "m.room.member", content, state_key=user_id)])

    async def announce(self, room_id: str, sender: str, invitee: Invitee) -> None:
        """Makes an invitation that waits for who can prove to have the address; `user_of` knew nobody."""
        await self._announce(await self._view_of_inviter(room_id, sender), sender, invitee)

    async def _view_of_inviter(self, room_id: str, sender: str) -> RoomView:
        key = ("m.room.member", sender)
        view = await self._log.view(check_room_id(room_id), [key, NAME, ALIAS, AVATAR, JOIN_RULES, *POWER_KEYS])
        if membership_of(view.state.get(key)) != "join" or not may_invite(view, sender):
            raise forbidden("You may not invite anybody to this room.")
        return view

    async def _announce(self, view: RoomView, sender: str, invitee: Invitee) -> None:
        names = (await self._profiles.names([sender])).get(sender, {})
        details = {"medium": "email", "address": invitee.address, "room_id": view.room_id, "sender": sender}
        details |= _told_of(view, names)
        stored = await self._servers.store_invite(invitee.server, invitee.access_token, details)
        content = {"display_name": stored.display_name, **stored.public_keys[0], "public_keys": stored.public_keys}
        await self._log.send([Draft(view.room_id, sender, THIRD_PARTY_INVITE, content, state_key=stored.token)])

    async def accept(self, room_id: str, user_id: str, signed: Body) -> None:
        """Invites who shows what an identity server has signed.

        M_BAD_JSON, M_FORBIDDEN for a proof that fits no invitation of this server's users, 502 when its key cannot be checked.
        """
        token, inviter = signed.get("token"), signed.get("sender")
        if not isinstance(token, str) or not is_user_id(signed.get("mxid")) or not is_user_id(inviter):
            raise bad_json("third_party_signed must have token, mxid and sender.")
        if not isinstance(signed.get("signatures"), dict):
            raise bad_json("third_party_signed must have signatures.")
        assert isinstance(inviter, str)
        if signed["mxid"] != user_id:
            raise forbidden("The invitation was signed for another user.")
        if server_name_of(inviter) != self._server_name:
            raise forbidden("The invitation is by a user of another server.")
        key, own = (THIRD_PARTY_INVITE, token), ("m.room.member", user_id)
        fits = len(token.encode()) <= MOST_TOKEN and "\0" not in token
        view = await self._log.view(room_id, [key, own]) if fits else None
        invitation = None if view is None else view.state.get(key)
        if view is None or invitation is None or invitation.sender != inviter:
            raise forbidden("There is no such invitation in this room.")
        member = view.state.get(own)
        if member is not None and membership_of(member) == "leave" and member.depth > invitation.depth:
            # "…that it matches a pending m.room.third_party_invite": who was removed since does not come back by it.
            raise forbidden("The invitation is over.")
        await self._check(signed, invitation.content, view)
        content = await self._profiles.member(user_id, "invite")
        content["third_party_invite"] = {
            "display_name": _text(invitation.content, "display_name"),
            "signed": signed,
        }
        await self._log.send([Draft(room_id, inviter, "m.room.member", content, state_key=user_id)])

    async def _check(self, signed: Body, invitation: dict[str, Any], view: RoomView) -> None:
        try:
            public_key = verifying_key(signed, invitation, strict=view.room_version.enforce_canonical_json)
        except TooManySignatures:
            public_key = None
        if public_key is None:
            raise forbidden("No signature of the invitation matches.")
        for url in validity_urls(invitation, public_key):
            if not await self._servers.is_valid_key(url, public_key):
                raise forbidden("The key of the invitation is no longer valid.")


def _told_of(view: RoomView, names: dict[str, str]) -> dict[str, str]:
    """What the message of the identity server says of the room and of who invites."""
    said = {
        "room_name": _stated(view, NAME, "name"),
        "room_alias": _stated(view, ALIAS, "alias"),
        "room_avatar_url": _stated(view, AVATAR, "url"),
        "room_join_rules": _stated(view, JOIN_RULES, "join_rule"),
        "room_type": _stated(view, CREATE, "type"),
        "sender_display_name": names.get("displayname", ""),
        "sender_avatar_url": names.get("avatar_url", ""),
    }
    return {name: value for name, value in said.items() if value}


def _stated(view: RoomView, key: StateKey, name: str) -> str:
    event = view.state.get(key)
    return "" if event is None else _text(event.content, name)


def _text(content: dict[str, Any], name: str) -> str:
    value = content.get(name)
    return value if isinstance(value, str) else ""
