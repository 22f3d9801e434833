"""matrix-synapse, the peer: one version, in a virtual environment of its own, configured so that nothing but its speed is measured.

Synapse's defaults stand except for what is written in `configuration`: no rate limit is ever reached, presence is off, passwords
cost little to hash (registration is not measured), timelines are not cut below what the observers ask for, and it logs warnings
only. One process, no workers, plain HTTP on loopback.
"""

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from bin.benchmark.cluster import Cluster, Database
from bin.benchmark.connection import Origin
from bin.benchmark.processes import Group
from bin.benchmark.servers import Server
from bin.ports import free_port

VERSION = "1.163.2"
INSTALL_SECONDS = 1200.0

UNLIMITED: dict[str, float] = {"per_second": 1_000_000, "burst_count": 1_000_000}
RATE_LIMITS: dict[str, Any] = {
    "rc_message": UNLIMITED,
    "rc_registration": UNLIMITED,
    "rc_registration_token_validity": UNLIMITED,
    "rc_login": {"address": UNLIMITED, "account": UNLIMITED, "failed_attempts": UNLIMITED},
    "rc_joins": {"local": UNLIMITED, "remote": UNLIMITED},
    "rc_joins_per_room": UNLIMITED,
    "rc_invites": {"per_room": UNLIMITED, "per_user": UNLIMITED, "per_issuer": UNLIMITED},
    "rc_room_creation": UNLIMITED,
    "rc_profile": UNLIMITED,
    "rc_user_directory": UNLIMITED,
    "rc_presence": {"per_user": UNLIMITED},
    "rc_delayed_event_mgmt": UNLIMITED,
    "rc_reports": UNLIMITED,
    "rc_third_party_invite": UNLIMITED,
    "rc_3pid_validation": UNLIMITED,
    "rc_media_create": UNLIMITED,
}


def configuration(folder: Path, port: int, database: Database) -> dict[str, Any]:
    """homeserver.yaml as an object (JSON is YAML)."""
    return {
        "server_name": "synapse.test",
        "pid_file": str(folder / "synapse.pid"),
        "listeners": [
            {
                "port": port,
                "type": "http",
                "tls": False,
                "bind_addresses": ["127.0.0.1"],
                "x_forwarded": False,
                "resources": [{"names": ["client"], "compress": False}],
            }
        ],
        "database": {
            "name": "psycopg2",
            "args": {
                **database.parts,
                "cp_min": 5,
                "cp_max": 10,
            },
        },
        "log_config": str(folder / "log.yaml"),
        "media_store_path": str(folder / "media"),
        "signing_key_path": str(folder / "signing.key"),
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "report_stats": False,
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "bcrypt_rounds": 4,
        "presence": {"enabled": False},
        "filter_timeline_limit": 1000,
        **RATE_LIMITS,
    }


LOGGING: dict[str, Any] = {
    "version": 1,
    "formatters": {"line": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
    "disable_existing_loggers": False,
}


def install(venv: Path, progress: Callable[[str], None]) -> Path:
    """The Python of an environment that has Synapse, made if need be; RuntimeError with the remedy when it cannot."""
    python = venv / "bin" / "python"
    # The tests that compare with Synapse share the environment, and make it under the same lock.
    with venv.with_name(f"{venv.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _complete(python):
            _install(venv, python, progress)
    return python


def _complete(python: Path) -> bool:
    asked = subprocess.run(
        [str(python), "-c", "import importlib.metadata as m, psycopg2; print(m.version('matrix-synapse'))"],
        capture_output=True,
        text=True,
        check=False,
    ) if python.exists() else None  # fmt: skip
    return asked is not None and asked.stdout.strip() == VERSION


def _install(venv: Path, python: Path, progress: Callable[[str], None]) -> None:
    if shutil.which("pg_config") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise RuntimeError("psycopg2 is built from source: install Debian's libpq-dev and gcc first")
        progress("installing libpq-dev")
        _run(["apt-get", "install", "-y", "--no-install-recommends", "libpq-dev", "gcc"])
    progress(f"installing matrix-synapse {VERSION} into {venv} (a few minutes)")
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(venv)])
    _run([str(python), "-m", "pip", "install", "--quiet", f"matrix-synapse[postgres]=={VERSION}"])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{(done.stderr or done.stdout)[-2000:]}")


class Synapse(Server):
    """One Synapse process with a PostgreSQL cluster of its own, everything in `folder`."""

    name = "synapse"
    extremities_query = "synapse_extremities"
    state_tables = (
        "public.state_groups*",
        "public.state_group_edges",
        "public.event_to_state_groups",
        "public.state_events",
        "public.current_state_events",
        "public.current_state_delta_stream",
    )
    START_SECONDS = 120.0

    def __init__(self, venv: Path, folder: Path, binaries: Path | None, progress: Callable[[str], None]) -> None:
        super().__init__()
        self.venv = venv
        self.folder = folder
        self.binaries = binaries
        self.progress = progress

    async def start(self) -> None:
        python = await asyncio.to_thread(install, self.venv, self.progress)
        self.folder.mkdir(parents=True)
        (self.folder / "media").mkdir()
        self.cluster = await asyncio.to_thread(Cluster, self.folder / "postgresql", self.binaries)
        await asyncio.to_thread(self.cluster.start)
        self.database = await self.cluster.create_database()
        port = free_port()
        settings = self.folder / "homeserver.yaml"
        settings.write_bytes(orjson.dumps(configuration(self.folder, port, self.database)))
        (self.folder / "log.yaml").write_bytes(orjson.dumps(LOGGING))
        command = [str(python), "-m", "synapse.app.homeserver", "-c", str(settings)]
        await asyncio.to_thread(_run, [*command, "--generate-keys"])
        self.group = Group(command, self.folder / "synapse.log")
        self.origin = Origin("127.0.0.1", port)
        await self.wait_until_ready(self.START_SECONDS)
