"""matrix-commander in a virtual environment of its own, for it wants an encrypting matrix-nio and much else besides.

Invariant: it lies beside the checkout's own environment and is made by whoever comes first, under a lock.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

REQUIREMENT = "matrix-commander==8.0.6"
CHECKOUT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = CHECKOUT / ".venv-commander"
INSTALL_SECONDS = 600


def commander() -> Path:
    """The program. Raises CalledProcessError."""
    program = ENVIRONMENT / "bin" / "matrix-commander"
    stamp = ENVIRONMENT / "stamp"
    with (CHECKOUT / ".venv-commander.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != REQUIREMENT:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True, timeout=120)
            pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", REQUIREMENT]
            subprocess.run(pip, check=True, timeout=INSTALL_SECONDS)
            stamp.write_text(REQUIREMENT)
    return program
