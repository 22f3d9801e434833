"""What the fuzzer of endpoints begins with covers each of them, also those that are added."""

from __future__ import annotations

from pathlib import Path

from proper_requests import NO_BODY, QUERIES, Scene, fill

from bin.api import compose
from eventlog.configuration import load_settings
from writer.passwords import Passwords

SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
SCENE = Scene("@me:a.example", "DEVICE", "!room:a.example", "$event", "@other:a.example", "a.example")


def test_every_endpoint_has_a_proper_request_with_a_body_where_it_takes_one(tmp_path: Path) -> None:
    (tmp_path / "signing.key").write_text(f"ed25519 a_test {SEED}\n")
    chosen = {
        "WALDEN_DATA_DIR": str(tmp_path),
        "WALDEN_DATABASE_DSN": "host=nowhere",
        "WALDEN_SERVER_NAME": "a.example",
    }
    process, _ = compose(load_settings(chosen, tmp_path / "walden.toml"), Passwords())
    process.passwords.close()
    routes = set(process.routes.methods())
    bare = {
        (method, template)
        for method, template in routes
        if method in ("POST", "PUT") and SCENE.body(method, template) == {} and (method, template) not in NO_BODY
    }
    assert bare == set(), "tests/processes/proper_requests.py has no body for these"
    assert not {template for template in QUERIES if ("GET", template) not in routes}
    for method, template in routes:
        assert "{" not in fill(template, SCENE.parameters(template))
        assert SCENE.request(method, template).path.startswith("/")
