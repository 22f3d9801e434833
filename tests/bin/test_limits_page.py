"""docs/limits.md says of every endpoint what bounds it, also of those that are added."""

from __future__ import annotations

import re
from pathlib import Path

from bin.api import compose
from bin.initialise import make_ready
from eventlog.configuration import load_settings

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"


def named(page: str) -> list[re.Pattern[str]]:
    """The endpoints that the first column of the page's tables names, as patterns of paths; an ellipsis is any part of a path."""
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    texts = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    paths = [re.sub(r"^(GET|POST|PUT|DELETE) ", "", text) for text in texts]
    return [re.compile(r"(.*/)?" + re.escape(path).replace("…", ".*")) for path in paths]


def test_every_endpoint_is_on_the_page_of_limits(tmp_path: Path) -> None:
    settings = load_settings({"WALDEN_DATA_DIR": str(tmp_path), "WALDEN_DATABASE_DSN": "host=nowhere.invalid"})
    make_ready(settings)
    process, _ = compose(settings)
    process.passwords.close()
    templates = {template for _, template in process.routes.methods()}
    known = named(PAGE.read_text(encoding="utf-8"))
    assert len(templates) > 50 and len(known) > 50
    paths = {re.sub(r"\{\w+\}", "x", template) for template in templates}
    assert [path for path in sorted(paths) if not any(one.fullmatch(path) for one in known)] == []


def test_what_the_page_does_not_name_is_missed() -> None:
    (one,) = named("| `POST rooms/…/typing/…` | 2 minutes | – |")
    assert one.fullmatch("/_matrix/client/v3/rooms/x/typing/x")
    assert not one.fullmatch("/_matrix/client/v3/rooms/x/state")
