"""The files of processes that are gone are added up, so that totals stay and files do not."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from bin.metrics import rendered
from bin.metrics_folder import VARIABLE, bury, clear, measure
from eventlog.configuration import load_settings

COUNTING = """
import sys
from prometheus_client import Counter, Gauge, Histogram
Counter("c", "c", ["kind"]).labels("x").inc(2)
Histogram("h", "h", buckets=(1, 2)).observe(1.5)
Gauge("g", "g", multiprocess_mode="livesum").set(7)
print("counted", flush=True)
sys.stdin.read()
"""


def _counting(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTING],
        env=os.environ | {VARIABLE: str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=30)


def _shown(folder: Path) -> tuple[float | None, float | None, float | None]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return (
        registry.get_sample_value("c_total", {"kind": "x"}),
        registry.get_sample_value("h_bucket", {"le": "2.0"}),
        registry.get_sample_value("g"),
    )


def test_totals_of_the_dead_stay_and_their_levels_and_files_go(tmp_path: Path) -> None:
    first, second = _counting(tmp_path), _counting(tmp_path)
    try:
        bury(tmp_path)
        assert _shown(tmp_path) == (4, 2, 14)
        _end(first)
        bury(tmp_path)
        assert _shown(tmp_path) == (4, 2, 7)
        for _ in range(3):
            _end(_counting(tmp_path))
            bury(tmp_path)
        assert _shown(tmp_path) == (10, 5, 7)
        assert len(list(tmp_path.iterdir())) == 5
        text, media_type = rendered(tmp_path, [], "")
        assert b'c_total{kind="x"} 10.0' in text
        assert media_type.startswith("text/plain")
    finally:
        _end(second)


def test_a_new_start_forgets_the_dead_and_leaves_the_living(tmp_path: Path) -> None:
    _end(_counting(tmp_path))
    bury(tmp_path)
    alive = _counting(tmp_path)
    try:
        clear(tmp_path)
        assert _shown(tmp_path) == (2, 1, 7)
    finally:
        _end(alive)
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_from_before_a_process_began_is_another_ones(tmp_path: Path) -> None:
    file = tmp_path / f"counter_{os.getpid()}.db"
    file.touch()
    before = psutil.Process().create_time() - 60
    os.utime(file, (before, before))
    clear(tmp_path)
    assert not file.exists()


def test_only_an_installation_that_shows_metrics_writes_them(tmp_path: Path) -> None:
    before = os.environ.get(VARIABLE)
    try:
        measure(load_settings({"WALDEN_DATA_DIR": str(tmp_path), "WALDEN_SERVER_METRICS_LISTEN": "127.0.0.1:9"}))
        folder = Path(os.environ[VARIABLE])
        assert folder == tmp_path / "run" / "metrics"
        assert folder.stat().st_mode & 0o777 == 0o700
        measure(load_settings({"WALDEN_DATA_DIR": str(tmp_path)}))
        assert VARIABLE not in os.environ
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
