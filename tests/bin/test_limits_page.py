"""docs/limits.md says of every endpoint what bounds it, also of those that are added."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bin.api import compose
from eventlog.configuration import load_settings
from eventlog.key_file import make_key

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"


@dataclass(frozen=True)
class Row:
    """What a row of the page is about: a path, in which an ellipsis is any part, and one method of it or all that it has."""

    text: str

    @property
    def method(self) -> str | None:
        first, _, rest = self.text.partition(" ")
        return first if rest else None

    def covers(self, method: str, path: str) -> bool:
        """Whether it says what bounds this endpoint."""
        pattern = r"(.*/)?" + re.escape(self.text.rpartition(" ")[2]).replace("…", ".*")
        return self.method in (None, method) and re.fullmatch(pattern, path) is not None


def rows(page: str) -> list[Row]:
    """The endpoints that the first column of the page's tables names."""
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    return [Row(text) for cell in cells for text in re.findall(r"`([^`]+)`", cell)]


def test_every_endpoint_is_on_the_page_of_limits_and_nothing_else_is(tmp_path: Path) -> None:
    settings = load_settings({"WALDEN_DATA_DIR": str(tmp_path), "WALDEN_DATABASE_DSN": "host=nowhere.invalid"})
    make_key(settings.server.signing_key)
    process, _ = compose(settings)
    process.passwords.close()
    endpoints = {(method, re.sub(r"\{\w+\}", "x", template)) for method, template in process.routes.methods()}
    known = rows(PAGE.read_text(encoding="utf-8"))
    assert len(endpoints) > 50 and len(known) > 50
    assert [one for one in sorted(endpoints) if not any(row.covers(*one) for row in known)] == []
    assert [row.text for row in known if not any(row.covers(*one) for one in endpoints)] == []


def test_what_the_page_does_not_name_is_missed() -> None:
    (one,) = rows("| `rooms/…/typing/…` | 2 minutes | – |")
    assert one.covers("PUT", "/_matrix/client/v3/rooms/x/typing/x")
    assert not one.covers("PUT", "/_matrix/client/v3/rooms/x/state")
    (one,) = rows("| `POST login` | – | – |")
    assert one.covers("POST", "/_matrix/client/v3/login")
    assert not one.covers("GET", "/_matrix/client/v3/login")
