"""Every endpoint of the writers, and the GETs of what they keep.

Names in braces are the same wherever a path has the same place: readers use them too.
"""

from __future__ import annotations

from typing import Protocol

from writer.account import Account, PasswordAuthentication
from writer.account_data import AccountData, AccountDataResource, Tags
from writer.aliases import Aliases, AliasResource, RoomAliases
from writer.carried_settings import CarriedSettings
from writer.claims import Claims
from writer.create_room import CreateRoom
from writer.devices import Devices
from writer.ephemeral import Receipts, Typing
from writer.filters import Filters
from writer.interactive import Interactive
from writer.login import Login, Logout, PasswordCheck, Refresh
from writer.logins import Logins
from writer.membership import Join, Leave, Memberships, Moderation
from writer.profiles import ProfileResource, Profiles
from writer.public_rooms import PublicRooms
from writer.push_rules import PushRules
from writer.redacting import Redact, Redacting
from writer.refresh_tokens import RefreshTokens
from writer.registration import Registration
from writer.relating import Relating
from writer.reports import Reports
from writer.restricted import RestrictedRooms
from writer.sending import Send, State
from writer.server_info import Capabilities, Discovery
from writer.services import Services
from writer.shared_secret import SharedSecretRegistration
from writer.upgrade import Upgrade

V1 = "/_matrix/client/v1"
V3 = "/_matrix/client/v3"
ROOM = V3 + "/rooms/{room_id}"


class Routes(Protocol):
    """Where routes are added: the application, or what collects them for it."""

    def add_route(self, template: str, resource: object, *, suffix: str | None = None) -> None:
        """Adds the responders of a resource whose names end in the suffix."""


def add_routes(app: Routes, services: Services) -> None:
    """Adds all endpoints of the writers."""
    _add_accounts(app, services)
    _add_rooms(app, services)


def _add_accounts(app: Routes, services: Services) -> None:
    settings, pool, log, limits = services.settings, services.pool, services.log, services.limits
    server_name = settings.server.name
    interactive = Interactive(pool)
    logins = Logins(pool, services.sessions, RefreshTokens(services.settings.server.signing_key.read_bytes()))
    check = PasswordCheck(pool, services.passwords, limits, server_name)
    authentication = PasswordAuthentication(interactive, check)

    discovery = Discovery(settings)
    app.add_route("/_matrix/client/versions", discovery)
    app.add_route("/.well-known/matrix/client", discovery, suffix="client")
    app.add_route("/.well-known/matrix/support", discovery, suffix="support")
    app.add_route(V3 + "/capabilities", Capabilities(settings))

    app.add_route(V3 + "/login", Login(pool, check, logins, limits, server_name))
    app.add_route(V3 + "/refresh", Refresh(logins, limits))
    logout = Logout(logins)
    app.add_route(V3 + "/logout", logout)
    app.add_route(V3 + "/logout/all", logout, suffix="all")

    registration = Registration(settings, pool, interactive, services.passwords, logins, limits)
    app.add_route(V3 + "/register", registration)
    app.add_route(V3 + "/register/available", registration, suffix="available")
    app.add_route(V1 + "/register/m.login.registration_token/validity", registration, suffix="validity")
    shared_secret = SharedSecretRegistration(settings, pool, services.passwords, logins, limits)
    app.add_route("/_synapse/admin/v1/register", shared_secret)

    account = Account(pool, log, services.sessions, services.passwords, authentication)
    app.add_route(V3 + "/account/whoami", account, suffix="whoami")
    app.add_route(V3 + "/account/password", account, suffix="password")
    app.add_route(V3 + "/account/deactivate", account, suffix="deactivate")
    app.add_route(V3 + "/account/3pid", account, suffix="threepids")

    devices = Devices(pool, logins, authentication)
    app.add_route(V3 + "/devices", devices, suffix="list")
    app.add_route(V3 + "/devices/{device_id}", devices)
    app.add_route(V3 + "/delete_devices", devices, suffix="delete")

    claims = Claims(pool)
    data = AccountData(pool, log)
    account_data, tags = AccountDataResource(data), Tags(data, claims)
    app.add_route(V3 + "/user/{user_id}/account_data/{data_type}", account_data)
    app.add_route(V3 + "/user/{user_id}/rooms/{room_id}/account_data/{data_type}", account_data)
    app.add_route(V3 + "/user/{user_id}/rooms/{room_id}/tags", tags, suffix="all")
    app.add_route(V3 + "/user/{user_id}/rooms/{room_id}/tags/{tag}", tags)

    filters = Filters(pool)
    app.add_route(V3 + "/user/{user_id}/filter", filters, suffix="new")
    app.add_route(V3 + "/user/{user_id}/filter/{filter_id}", filters)

    push_rules = PushRules(data, claims)
    for slash in ("", "/"):
        app.add_route(V3 + "/pushrules" + slash, push_rules, suffix="all")
        app.add_route(V3 + "/pushrules/global" + slash, push_rules, suffix="global")
    rule = V3 + "/pushrules/global/{kind}/{rule_id}"
    app.add_route(rule, push_rules)
    app.add_route(rule + "/enabled", push_rules, suffix="enabled")
    app.add_route(rule + "/actions", push_rules, suffix="actions")

    profile = ProfileResource(pool, log, Profiles(pool), limits)
    app.add_route(V3 + "/profile/{user_id}", profile, suffix="all")
    app.add_route(V3 + "/profile/{user_id}/{field}", profile)


def _add_rooms(app: Routes, services: Services) -> None:
    settings, pool, log, limits = services.settings, services.pool, services.log, services.limits
    server_name = settings.server.name
    claims = Claims(pool)
    aliases = Aliases(pool, log, claims, server_name)
    carried = CarriedSettings(pool, AccountData(pool, log), claims)
    profiles = Profiles(pool)
    memberships = Memberships(log, server_name)

    redacting = Redacting(pool, log)
    send = Send(log, Relating(pool), redacting, limits)
    app.add_route(ROOM + "/send/{event_type}/{txn_id}", send)
    app.add_route(ROOM + "/redact/{event_id}/{txn_id}", Redact(log, redacting, limits))
    state = State(log, aliases, limits, server_name)
    app.add_route(ROOM + "/state/{event_type}", state)
    app.add_route(ROOM + "/state/{event_type}/{state_key}", state)

    default_version = settings.server.default_room_version
    create_room = CreateRoom(log, aliases, profiles, carried, limits, server_name, default_version)
    app.add_route(V3 + "/createRoom", create_room)
    app.add_route(ROOM + "/upgrade", Upgrade(pool, log, claims, profiles, carried, limits, server_name))
    join = Join(pool, memberships, aliases, profiles, RestrictedRooms(pool, server_name), carried, limits)
    app.add_route(ROOM + "/join", join)
    app.add_route(V3 + "/join/{room_id_or_alias}", join, suffix="alias")
    app.add_route(V3 + "/knock/{room_id_or_alias}", join, suffix="knock")
    leave = Leave(pool, memberships)
    app.add_route(ROOM + "/leave", leave)
    app.add_route(ROOM + "/forget", leave, suffix="forget")
    moderation = Moderation(memberships, profiles, limits)
    for action in ("invite", "kick", "ban", "unban"):
        app.add_route(f"{ROOM}/{action}", moderation, suffix=action)

    reports = Reports(pool, log, limits)
    app.add_route(ROOM + "/report", reports, suffix="room")
    app.add_route(ROOM + "/report/{event_id}", reports, suffix="event")
    app.add_route(V3 + "/users/{user_id}/report", reports, suffix="user")

    app.add_route(ROOM + "/typing/{user_id}", Typing(pool, log))
    receipts = Receipts(pool, log)
    app.add_route(ROOM + "/receipt/{receipt_type}/{event_id}", receipts)
    app.add_route(ROOM + "/read_markers", receipts, suffix="markers")

    app.add_route(V3 + "/directory/room/{room_alias}", AliasResource(aliases, log, limits))
    app.add_route(ROOM + "/aliases", RoomAliases(aliases, log))
    public_rooms = PublicRooms(pool, log, server_name)
    app.add_route(V3 + "/directory/list/room/{room_id}", public_rooms, suffix="visibility")
    app.add_route(V3 + "/publicRooms", public_rooms)
