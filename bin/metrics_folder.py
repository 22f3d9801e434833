"""Where the processes of an installation keep what they count: one memory-mapped file per process and kind of metric.

Invariant: the number of files is bounded by the processes that live: what dead ones counted is added to one file per kind,
so that no total goes back, and their levels are forgotten.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import psutil

from bin.places import private_folder, run_folder
from eventlog.configuration import Settings

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_NOBODY = "0"
"""The process that never is: what all dead ones counted goes by its name."""


def metrics_folder(settings: Settings) -> Path:
    """The folder, made if it is absent."""
    return private_folder(run_folder(settings.server.data_dir) / "metrics")


def measure(settings: Settings) -> None:
    """Let this process's metrics be seen, if server.metrics_listen asks for it. Before prometheus_client is imported."""
    if settings.server.metrics_listen is None:
        # Somebody else's folder, perhaps.
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = str(metrics_folder(settings))


def clear(folder: Path) -> None:
    """Begin anew: remove every file whose process is gone, and what was added up of such processes."""
    for file in folder.glob("*.db"):
        if not _lives(file):
            file.unlink(missing_ok=True)


def bury(folder: Path) -> None:
    """Add what dead processes counted to one file per kind, and forget their levels."""
    from prometheus_client import mmap_dict

    files: Any = mmap_dict.MmapedDict
    for file in folder.glob("*.db"):
        kind, pid = file.stem.split("_", 1)[0], file.stem.rsplit("_", 1)[-1]
        if pid == _NOBODY or _lives(file):
            continue
        # Taken away first: whoever is interrupted loses one process's counts, and adds none twice.
        taken = file.rename(file.with_suffix(".dead"))
        if kind != "gauge":
            total = files(str(folder / f"{kind}_{_NOBODY}.db"))
            for key, value, _, _ in files.read_all_values_from_file(str(taken)):
                total.write_value(key, total.read_value(key)[0] + value, 0.0)
            total.close()
        taken.unlink()
    for left in folder.glob("*.dead"):
        left.unlink()


def _lives(file: Path) -> bool:
    """Whether the process that a file is named after is the one that wrote it, and lives."""
    with contextlib.suppress(psutil.Error, ValueError, OSError):
        process = psutil.Process(int(file.stem.rsplit("_", 1)[-1]))
        # A later process with the same number began after the file was last written. Its clock is coarse.
        return process.create_time() <= file.stat().st_mtime + 2
    return False
