"""matrix-synapse in a virtual environment of its own, as a second opinion.

Ours and theirs never share an environment: the tests run its interpreter. The environment lies beside the checkout's own
and is shared with the benchmark; whoever comes first makes it, under a lock.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

__all__ = ["SYNAPSE_REQUIREMENT", "synapse_python"]

SYNAPSE_REQUIREMENT = "matrix-synapse==1.163.2"

_CHECKOUT = Path(__file__).resolve().parent.parent
_ENVIRONMENT = _CHECKOUT / ".venv-synapse"
_LOCK = _CHECKOUT / ".venv-synapse.lock"
_INSTALL_SECONDS = 900


def synapse_python() -> Path:
    """The interpreter of an environment that has Synapse; makes one if there is none. Raises CalledProcessError."""
    python = _ENVIRONMENT / "bin" / "python"
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _has_synapse(python):
            if not python.exists():
                subprocess.run([sys.executable, "-m", "venv", str(_ENVIRONMENT)], check=True, timeout=_INSTALL_SECONDS)
            command = [str(python), "-m", "pip", "install", "--quiet", SYNAPSE_REQUIREMENT]
            subprocess.run(command, check=True, timeout=_INSTALL_SECONDS)
    return python


def _has_synapse(python: Path) -> bool:
    if not python.exists():
        return False
    check = [
        str(python),
        "-c",
        "import importlib.metadata as m; print('matrix-synapse==' + m.version('matrix-synapse'))",
    ]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() == SYNAPSE_REQUIREMENT
