"""Every endpoint of the writers, and the GETs of what they keep.

Names in braces are the same wherever a path has the same place: readers use them too.
"""

from __future__ import annotations

from typing import Protocol

from writer.account import Account
from writer.account_data import AccountData, AccountDataResource, Tags
from writer.account_moderation import AccountModeration
from writer.aliases import Aliases, AliasResource, RoomAliases
from writer.authentication import PasswordAuthentication
from writer.carried_settings import CarriedSettings
from writer.claims import Claims
from writer.create_room import CreateRoom
from writer.cross_signing import CrossSigning
from writer.dehydrated_devices import DehydratedDevices
from writer.device_keys import DeviceKeys
from writer.devices import Devices
from writer.ephemeral import Receipts, Typing
from writer.fallback import Fallback
from writer.filters import Filters
from writer.interactive import Interactive
from writer.invite_permissions import InvitePermissions
from writer.key_backups import BackedUpKeys, KeyBackupVersions
from writer.key_claims import KeyClaims
from writer.key_directory import KeyDirectory
from writer.key_query import KeyQuery
from writer.login import Login, Logout, Refresh
from writer.login_page import LoginPage
from writer.login_tokens import GetLoginToken, LoginTokens
from writer.logins import Logins
from writer.mail import Mailer
from writer.media.previews import Previews, PreviewUrl
from writer.media.resources import Upload
from writer.media.uploads import Uploads
from writer.membership import Join, Leave, Memberships, Moderation
from writer.openid import OpenIdTokens, OpenIdUserInfo
from writer.password_change import PasswordChange
from writer.password_check import PasswordCheck
from writer.presence import PresenceResource
from writer.profiles import ProfileResource, Profiles
from writer.public_rooms import PublicRooms
from writer.push_rules import PushRules
from writer.pushers import Pushers
from writer.redacting import Redact, Redacting
from writer.refresh_tokens import RefreshTokens
from writer.registration import Registration, RegistrationStages
from writer.relating import Relating
from writer.reports import Reports
from writer.restricted import RestrictedRooms
from writer.sending import Send, State
from writer.server_info import Capabilities, WellKnown
from writer.server_notices import ServerNotices, notices_id
from writer.services import Services
from writer.shared_secret import SharedSecretRegistration
from writer.submit_token import SubmitToken
from writer.third_party_invites import ThirdPartyInvites
from writer.third_party_networks import ThirdPartyNetworks
from writer.threepids import ThirdPartyIdentifiers
from writer.to_device import Strays, ToDevice
from writer.token_requests import TokenRequests
from writer.turn_server import TurnServer
from writer.upgrade import Upgrade
from writer.validations import SUBMIT_PATH, Validations
from writer.versions import Versions

V1 = "/_matrix/client/v1"
V3 = "/_matrix/client/v3"
UNSTABLE = "/_matrix/client/unstable"
ROOM = V3 + "/rooms/{room_id}"
MEDIA = "/_matrix/media/v3"


class Routes(Protocol):
    """Where routes are added: the application, or what collects them for it."""

    def add_route(self, template: str, resource: object, *, suffix: str | None = None) -> None:
        """Adds the responders of a resource whose names end in the suffix."""


def add_routes(app: Routes, services: Services) -> None:
    """Adds all endpoints of the writers."""
    _add_accounts(app, services)
    _add_people(app, services)
    _add_rooms(app, services)
    _add_media(app, services)


def _add_accounts(app: Routes, services: Services) -> None:
    settings, pool, limits = services.settings, services.pool, services.limits
    sessions, passwords, server_name = services.sessions, services.passwords, services.settings.server.name
    interactive = Interactive(pool)
    refresh_tokens = RefreshTokens(settings.server.signing_key.read_bytes())
    logins = Logins(pool, services.log, sessions, refresh_tokens, settings.sessions)
    strays = Strays(pool, services.log, settings.log.shards)
    check = PasswordCheck(pool, passwords, limits, server_name)
    authentication = PasswordAuthentication(interactive, check)
    validations = Validations(pool, settings, Mailer(settings.email, server_name))
    tokens = LoginTokens(pool, settings.sessions)

    app.add_route("/_matrix/client/versions", Versions(services.routes))
    well_known = WellKnown(settings)
    for name in ("client", "support", "policy_server"):
        app.add_route(f"/.well-known/matrix/{name}", well_known, suffix=name)
    capabilities = Capabilities(settings, email=validations.enabled, login_tokens=tokens.enabled)
    app.add_route(V3 + "/capabilities", capabilities)

    app.add_route(V3 + "/login", Login(pool, check, tokens, logins, strays, limits, server_name))
    app.add_route("/_matrix/static/client/login/", LoginPage())
    app.add_route(V1 + "/login/get_token", GetLoginToken(tokens, authentication, limits))
    app.add_route(V3 + "/refresh", Refresh(logins, limits))
    logout = Logout(logins)
    app.add_route(V3 + "/logout", logout)
    app.add_route(V3 + "/logout/all", logout, suffix="all")

    stages = RegistrationStages(settings, pool, validations)
    registration = Registration(settings, pool, stages, interactive, validations, passwords, sessions, logins, limits)
    app.add_route(V3 + "/register", registration)
    app.add_route(V3 + "/register/available", registration, suffix="available")
    app.add_route(V1 + "/register/m.login.registration_token/validity", registration, suffix="validity")
    app.add_route(V3 + "/auth/{stage}/fallback/web", Fallback(stages, interactive, limits))
    shared_secret = SharedSecretRegistration(settings, pool, passwords, logins, limits)
    app.add_route("/_synapse/admin/v1/register", shared_secret)

    account = Account(pool, sessions, services.departures, authentication)
    app.add_route(V3 + "/account/whoami", account, suffix="whoami")
    app.add_route(V3 + "/account/deactivate", account, suffix="deactivate")
    password = PasswordChange(pool, services.log, sessions, passwords, interactive, authentication, validations)
    app.add_route(V3 + "/account/password", password)

    threepids = ThirdPartyIdentifiers(pool, validations, authentication)
    app.add_route(V3 + "/account/3pid", threepids)
    for action in ("add", "bind", "delete", "unbind"):
        app.add_route(f"{V3}/account/3pid/{action}", threepids, suffix=action)
    requests = TokenRequests(settings, validations, limits)
    for path, purpose in (("register", "register"), ("account/password", "password"), ("account/3pid", "add")):
        app.add_route(f"{V3}/{path}/email/requestToken", requests, suffix=purpose)
        app.add_route(f"{V3}/{path}/msisdn/requestToken", requests, suffix="msisdn")
    app.add_route(SUBMIT_PATH, SubmitToken(validations))

    devices = Devices(pool, services.log, logins, authentication)
    app.add_route(V3 + "/devices", devices, suffix="list")
    app.add_route(V3 + "/devices/{device_id}", devices)
    app.add_route(V3 + "/delete_devices", devices, suffix="delete")

    directory = KeyDirectory(pool, services.log, Claims(pool))
    app.add_route(V3 + "/keys/upload", DeviceKeys(pool, services.log, directory))
    app.add_route(V3 + "/keys/claim", KeyClaims(pool, services.log, server_name))
    app.add_route(V3 + "/keys/query", KeyQuery(directory, server_name))
    cross_signing = CrossSigning(directory, authentication)
    app.add_route(V3 + "/keys/device_signing/upload", cross_signing, suffix="keys")
    app.add_route(V3 + "/keys/signatures/upload", cross_signing, suffix="signatures")
    dehydrated = DehydratedDevices(pool, services.log, directory, settings.log.shards)
    app.add_route(UNSTABLE + "/org.matrix.msc3814.v1/dehydrated_device", dehydrated)
    app.add_route(UNSTABLE + "/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events", dehydrated, suffix="events")
    to_device = ToDevice(pool, services.log, server_name)
    app.add_route(V3 + "/sendToDevice/{event_type}/{txn_id}", to_device)

    moderation = AccountModeration(pool, sessions, server_name)
    app.add_route(V1 + "/admin/suspend/{user_id}", moderation, suffix="suspend")
    app.add_route(V1 + "/admin/lock/{user_id}", moderation, suffix="lock")
    app.add_route(V3 + "/admin/whois/{user_id}", moderation, suffix="whois")


def _add_people(app: Routes, services: Services) -> None:
    settings, pool, log, limits = services.settings, services.pool, services.log, services.limits
    app.add_route(V3 + "/voip/turnServer", TurnServer(settings.voip))
    app.add_route(V3 + "/user/{user_id}/openid/request_token", OpenIdTokens(pool, limits, settings.server.name))
    app.add_route("/_matrix/federation/v1/openid/userinfo", OpenIdUserInfo(pool))
    networks = ThirdPartyNetworks()
    app.add_route(V3 + "/thirdparty/protocols", networks, suffix="protocols")
    app.add_route(V3 + "/thirdparty/protocol/{protocol}", networks, suffix="protocol")
    for kind in ("location", "user"):
        app.add_route(f"{V3}/thirdparty/{kind}", networks, suffix=kind)
        app.add_route(f"{V3}/thirdparty/{kind}/{{protocol}}", networks, suffix=f"{kind}_of")

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

    backups, backed_up = KeyBackupVersions(pool), BackedUpKeys(pool)
    app.add_route(V3 + "/room_keys/version", backups)
    app.add_route(V3 + "/room_keys/version/{version}", backups, suffix="one")
    app.add_route(V3 + "/room_keys/keys", backed_up)
    app.add_route(V3 + "/room_keys/keys/{room_id}", backed_up, suffix="room")
    app.add_route(V3 + "/room_keys/keys/{room_id}/{session_id}", backed_up, suffix="session")

    pushers = Pushers(pool, settings)
    app.add_route(V3 + "/pushers", pushers)
    app.add_route(V3 + "/pushers/set", pushers, suffix="set")
    app.add_route(V3 + "/presence/{user_id}/status", PresenceResource(pool, services.presences))
    profile = ProfileResource(pool, log, Profiles(pool), claims, limits)
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
    permissions = InvitePermissions(pool)
    third_party = ThirdPartyInvites(log, services.identity_servers, profiles, permissions, server_name)

    redacting = Redacting(pool, log)
    send = Send(log, Relating(pool), redacting, services.guests, limits)
    app.add_route(ROOM + "/send/{event_type}/{txn_id}", send)
    app.add_route(ROOM + "/redact/{event_id}/{txn_id}", Redact(log, redacting, services.guests, limits))
    restricted = RestrictedRooms(pool, server_name)
    state = State(log, aliases, services.guests, permissions, restricted, limits, server_name, notices_id(settings))
    app.add_route(ROOM + "/state/{event_type}", state)
    app.add_route(ROOM + "/state/{event_type}/{state_key}", state)

    notices = ServerNotices(settings, pool, log, claims, AccountData(pool, log), profiles, limits)
    app.add_route("/_synapse/admin/v1/send_server_notice", notices)
    app.add_route("/_synapse/admin/v1/send_server_notice/{txn_id}", notices, suffix="once")

    default_version = settings.server.default_room_version
    create_room = CreateRoom(
        log, aliases, profiles, carried, permissions, third_party, limits, server_name, default_version
    )
    app.add_route(V3 + "/createRoom", create_room)
    app.add_route(ROOM + "/upgrade", Upgrade(pool, log, claims, profiles, carried, limits, server_name))
    join = Join(pool, memberships, aliases, profiles, restricted, third_party, carried, limits)
    app.add_route(ROOM + "/join", join)
    app.add_route(V3 + "/join/{room_id_or_alias}", join, suffix="alias")
    app.add_route(V3 + "/knock/{room_id_or_alias}", join, suffix="knock")
    leave = Leave(pool, memberships, notices_id(settings))
    app.add_route(ROOM + "/leave", leave)
    app.add_route(ROOM + "/forget", leave, suffix="forget")
    moderation = Moderation(memberships, profiles, permissions, third_party, limits)
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


def _add_media(app: Routes, services: Services) -> None:
    settings, limits = services.settings, services.limits
    uploads = Uploads(services.media_pool, settings.media, settings.client.processes)
    upload = Upload(uploads, limits, settings)
    app.add_route(MEDIA + "/upload", upload)
    app.add_route(MEDIA + "/upload/{server_name}/{media_id}", upload, suffix="to")
    app.add_route("/_matrix/media/v1/create", upload, suffix="create")
    if settings.media.url_previews:
        previews = Previews(
            services.pool, uploads, services.pages, services.decoders, settings.media, settings.server.name
        )
        for base in (V1 + "/media", MEDIA):
            app.add_route(base + "/preview_url", PreviewUrl(previews, limits))
