"""docs/compliance.md names what of the Client-Server API is not there, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from openapi import VARIABLE, specification

from bin.api import compose
from eventlog.configuration import load_settings
from eventlog.key_file import make_key

PAGE = Path(__file__).parents[2] / "docs" / "compliance.md"
Shape = tuple[str, str]


def shape(method: str, template: str) -> Shape:
    """The operation, whatever the fields of its path are called."""
    return method, re.sub(r"\{\w+\}", "{}", template.strip())


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> set[Shape]:
    folder = tmp_path_factory.mktemp("data")
    settings = load_settings({"WALDEN_DATA_DIR": str(folder), "WALDEN_DATABASE_DSN": "host=nowhere.invalid"})
    make_key(settings.server.signing_key)
    process, _ = compose(settings)
    process.passwords.close()
    return {shape(*route) for route in process.routes.methods()}


@pytest.fixture(scope="module")
def missing() -> set[Shape]:
    rows = re.findall(r"^\| `(GET|POST|PUT|DELETE) ([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows
    return {shape(method, f"/_matrix/client/{path}") for method, path in rows}


def test_nothing_that_is_there_is_said_to_be_missing(mounted: set[Shape], missing: set[Shape]) -> None:
    assert mounted & missing == set()


def test_every_operation_of_the_specification_is_there_or_its_absence_is_explained(
    mounted: set[Shape], missing: set[Shape]
) -> None:
    found = specification()
    if found is None:
        pytest.skip(f"{VARIABLE} names no checkout of github:matrix-org/matrix-spec")
    specified = {shape(one.method, one.template) for one in found.operations if one.area == "client-server"}
    assert len(specified) > 150
    assert specified - mounted - missing == set()
    assert missing <= specified
