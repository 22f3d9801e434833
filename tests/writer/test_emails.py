"""E-mail addresses of accounts, with a real SMTP server: registration, password reset, contacts."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from api_server import Api, Client, serving, settings_for
from hypothesis import given
from hypothesis import strategies as st
from mail_server import PATH, ask, confirm, mailing
from structlog.testing import capture_logs

from eventlog.configuration import ConfigurationError
from matrix.errors import MatrixError
from writer.email_addresses import check_address, fold_address

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH")
BROWSER = {"Accept": "text/html"}


def _creds(sid: str, secret: str = "a=secret") -> dict[str, Any]:
    return {"type": "m.login.email.identity", "threepid_creds": {"sid": sid, "client_secret": secret}}


def _password(user: Client) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": user.user_id}
    return {"type": "m.login.password", "identifier": identifier, "password": user.password}


async def _add(api: Api, boxes: Any, user: Client, address: str) -> None:
    sid = (await ask(user, "account/3pid", address)).ok()["sid"]
    await confirm(api, boxes, address)
    body = {"sid": sid, "client_secret": "a=secret", "auth": _password(user)}
    assert (await user.post("account/3pid/add", body)).ok() == {}


async def test_an_address_that_was_confirmed_registers_and_can_log_in(
    writers_database: str, writers_folder: Path, api: Api
) -> None:
    async with mailing(writers_database, writers_folder, WALDEN_REGISTRATION_EMAIL="required") as (mail, boxes):
        address = "new.Person@Post.Example"
        asked = await mail.anybody.post("register", {"username": "by.mail", "password": "secret!"})
        assert asked.body["flows"] == [{"stages": ["m.login.email.identity"]}]
        sid = (await ask(mail.anybody, "register", address)).ok()["sid"]
        letter = boxes.letters["new.person@post.example"][-1]
        assert letter["From"] == "noreply@test.example" and letter["Auto-Submitted"] == "auto-generated"
        body = {"username": "by.mail", "password": "secret!", "auth": {**_creds(sid), "session": asked.body["session"]}}
        early = await mail.anybody.post("register", body)
        assert early.refusal == (401, "M_UNAUTHORIZED") and early.body["completed"] == []
        await confirm(mail, boxes, "new.person@post.example")
        other_secret = {**body, "auth": {**_creds(sid, "other"), "session": asked.body["session"]}}
        assert (await mail.anybody.post("register", other_secret)).status == 401
        made = (await mail.anybody.post("register", body)).ok()
        user = Client(mail, made["user_id"], made["access_token"])
        (found,) = (await user.get("account/3pid")).ok()["threepids"]
        assert (found["medium"], found["address"]) == ("email", "new.person@post.example")
        assert found["validated_at"] <= found["added_at"]
        for identifier in (
            {"type": "m.id.thirdparty", "medium": "email", "address": address},
            {"medium": "email", "address": address},
        ):
            login = {"type": "m.login.password", "identifier": identifier, "password": "secret!"}
            assert (await mail.anybody.post("login", login)).ok()["user_id"] == user.user_id
            assert (await api.anybody.post("login", {**login, "password": "x"})).refusal == (403, "M_FORBIDDEN")
        # Used once.
        again = {**body, "username": "by.mail.again"}
        assert (await mail.anybody.post("register", again)).status == 401


async def test_an_address_is_optional_unless_it_is_required(writers_database: str, writers_folder: Path) -> None:
    async with mailing(writers_database, writers_folder) as (mail, _):
        asked = await mail.anybody.post("register", {})
        assert [flow["stages"] for flow in asked.body["flows"]] == [["m.login.dummy"], ["m.login.email.identity"]]
        capabilities = (await (await mail.register()).get("capabilities")).ok()["capabilities"]
        assert capabilities["m.3pid_changes"] == {"enabled": True}
    with pytest.raises(ConfigurationError):
        settings_for(writers_database, writers_folder, WALDEN_REGISTRATION_EMAIL="required")


async def test_a_lost_password_is_set_by_way_of_the_address(writers_database: str, writers_folder: Path) -> None:
    async with mailing(writers_database, writers_folder) as (mail, boxes):
        alice, bob = await mail.register(), await mail.register()
        await _add(mail, boxes, alice, "lost@post.example")
        sid = (await ask(mail.anybody, "account/password", "LOST@post.example", client_secret="another")).ok()["sid"]
        asked = await mail.anybody.post("account/password", {"new_password": "found again"})
        assert asked.body["flows"] == [{"stages": ["m.login.email.identity"]}]
        body = {"new_password": "found again", "auth": _creds(sid, "another")}
        assert (await mail.anybody.post("account/password", body)).refusal == (401, "M_UNAUTHORIZED")
        await confirm(mail, boxes, "lost@post.example")
        assert (await bob.post("account/password", body)).refusal == (401, "M_FORBIDDEN")
        assert (await mail.anybody.post("account/password", body)).ok() == {}
        assert (await alice.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")
        login = {"type": "m.login.password", "user": alice.user_id, "password": "found again"}
        (await mail.anybody.post("login", login)).ok()
        assert (await mail.anybody.post("account/password", body)).status == 401


async def test_what_was_validated_for_one_purpose_serves_no_other(writers_database: str, writers_folder: Path) -> None:
    async with mailing(writers_database, writers_folder) as (mail, boxes):
        alice = await mail.register()
        sid = (await ask(mail.anybody, "register", "purpose@post.example")).ok()["sid"]
        await confirm(mail, boxes, "purpose@post.example")
        body = {"sid": sid, "client_secret": "a=secret", "auth": _password(alice)}
        assert (await alice.post("account/3pid/add", body)).refusal == (400, "M_THREEPID_AUTH_FAILED")
        change = {"new_password": "x", "auth": _creds(sid)}
        assert (await mail.anybody.post("account/password", change)).status == 401


async def test_nobody_learns_from_a_request_which_addresses_have_accounts(
    writers_database: str, writers_folder: Path
) -> None:
    async with mailing(writers_database, writers_folder) as (mail, boxes):
        alice = await mail.register()
        await _add(mail, boxes, alice, "known@post.example")
        for path, address in (
            ("register", "known@post.example"),
            ("account/3pid", "known@post.example"),
            ("account/password", "unknown@post.example"),
        ):
            (await ask(mail.anybody, path, address, client_secret="curious")).ok()
            assert boxes.link(address) is None
            assert "did not ask for this" in boxes.text(address)


async def test_where_the_settings_say_so_a_request_tells_which_addresses_have_accounts(
    writers_database: str, writers_folder: Path
) -> None:
    async with mailing(writers_database, writers_folder, WALDEN_EMAIL_REVEAL_ADDRESSES="on") as (mail, boxes):
        alice = await mail.register()
        await _add(mail, boxes, alice, "open@post.example")
        for path in ("register", "account/3pid"):
            assert (await ask(mail.anybody, path, "open@post.example", 2)).refusal == (400, "M_THREEPID_IN_USE")
        lost = await ask(mail.anybody, "account/password", "nobodys@post.example")
        assert lost.refusal == (400, "M_THREEPID_NOT_FOUND")
        assert "nobodys@post.example" not in boxes.letters


async def test_the_same_attempt_sends_one_message_and_the_next_another(
    writers_database: str, writers_folder: Path
) -> None:
    async with mailing(writers_database, writers_folder) as (mail, boxes):
        address = "again@post.example"
        sids = [(await ask(mail.anybody, "register", address, attempt)).ok()["sid"] for attempt in (1, 1, 2, 1)]
        assert len(set(sids)) == 1
        assert len(boxes.letters[address]) == 2
        await confirm(mail, boxes, address)


async def test_a_link_changes_nothing_before_its_button_is_pressed(writers_database: str, writers_folder: Path) -> None:
    async with mailing(writers_database, writers_folder) as (mail, boxes):
        address = "scanned@post.example"
        sid = (await ask(mail.anybody, "register", address)).ok()["sid"]
        link = boxes.link(address)
        assert link is not None
        page = await mail.http.get(link)
        assert page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert page.headers["referrer-policy"] == "no-referrer" and page.headers["cache-control"] == "no-store"
        body = {"username": "scanned", "password": "secret!", "auth": _creds(sid)}
        assert (await mail.anybody.post("register", body)).status == 401
        token = boxes.answers(address)
        for change, errcode in (
            ({"token": "wrong"}, "M_TOKEN_INCORRECT"),
            ({"client_secret": "wrong"}, "M_SESSION_EXPIRED"),
            ({"sid": "wrong"}, "M_SESSION_EXPIRED"),
            ({"sid": "not / opaque"}, "M_INVALID_PARAM"),
        ):
            assert (await mail.anybody.post(PATH, {**token, **change})).refusal == (400, errcode)
            shown = await mail.http.post(PATH, data={**token, **change}, headers=BROWSER)
            assert shown.status_code == 400 and "did not work" in shown.text
        assert (await mail.anybody.post(PATH, {"sid": token["sid"]})).refusal == (400, "M_MISSING_PARAM")
        assert (await mail.anybody.post(PATH, token)).ok() == {"success": True}
        (await mail.anybody.post("register", body)).ok()


async def test_a_link_is_good_for_an_hour(writers_database: str, writers_folder: Path) -> None:
    async with mailing(writers_database, writers_folder) as (mail, boxes):
        address = "late@post.example"
        sid = (await ask(mail.anybody, "register", address)).ok()["sid"]
        with psycopg.connect(writers_database, autocommit=True) as connection:
            connection.execute(
                "update writer.threepid_validations set sent_at = now() - interval '61 minutes' where sid = %s", [sid]
            )
        assert (await mail.anybody.post(PATH, boxes.answers(address))).refusal == (400, "M_SESSION_EXPIRED")


async def test_the_browser_goes_on_only_to_where_the_settings_allow(
    writers_database: str, writers_folder: Path
) -> None:
    async with mailing(writers_database, writers_folder) as (mail, boxes):
        for number, (link, location) in enumerate(
            [
                ("https://app.test.example/#/go?on=1", "https://app.test.example/#/go?on=1"),
                ("https://matrix.test.example/x", "https://matrix.test.example/x"),
                ("https://evil.example/", None),
            ]
        ):
            address = f"onward{number}@post.example"
            (await ask(mail.anybody, "register", address, next_link=link)).ok()
            done = await mail.http.post(PATH, data=boxes.answers(address), headers=BROWSER)
            assert done.headers.get("location") == location
            assert done.status_code == (200 if location is None else 303)
        for link in (
            "javascript:alert(1)",
            "file:///etc/passwd",
            "https://[",
            "https://x:99999/",
            "no link",
            "x" * 3000,
        ):
            refused = await ask(mail.anybody, "register", "onward@post.example", next_link=link)
            assert refused.refusal == (400, "M_INVALID_PARAM"), link


async def test_an_address_belongs_to_one_account_and_can_be_taken_off(
    writers_database: str, writers_folder: Path
) -> None:
    async with mailing(writers_database, writers_folder) as (mail, boxes):
        alice, bob = await mail.register(), await mail.register()
        address = "one.owner@post.example"
        sids = []
        for user in (alice, bob):
            sids.append((await ask(user, "account/3pid", address, client_secret=user.device_id)).ok()["sid"])
            await confirm(mail, boxes, address)
        bodies = [
            {"sid": sid, "client_secret": user.device_id, "auth": _password(user)}
            for sid, user in zip(sids, (alice, bob), strict=True)
        ]
        assert (await alice.post("account/3pid/add", {**bodies[0], "auth": None})).status == 401
        (await alice.post("account/3pid/add", bodies[0])).ok()
        assert (await bob.post("account/3pid/add", bodies[1])).refusal == (400, "M_THREEPID_IN_USE")
        threepid = {"medium": "email", "address": "One.Owner@post.example"}
        assert (await bob.post("account/3pid/delete", threepid)).ok() == {"id_server_unbind_result": "no-support"}
        assert len((await alice.get("account/3pid")).ok()["threepids"]) == 1
        assert (await alice.post("account/3pid/unbind", threepid)).ok() == {"id_server_unbind_result": "no-support"}
        assert (await alice.post("account/3pid/delete", threepid)).ok() == {"id_server_unbind_result": "no-support"}
        assert (await alice.get("account/3pid")).ok() == {"threepids": []}
        (await bob.post("account/3pid/add", bodies[1])).ok()
        # The account's end frees the address.
        (await bob.post("account/deactivate", {"auth": _password(bob)})).ok()
        with psycopg.connect(writers_database) as connection:
            rows = connection.execute("select 1 from writer.threepids where address = %s", [address]).fetchall()
        assert rows == []


async def test_identity_servers_are_trusted_with_nothing(api: Api) -> None:
    alice = await api.register()
    creds = {"client_secret": "s", "sid": "1", "id_server": "id.example", "id_access_token": "t"}
    assert (await alice.post("account/3pid/bind", creds)).refusal == (400, "M_SERVER_NOT_TRUSTED")
    assert (await alice.post("account/3pid/bind", {"sid": "1"})).refusal == (400, "M_MISSING_PARAM")
    old = await alice.post("account/3pid", {"three_pid_creds": creds})
    assert old.refusal == (403, "M_THREEPID_AUTH_FAILED")
    assert (await alice.post("account/3pid", {})).refusal == (400, "M_MISSING_PARAM")
    for body in ({"medium": "pigeon", "address": "x"}, {"medium": "email", "address": "nul\0"}):
        assert (await alice.post("account/3pid/delete", body)).refusal == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("path", ["register", "account/password", "account/3pid"])
async def test_without_a_mail_server_no_address_is_known_and_telephone_numbers_never(api: Api, path: str) -> None:
    assert (await ask(api.anybody, path, "a@post.example")).refusal == (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
    phone = {"client_secret": "s", "country": "GB", "phone_number": "07700900001", "send_attempt": 1}
    answer = await api.anybody.post(f"{path}/msisdn/requestToken", phone)
    assert answer.refusal == (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
    assert (await api.anybody.post(f"{path}/msisdn/requestToken", {})).refusal == (400, "M_MISSING_PARAM")
    assert (await api.anybody.post("account/password", {"new_password": "x"})).refusal == (401, "M_MISSING_TOKEN")


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"email": None}, (400, "M_MISSING_PARAM")),
        ({"email": 5}, (400, "M_BAD_JSON")),
        ({"email": "no address"}, (400, "M_INVALID_PARAM")),
        ({"email": "a@b.example\nBcc: c@d.example"}, (400, "M_INVALID_PARAM")),
        ({"client_secret": None}, (400, "M_MISSING_PARAM")),
        ({"client_secret": ""}, (400, "M_INVALID_PARAM")),
        ({"client_secret": "not / opaque"}, (400, "M_INVALID_PARAM")),
        ({"client_secret": "not~allowed"}, (400, "M_INVALID_PARAM")),
        ({"client_secret": "x" * 256}, (400, "M_INVALID_PARAM")),
        ({"send_attempt": None}, (400, "M_MISSING_PARAM")),
        ({"send_attempt": "1"}, (400, "M_BAD_JSON")),
        ({"send_attempt": -1}, (400, "M_BAD_JSON")),
        ({"send_attempt": 2**53}, (400, "M_BAD_JSON")),
        ({"next_link": 5}, (400, "M_BAD_JSON")),
    ],
)
async def test_a_request_that_is_not_well_formed_is_refused(
    api: Api, change: dict[str, Any], refusal: tuple[int, str]
) -> None:
    good = {"client_secret": "s", "email": "a@post.example", "send_attempt": 1}
    body = {name: value for name, value in {**good, **change}.items() if value is not None}
    assert (await api.anybody.post("register/email/requestToken", body)).refusal == refusal


@pytest.mark.slow
async def test_a_mail_server_that_refuses_or_is_not_there_is_told_of(
    writers_database: str, writers_folder: Path
) -> None:
    async with mailing(writers_database, writers_folder) as (mail, _):
        with capture_logs() as logged:
            assert (await ask(mail.anybody, "register", "x@refused.example")).refusal == (400, "M_INVALID_PARAM")
            assert (await ask(mail.anybody, "register", "x@later.example")).refusal == (503, "M_UNKNOWN")
        assert [line["codes"] for line in logged] == [[550], [451]] and "x@" not in str(logged)
    wrong = {"WALDEN_EMAIL_SMTP_PASSWORD": "not it"}
    async with mailing(writers_database, writers_folder, **wrong) as (mail, boxes):
        assert (await ask(mail.anybody, "register", "y@post.example")).refusal == (503, "M_UNKNOWN")
    gone = {"WALDEN_EMAIL_SMTP_HOST": "127.0.0.1", "WALDEN_EMAIL_SMTP_PORT": "1"}
    async with serving(settings_for(writers_database, writers_folder, **gone)) as mail:
        assert (await ask(mail.anybody, "register", "z@post.example")).refusal == (503, "M_UNKNOWN")
    # What was not sent was no attempt.
    async with mailing(writers_database, writers_folder) as (mail, boxes):
        (await ask(mail.anybody, "register", "z@post.example")).ok()
        assert len(boxes.letters["z@post.example"]) == 1


async def test_a_mailbox_is_not_filled_from_here(writers_database: str, writers_folder: Path) -> None:
    limits = {"WALDEN_RATE_LIMITS": "on", "WALDEN_RATE_LIMITS_EMAIL_BURST": "3"}
    async with mailing(writers_database, writers_folder, **limits) as (mail, boxes):
        answers = [
            await ask(mail.anybody, "register", "full@post.example", attempt, client_secret=f"s{attempt}")
            for attempt in range(1, 6)
        ]
        assert [answer.status for answer in answers] == [200] * 3 + [429] * 2
        assert len(boxes.letters["full@post.example"]) == 3


@given(st.text(max_size=40))
def test_an_address_that_passes_is_one_line_with_one_form(text: str) -> None:
    try:
        address = check_address(text)
    except MatrixError as error:
        assert (error.status, error.errcode) == (400, "M_INVALID_PARAM")
        return
    assert "\n" not in address and "\r" not in address and "@" in address
    assert check_address(address) == address == fold_address(address)


@pytest.mark.parametrize("address", ["a@b.example", "A.B+c@Sub.Example.ORG", "a_b-c@xn--4ca.example"])
def test_addresses_that_people_have_pass(address: str) -> None:
    assert check_address(address) == address.casefold()


@pytest.mark.parametrize(
    "address",
    [
        "a@b.example(x)",
        "(x)a@b.example",
        '"a"@b.example',
        "a@[127.0.0.1]",
        "<a@b.example>",
        "a@b.example,c@d.example",
        "a b@c.example",
        "a@localhost",
        "a..b@c.example",
        "a@b.example.",
        "a@-b.example",
        f"{'a' * 250}@b.example",
    ],
)
def test_what_could_be_another_address_too_is_none(address: str) -> None:
    with pytest.raises(MatrixError):
        check_address(address)
