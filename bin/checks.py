"""What bin/test runs: the linters, then pytest with a throwaway PostgreSQL 18 cluster.

Invariant: whatever happens, the cluster is stopped and its folder removed, no process is left, and pytest's
closing line is the last thing printed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from psycopg.conninfo import conninfo_to_dict

from bin import embedded

CHECKOUT = Path(__file__).resolve().parent.parent
FAST = "not processes and not clients and not peer and not slow"
HELP = """\
Usage: bin/test [fast | lint] [PYTEST ARGUMENT...]

  bin/test             linters and every test
  bin/test fast        linters and the tests that take less than two minutes together
  bin/test lint        linters only
  bin/test PATH -k X   only these tests, no linters

Without a PATH, tests run side by side, one on each core (one more in the fast tier, at most four). A PostgreSQL 18
cluster runs while the tests do (under another account if you are root). WALDEN_KILL_ROUNDS (default 4), WALDEN_KILL_SEED,
WALDEN_HOLD_SECONDS (4), WALDEN_FUZZ_ROOM_VERSIONS ("6 12"), WALDEN_FAILOVER_ROUNDS (5), WALDEN_RECOVERY_ROUNDS (1),
WALDEN_RECOVERY_BACK (seconds, 6) and WALDEN_RECOVERY_SEED make the tests of kills, open transactions, bad input, failovers and
restores longer.
WALDEN_SPEC_DIR, a checkout of github:matrix-org/matrix-spec, holds every response of a test against the specification's schemas.
Exit code: pytest's, or 1 when a linter complained.
"""
KNOBS = ("WALDEN_KILL_", "WALDEN_HOLD_", "WALDEN_FUZZ_", "WALDEN_RECOVERY_", "WALDEN_SPEC_", "WALDEN_FAILOVER_")
"""Variables that tests have for themselves: how many rounds, how long, which seed."""
MOST_WORKERS = 4
MEMORY, MEMORY_BYTES = "/dev/shm", 4 << 30
"""Where the cluster lives if so much memory is free; it takes up to one gigabyte."""
LINTERS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("lint-imports",))
# Nothing here survives the tests, so nothing is synced to disk.
PARAMETERS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_connections": "200",
    # A server that tests share stands still between them. Taking the slot away from a session that cannot write would
    # hold up the checkpointer, and with it every test that drops its database.
    "max_slot_wal_keep_size": "4GB",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "10s",
    # Dropping a database waits for sessions that are being let in, and a test may end while it knocks.
    "authentication_timeout": "5s",
}


def main(arguments: list[str]) -> int:
    """Run what the arguments ask for; the exit code."""
    if arguments[:1] in (["--help"], ["-h"]):
        print(HELP, end="")
        return 0
    os.chdir(CHECKOUT)
    # Only what a test itself sets may reach the code under test.
    for name in [name for name in os.environ if name.startswith(("WALDEN_", "PG")) and not name.startswith(KNOBS)]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    word, rest = (arguments[0], arguments[1:]) if arguments[:1] in (["fast"], ["lint"]) else ("", arguments)
    complaints = [] if rest and not word else lint()
    if word == "lint":
        return bool(complaints)
    marked = ["-m", FAST] if word == "fast" else []
    if not any(Path(argument.partition("::")[0]).exists() for argument in rest):
        # The tests of the fast tier wait more than they work; those that start whole servers do not.
        workers = len(os.sched_getaffinity(0)) + (word == "fast")
        marked += ["-n", str(min(MOST_WORKERS, workers)), "--dist", "worksteal"]
    try:
        with cluster() as options:
            if complaints:
                print(f"walden: complaints from {', '.join(complaints)} above; the tests run all the same", flush=True)
            code = pytest([*options, *marked, *rest])
    except KeyboardInterrupt:
        return 130
    return code or bool(complaints)


def lint() -> list[str]:
    """Run every linter; the names of those that complained."""
    complaints = []
    for command in LINTERS:
        print(f"walden: {' '.join(command)}", flush=True)
        if subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=False).returncode:
            complaints.append(command[0])
    return complaints


@contextlib.contextmanager
def cluster() -> Iterator[list[str]]:
    """A running throwaway cluster; yields the options that tell pytest-postgresql where it is."""
    folder = Path(tempfile.mkdtemp(prefix="walden-test-", dir=_memory()))
    # Programs that the cluster's account cannot reach are copied here, so it has to be able to pass through.
    folder.chmod(0o711)
    try:
        one = embedded.cluster_in(folder, PARAMETERS)
        dsn = embedded.prepare(one)
        server = embedded.start(one, folder / "postgresql.log")
        try:
            embedded.wait_ready(dsn, 60)
            parts = conninfo_to_dict(dsn)
            yield [f"--postgresql-{name}={parts[name]}" for name in ("host", "port", "user", "password")]
        finally:
            embedded.stop(one)
            server.wait(10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _memory() -> str | None:
    """A folder in memory, if there is room: on a busy disk every new database of a test takes half a second."""
    with contextlib.suppress(OSError):
        found = os.statvfs(MEMORY)
        room = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
        if room >= MEMORY_BYTES and not found.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK | os.X_OK):
            return MEMORY
    return None


def pytest(arguments: list[str]) -> int:
    """Run pytest in a process of its own, passing on Ctrl-C, and wait for it to have cleaned up."""
    process = subprocess.Popen([sys.executable, "-m", "pytest", *arguments])
    interrupted = False
    while True:
        try:
            return process.wait(20 if interrupted else None)
        except KeyboardInterrupt:
            interrupted = True
            process.send_signal(signal.SIGINT)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
