"""Programs that Debian packages: found, or installed when the tests run as root."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

INSTALL_SECONDS: Final = 600.0
POLICY: Final = Path("/usr/sbin/policy-rc.d")


@functools.cache
def missing(program: str, package: str) -> str:
    """Why a program is not on this machine, after trying to install its package; empty if it is."""
    if os.access(program, os.X_OK):
        return ""
    if shutil.which("apt-get") is None:
        return f"there is no {program}, and no apt-get to install {package}"
    if os.geteuid() != 0:
        return f"there is no {program}, and only root can install {package}"
    with _no_services():
        said = _apt_get("install", package)
        if not os.access(program, os.X_OK):
            said = _apt_get("update") + _apt_get("install", package)
    return "" if os.access(program, os.X_OK) else f"there is no {program}: {said.strip()[-300:]}"


def _apt_get(*arguments: str) -> str:
    options = ["-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["apt-get", *options, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"apt-get {arguments[0]} took more than {INSTALL_SECONDS:.0f} s"
    return done.stdout if done.returncode else ""


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Packages start no services meanwhile: tests start what they need themselves."""
    try:
        POLICY.touch(0o755, exist_ok=False)
    except OSError:
        # The machine has a policy of its own.
        yield
        return
    try:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        yield
    finally:
        POLICY.unlink()
