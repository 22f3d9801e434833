"""The folders of an installation below its data directory, and who may enter them.

Invariant: what a run writes is in the data directory, except sockets whose path would be longer than the
kernel takes: those are in a short private folder whose name is made from the data directory's.
"""

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

# sun_path holds 108 bytes on Linux and 104 elsewhere, the closing NUL included.
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103


class PlacesError(Exception):
    """A folder cannot be made safely; the message says which and why."""


def private_folder(path: Path, mode: int = 0o700) -> Path:
    """Make `path` if it is absent and see that it is ours alone to write. Raises PlacesError."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise PlacesError(f"{path} cannot be made: {error.strerror}") from None
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PlacesError(f"{path} is not a folder of user {os.geteuid()}: remove it, or choose another data directory")
    if stat.S_IMODE(found.st_mode) != mode:
        path.chmod(mode)
    return path


def data_folder(path: Path) -> Path:
    """Make the data directory, or leave its mode as the operator chose it; what is inside protects itself."""
    if path.is_dir():
        return path
    return private_folder(path)


def run_folder(data_dir: Path) -> Path:
    """Folder for locks, generated configuration and the supervisor's socket."""
    return private_folder(data_dir / "run")


def socket_folder(data_dir: Path, wanted: Path, name: str) -> Path:
    """`wanted` when a socket called `name` fits there, else a short folder for this data directory (not yet made)."""
    if len(os.fsencode(wanted / name)) <= LONGEST_SOCKET_PATH:
        return wanted
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:12]
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        base = Path("/run", f"walden-{digest}")
    else:
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), f"walden-{os.geteuid()}-{digest}")
    return base / wanted.name
