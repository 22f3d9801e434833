"""The few pages this server shows in a browser. What is no browser is refused with the standard error response.

Invariant: every text is escaped, no page loads or frames anything or is framed, and none is kept by a cache or named to another
site. A script runs only where the specification wants one, and then by its hash.
"""

from __future__ import annotations

import base64
from hashlib import sha256
from html import escape
from urllib.parse import parse_qs, urlsplit

from falcon.asgi import Request, Response

from matrix.errors import MatrixError, too_large

MOST_FORM_BYTES = 16_384
_STYLE = (
    "body{font-family:sans-serif;max-width:32em;margin:4em auto;padding:0 1em;line-height:1.5}"
    "button{font-size:1em;padding:.5em 1.5em}input{font-size:1em;padding:.4em}"
)


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def form(hidden: dict[str, str], button: str, inner: str = "") -> str:
    """A form that is sent to the page's own address; `inner` is HTML."""
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in hidden.items()
    )
    return f'<form method="post">{fields}{inner}<p><button type="submit">{escape(button)}</button></p></form>'


def show(
    resp: Response,
    title: str,
    inner: str,
    *,
    status: int = 200,
    script: str = "",
    fetches: bool = False,
    onward: str | None = None,
) -> None:
    """Answers with a page; `inner` is HTML. `onward` is where its form's answer may send the browser.

    `fetches` is whether the script asks this server for something.
    """
    # What a form is answered with counts as its target, too.
    targets = "'self'" if onward is None else f"'self' {_origin(onward)}"
    policy = f"default-src 'none'; form-action {targets}; frame-ancestors 'none'; base-uri 'none'"
    policy += f"; style-src 'sha256-{_digest(_STYLE)}'"
    if script:
        policy += f"; script-src 'sha256-{_digest(script)}'"
    if fetches:
        policy += "; connect-src 'self'"
    resp.status = status
    resp.content_type = "text/html; charset=utf-8"
    resp.text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1>{inner}{f'<script>{script}</script>' if script else ''}</body></html>"
    )
    resp.set_header("content-security-policy", policy)
    resp.set_header("x-content-type-options", "nosniff")
    resp.set_header("x-frame-options", "DENY")
    resp.set_header("referrer-policy", "no-referrer")
    resp.set_header("cache-control", "no-store")


def refuse(req: Request, resp: Response, error: MatrixError) -> None:
    """Answers a browser with a page that says what was wrong; for everybody else raises the error again."""
    if "text/html" not in (req.get_header("accept") or ""):
        raise error
    show(resp, "That did not work", paragraph(error.error), status=error.status)


async def read_form(req: Request) -> dict[str, str]:
    """The fields of a form, the first of each name; what is no form has none. M_TOO_LARGE."""
    body: bytes = await req.stream.read(MOST_FORM_BYTES + 1)
    if len(body) > MOST_FORM_BYTES:
        raise too_large(f"A form may have {MOST_FORM_BYTES} bytes.")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items() if "\0" not in values[0]}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{parts.port}' if parts.port else ''}"


def _digest(text: str) -> str:
    return base64.b64encode(sha256(text.encode()).digest()).decode()
