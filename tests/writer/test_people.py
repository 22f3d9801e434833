"""OpenID, TURN, third-party networks, well-known documents, versions."""

import base64
import hmac
from pathlib import Path

import psycopg
from api_server import V3, Api, part, serving, settings_for

from writer.versions import ADDED, FEATURES, claims

USERINFO = "/_matrix/federation/v1/openid/userinfo"
NOT_FOUND = (404, "M_NOT_FOUND")


async def test_an_openid_token_tells_who_its_user_is_and_nothing_else(api: Api, writers_database: str) -> None:
    alice, bob = await api.register(), await api.register()
    path = f"user/{part(alice.user_id)}/openid/request_token"
    made = (await alice.post(path, {})).ok()
    assert made["token_type"] == "Bearer" and made["matrix_server_name"] == "test.example"
    assert made["expires_in"] == 3600
    token = made["access_token"]
    assert (await api.anybody.get(f"{USERINFO}?access_token={token}")).ok() == {"sub": alice.user_id}
    assert (await api.anybody.get(f"account/whoami?access_token={token}")).refusal == (401, "M_UNKNOWN_TOKEN")
    assert (await api.anybody.get(f"{USERINFO}?access_token={alice.token}")).refusal == (401, "M_UNKNOWN_TOKEN")
    assert (await api.anybody.get(USERINFO)).refusal == (400, "M_MISSING_PARAM")
    assert (await bob.post(path, {})).refusal == (403, "M_FORBIDDEN")
    with psycopg.connect(writers_database, autocommit=True) as connection:
        connection.execute("update writer.openid_tokens set expires_at = now() where user_id = %s", [alice.user_id])
    assert (await api.anybody.get(f"{USERINFO}?access_token={token}")).refusal == (401, "M_UNKNOWN_TOKEN")


async def test_turn_credentials_are_made_of_the_shared_secret(
    api: Api, writers_database: str, writers_folder: Path
) -> None:
    uris = "turn:turn.example?transport=udp,turns:turn.example"
    shared = {"WALDEN_VOIP_TURN_URIS": uris, "WALDEN_VOIP_TURN_SHARED_SECRET": "turn secret"}
    async with serving(settings_for(writers_database, writers_folder, **shared)) as other:
        alice = await other.register()
        found = (await alice.get("voip/turnServer")).ok()
        assert found["uris"] == uris.split(",") and found["ttl"] == 86_400
        expiry, _, user_id = found["username"].partition(":")
        assert user_id == alice.user_id and int(expiry) > 1_700_000_000
        mac = hmac.new(b"turn secret", found["username"].encode(), "sha1").digest()
        assert found["password"] == base64.b64encode(mac).decode()
    named = {"WALDEN_VOIP_TURN_USERNAME": "all", "WALDEN_VOIP_TURN_PASSWORD": "of us", "WALDEN_VOIP_TURN_URIS": uris}
    async with serving(settings_for(writers_database, writers_folder, **named)) as other:
        found = (await (await other.register()).get("voip/turnServer")).ok()
        assert (found["username"], found["password"]) == ("all", "of us")
    without = settings_for(writers_database, writers_folder, WALDEN_VOIP_TURN_URIS=uris)
    async with serving(without) as other:
        assert (await (await other.register()).get("voip/turnServer")).refusal == NOT_FOUND
    assert (await (await api.register()).get("voip/turnServer")).refusal == NOT_FOUND


async def test_no_third_party_network_is_bridged(api: Api) -> None:
    alice = await api.register()
    assert (await alice.get("thirdparty/protocols")).ok() == {}
    for path in (
        "protocol/irc",
        "location/irc?channel=x",
        "user/irc?nickname=x",
        "location?alias=%23a:test.example",
        "user?userid=@a:b",
    ):
        assert (await alice.get(f"thirdparty/{path}")).refusal == NOT_FOUND, path
    for path in ("location", "user"):
        assert (await alice.get(f"thirdparty/{path}")).refusal == (400, "M_MISSING_PARAM")
    assert (await api.anybody.get("thirdparty/protocols")).refusal == (401, "M_MISSING_TOKEN")


async def test_well_known_documents_say_what_is_configured(
    api: Api, writers_database: str, writers_folder: Path
) -> None:
    chosen = {
        "WALDEN_SERVER_PUBLIC_BASE_URL": "https://matrix.test.example/",
        "WALDEN_SUPPORT_PAGE": "https://test.example/help",
        "WALDEN_SUPPORT_ADMIN_EMAIL": "admin@test.example",
        "WALDEN_SUPPORT_ADMIN_USER": "@admin:elsewhere.example",
        "WALDEN_SUPPORT_SECURITY_EMAIL": "security@test.example",
    }
    async with serving(settings_for(writers_database, writers_folder, **chosen)) as other:
        client = (await other.anybody.get("/.well-known/matrix/client")).ok()
        assert client == {"m.homeserver": {"base_url": "https://matrix.test.example"}}
        assert (await other.anybody.get("/.well-known/matrix/support")).ok() == {
            "contacts": [
                {
                    "role": "m.role.admin",
                    "matrix_id": "@admin:elsewhere.example",
                    "email_address": "admin@test.example",
                },
                {"role": "m.role.security", "email_address": "security@test.example"},
            ],
            "support_page": "https://test.example/help",
        }
    assert (await api.anybody.get("/.well-known/matrix/support")).refusal == NOT_FOUND
    assert (await api.anybody.get("/.well-known/matrix/policy_server")).refusal == NOT_FOUND


async def test_versions_and_features_are_claimed_as_far_as_they_are_mounted(api: Api) -> None:
    told = (await api.anybody.get("/_matrix/client/versions")).ok()
    mounted = set(api.process.routes.methods())
    assert told == claims(mounted)
    assert "v1.18" in told["versions"] and told["unstable_features"]["uk.tcpip.msc4133.stable"] is True
    for version, added in ADDED.items():
        assert (version in told["versions"]) == mounted.issuperset(added)
        for one in added:
            assert version not in claims(mounted - {one})["versions"]  # type: ignore[operator]
    for feature, one in FEATURES.items():
        assert (feature in told["unstable_features"]) == (one in mounted)


async def test_an_endpoint_that_is_mounted_under_another_name_is_not_missed_by_the_claims(api: Api) -> None:
    """A template's fields may be renamed; then the tables here must follow."""

    def shape(template: str) -> str:
        return "/".join("*" if part_.startswith("{") else part_ for part_ in template.split("/"))

    mounted = set(api.process.routes.methods())
    shapes = {(method, shape(template)) for method, template in mounted}
    for method, template in {*FEATURES.values(), *(one for added in ADDED.values() for one in added)}:
        assert (method, template) in mounted or (method, shape(template)) not in shapes, (method, template)
    assert ("GET", V3 + "/voip/turnServer") in mounted
