"""The virtual environment beside the checkout: made when absent, brought up to date when the metadata changed.

Invariant: run by any Python 3.11 with the standard library alone (bin/interpreter finds one). An environment that a stamp
file calls finished is whole and fits this checkout; whatever is interrupted has no stamp and is done again. Progress
goes to standard error, so that standard output is the command's own.

    python3 -I bin/environment.py EXTRAS COMMAND [ARGUMENT...]
"""

import configparser
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
ENVIRONMENT = CHECKOUT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
OLDEST = (3, 11)


def main(extras: str, command: str, *arguments: str) -> None:
    """Make sure of the environment and become `command` in it."""
    if sys.version_info < OLDEST:
        sys.exit(f"walden: Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, and {sys.executable} is older")
    if not _fits(extras):
        with _alone() as lock:
            if not _fits(extras):
                _install(extras, lock)
    program = ENVIRONMENT / "bin" / command
    words = [str(PYTHON), str(program), *arguments] if command != "python" else [str(PYTHON), *arguments]
    os.execve(PYTHON, words, {**os.environ, **_defaults(command, os.environ)})


def _defaults(command: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The checkout's walden.toml is the default of its bin/walden, whatever folder that is called from."""
    named = environ.get("WALDEN_CONFIG") or environ.get("WALDEN_DATA_DIR")
    return {} if named or command != "walden" else {"WALDEN_CONFIG": str(CHECKOUT / "walden.toml")}


def _stamp(extras: str) -> Path:
    return ENVIRONMENT / f".walden-{extras or 'plain'}"


def _wanted() -> str:
    """What an environment must have been made from to be used as it is."""
    # Only what pip reads: the settings of linters are in the same file, and change oftener.
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    parts = [str((name, sorted(metadata[name].items()))) for name in metadata if name.startswith("options")]
    return hashlib.sha256("\0".join([*parts, str(CHECKOUT)]).encode()).hexdigest()


def _fits(extras: str) -> bool:
    # The test extras contain everything else; a removed interpreter leaves a dangling link.
    stamps = [_stamp(extras), _stamp("test")]
    wanted = _wanted()
    return PYTHON.exists() and any(stamp.exists() and stamp.read_text() == wanted for stamp in stamps)


@contextlib.contextmanager
def _alone() -> Iterator[int]:
    """Let only one process install at a time. A pip that has the descriptor too counts, should this process be killed."""
    try:
        descriptor = os.open(CHECKOUT, os.O_RDONLY)
    except OSError as error:
        sys.exit(f"walden: {CHECKOUT} cannot be read: {error.strerror}")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another process that installs here")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _install(extras: str, lock: int) -> None:
    if not os.access(CHECKOUT, os.W_OK):
        sys.exit(
            f"walden: {ENVIRONMENT} must be made or brought up to date, and you may not write to {CHECKOUT}: "
            "run bin/up once as its owner, or use a checkout of your own"
        )
    if not _works():
        _say(f"making the virtual environment {ENVIRONMENT} with Python {sys.version.split()[0]}")
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        _make()
    for stamp in ENVIRONMENT.glob(".walden-*"):
        stamp.unlink()
    # What was installed stays installed: a plain run must not take the test tools away from a developer.
    wanted = f"{CHECKOUT}[{extras}]" if extras else str(CHECKOUT)
    _say(
        f"installing Walden{f' with its {extras} tools' if extras else ''} and what it needs; this takes a minute or two"
    )
    _pip(lock, "install", "--editable", wanted)
    _stamp(extras).write_text(_wanted())
    _say("installed")


def _works() -> bool:
    if not PYTHON.exists():
        return False
    check = f"import sys, pip; sys.exit(sys.version_info < {OLDEST})"
    return subprocess.run([PYTHON, "-c", check], capture_output=True, check=False).returncode == 0


def _make() -> None:
    try:
        venv.create(ENVIRONMENT, symlinks=True, with_pip=True)
    except (subprocess.CalledProcessError, OSError):
        # Debian splits ensurepip off into python3-venv; pip itself can install pip.
        _say("this Python has no ensurepip; fetching pip from the package index")
        venv.create(ENVIRONMENT, symlinks=True, with_pip=False, clear=True)
        try:
            _fetch_pip()
        except (OSError, urllib.error.URLError, LookupError, subprocess.CalledProcessError) as error:
            shutil.rmtree(ENVIRONMENT, ignore_errors=True)
            sys.exit(
                f"walden: pip could not be fetched ({error}). Install the package that brings ensurepip "
                f"(Debian, Ubuntu: apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv) and try again"
            )


def _fetch_pip() -> None:
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    wanted = urllib.request.Request(f"{index}/pip/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(wanted, timeout=60) as answer:
        files = json.load(answer)["files"]
    wheels = {
        tuple(map(int, found[1].split("."))): file
        for file in files
        if (found := re.fullmatch(r"pip-([0-9.]+)-py3-none-any\.whl", file["filename"])) and not file.get("yanked")
    }
    if not wheels:
        raise LookupError(f"{index} has no wheel of pip")
    wheel = wheels[max(wheels)]
    address = urllib.parse.urljoin(f"{index}/pip/", wheel["url"])
    with urllib.request.urlopen(address, timeout=60) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != wheel["hashes"]["sha256"]:
        raise LookupError(f"{wheel['filename']} arrived damaged")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, wheel["filename"])
        path.write_bytes(content)
        subprocess.run([PYTHON, f"{path}/pip", "install", str(path)], check=True, stdout=sys.stderr)


def _pip(lock: int, *arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    if subprocess.run(command, stdout=sys.stderr, check=False, pass_fds=[lock]).returncode:
        sys.exit(
            "walden: pip could not install; its message is above. A package index must be reachable "
            "(PIP_INDEX_URL names another than pypi.org); what is installed already is kept, run the same command again"
        )


def _say(sentence: str) -> None:
    print(f"walden: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on from here")
        sys.exit(130)
