"""The page on which somebody can log in in a browser, for clients that do not know any of the login types.

Invariant: the page is the same for everybody, and its script asks the login endpoint as any client does; what it was given goes to
the client that shows it, and nowhere else. Source: client-server API, "Login Fallback".
"""

from __future__ import annotations

from typing import ClassVar, Final

from falcon.asgi import Request, Response

from matrix.errors import unknown
from writer.pages import show

_FORM: Final = (
    '<form><p><label>User name or e-mail address<br><input name="user" autocomplete="username" required></label></p>'
    '<p><label>Password<br><input name="password" type="password" autocomplete="current-password" required></label></p>'
    '<p><button type="submit">Log in</button></p><p role="alert"></p></form>'
)

# Non-credential parameters of the login come in the page's query; who shows the page waits for matrixLogin.onLogin.
_SCRIPT: Final = """const form = document.forms[0];
const said = document.querySelector("[role=alert]");
form.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.textContent = "";
    const name = form.elements.user.value.trim();
    const identifier = /^[^@].*@/.test(name)
        ? { type: "m.id.thirdparty", medium: "email", address: name }
        : { type: "m.id.user", user: name };
    const body = { type: "m.login.password", identifier, password: form.elements.password.value };
    const asked = new URLSearchParams(location.search);
    for (const key of ["device_id", "initial_device_display_name"]) {
        if (asked.has(key)) body[key] = asked.get(key);
    }
    if (asked.has("refresh_token")) body.refresh_token = asked.get("refresh_token") === "true";
    try {
        const answer = await fetch("/_matrix/client/v3/login", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(body),
        });
        const response = await answer.json();
        if (!answer.ok) {
            said.textContent = response.error;
            return;
        }
        form.replaceChildren("You can go back to your client.");
        if (window.matrixLogin && window.matrixLogin.onLogin) window.matrixLogin.onLogin(response);
    } catch (error) {
        said.textContent = "The server cannot be reached.";
    }
});"""


class LoginPage:
    """GET /_matrix/static/client/login/."""

    public_methods: ClassVar = frozenset({"GET"})

    async def on_get(self, req: Request, resp: Response) -> None:
        """The page; what is no browser is told so."""
        if "text/html" not in (req.get_header("accept") or ""):
            raise unknown(406, "This is a page for browsers.")
        show(resp, "Log in", _FORM, script=_SCRIPT, fetches=True)
