import base64
import re
from hashlib import sha256
from pathlib import Path

import psycopg
from api_server import Api, serving, settings_for

BROWSER = {"Accept": "text/html"}
PAGE = "/_matrix/client/v3/auth/{}/fallback/web"


async def test_a_registration_with_terms_and_a_token_can_be_completed_in_a_browser(
    writers_database: str, writers_folder: Path
) -> None:
    with psycopg.connect(writers_database, autocommit=True) as connection:
        connection.execute("insert into writer.registration_tokens (token) values ('for-browsers')")
    chosen = {"WALDEN_REGISTRATION": "token", "WALDEN_REGISTRATION_TERMS_URL": "https://test.example/terms?a=1&b=2"}
    async with serving(settings_for(writers_database, writers_folder, **chosen)) as other:
        body = {"username": "in.a.browser", "password": "secret!"}
        asked = await other.anybody.post("register", body)
        assert asked.body["flows"] == [{"stages": ["m.login.registration_token", "m.login.terms"]}]
        assert asked.body["params"]["m.login.terms"]["policies"]["terms_of_service"] == {
            "version": "1",
            "en": {"name": "Terms of service", "url": "https://test.example/terms?a=1&b=2"},
        }
        session = asked.body["session"]
        resumed = {**body, "auth": {"session": session}}
        terms, token = PAGE.format("m.login.terms"), PAGE.format("m.login.registration_token")
        page = await other.http.get(f"{terms}?session={session}", headers=BROWSER)
        assert page.status_code == 200 and "https://test.example/terms?a=1&amp;b=2" in page.text
        # In order.
        early = await other.http.post(terms, data={"session": session}, headers=BROWSER)
        assert early.status_code == 403
        wrong = await other.http.post(token, data={"session": session, "token": "wrong"}, headers=BROWSER)
        assert wrong.status_code == 403
        assert (await other.anybody.post("register", resumed)).body["completed"] == []
        done = await other.http.post(token, data={"session": session, "token": "for-browsers"}, headers=BROWSER)
        assert done.status_code == 200 and 'window.opener.postMessage("authDone", "*")' in done.text
        assert (await other.anybody.post("register", resumed)).body["completed"] == ["m.login.registration_token"]
        assert (await other.http.post(terms, data={"session": session}, headers=BROWSER)).status_code == 200
        (await other.anybody.post("register", resumed)).ok()


async def test_stages_without_a_page_are_not_found(api: Api) -> None:
    for stage in ("m.login.password", "m.login.terms", "x"):
        assert (await api.anybody.get(PAGE.format(stage) + "?session=x")).refusal == (404, "M_NOT_FOUND")
        assert (await api.http.get(PAGE.format(stage) + "?session=x", headers=BROWSER)).status_code == 404
    dummy = PAGE.format("m.login.dummy")
    assert (await api.anybody.get(dummy)).refusal == (403, "M_FORBIDDEN")
    assert (await api.http.post(dummy, content=b"x" * 20_000, headers=BROWSER)).status_code == 413


async def test_there_is_a_page_to_log_in_on_whose_script_alone_runs(api: Api) -> None:
    page = await api.http.get("/_matrix/static/client/login/?device_id=%22%3E%3Cscript%3E", headers=BROWSER)
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    (script,) = re.findall("<script>(.*?)</script>", page.text, re.DOTALL)
    assert "window.matrixLogin.onLogin(response)" in script
    policy = page.headers["content-security-policy"]
    assert f"script-src 'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert (await api.anybody.get("/_matrix/static/client/login/")).refusal == (406, "M_UNKNOWN")
