"""docs/metrics.md has one line for every metric there is, with its type and labels, and none for another."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bin.api import compose
from bin.request_counts import endpoint_class
from eventlog.configuration import load_settings
from eventlog.key_file import make_key

CHECKOUT = Path(__file__).resolve().parents[2]
KINDS = {"Counter": "counter", "Gauge": "gauge", "Histogram": "histogram", "GaugeMetricFamily": "gauge"}
UNBOUNDED = {"room", "room_id", "user", "user_id", "event_id", "pid", "address", "path", "device"}

Metric = tuple[str, str, tuple[str, ...]]


def _declared() -> Iterator[Metric]:
    """Name as it is shown, type and labels of every metric that the code makes."""
    for package in ("eventlog", "writer", "roomserver", "readers", "bin"):
        for file in (CHECKOUT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS):
                    continue
                if not (node.args and isinstance(node.args[0], ast.Constant)):
                    continue
                kind = KINDS[node.func.id]
                given = [word.value for word in node.keywords if word.arg in ("labels", "labelnames")] + node.args[2:3]
                labels = tuple(ast.literal_eval(given[0])) if given else ()
                yield f"{node.args[0].value}{'_total' if kind == 'counter' else ''}", kind, labels


def _documented() -> Iterator[Metric]:
    for line in (CHECKOUT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\| `(\w+)` \| (\w+) \| ([\w, ]*)\| \S.* \|", line):
            yield match[1], match[2], tuple(re.findall(r"\w+", match[3]))


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other_is() -> None:
    declared, documented = list(_declared()), list(_documented())
    assert len(declared) > 30
    assert len(set(declared)) == len(declared)
    assert sorted(declared) == sorted(documented)


def test_no_label_has_unbounded_values_by_its_name() -> None:
    assert not {label for _, _, labels in _declared() for label in labels} & UNBOUNDED


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}", "send"),
        ("/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}", "state"),
        ("/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags/{tag}", "account_data"),
        ("/_matrix/client/v3/directory/list/room/{room_id}", "directory"),
        ("/_matrix/client/v3/sync", "sync"),
        ("/_matrix/federation/v1/send/{txn_id}", "federation"),
        ("/.well-known/matrix/client", "discovery"),
        ("/somewhere/else", "other"),
    ],
)
def test_an_endpoint_has_the_class_of_its_telling_segment(template: str, expected: str) -> None:
    assert endpoint_class(template) == expected


async def test_no_endpoint_of_ours_is_without_a_class(tmp_path: Path) -> None:
    settings = load_settings({"WALDEN_DATA_DIR": str(tmp_path), "WALDEN_DATABASE_DSN": "host=nowhere.invalid"})
    make_key(settings.server.signing_key)
    process, _ = compose(settings)
    try:
        templates = {template for _, template in process.routes.methods()}
        assert len(templates) > 50
        assert [template for template in templates if endpoint_class(template) == "other"] == []
    finally:
        process.passwords.close()
