"""The supervisor of one installation: supervisord in the foreground, with a configuration made from the components.

Invariant: at most one supervisor runs per data directory (a lock says so), and nothing of an earlier one is alive when
a new one begins: what a kill -9 left over is found by a mark in its environment, or by its working directory for
PostgreSQL, and ended. A component that dies is started again, with growing pauses if it dies at once.
"""

import contextlib
import fcntl
import http.client
import os
import re
import signal
import sys
import time
import xmlrpc.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from bin.components import Component
from bin.places import private_folder, run_folder, socket_folder

MARK = "WALDEN_SUPERVISED"
"""Environment variable of every supervised process; its value is the data directory."""
LOG_BYTES, LOG_BACKUPS = 10_000_000, 5


class AlreadyRunning(Exception):
    """Another `walden up` has this data directory."""


def take_lock(data_dir: Path) -> int:
    """Take the installation's lock for as long as the returned descriptor is open, over exec. Raises AlreadyRunning."""
    path = run_folder(data_dir) / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(10):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        # `walden status` tries the lock for a moment to see whether it is held.
        time.sleep(0.05)
    else:
        holder = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise AlreadyRunning(f"Walden is running already on {data_dir} (process {holder or 'unknown'})") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    os.set_inheritable(descriptor, True)
    return descriptor


def running_pid(data_dir: Path) -> int | None:
    """Process id of the supervisor, None when none holds the lock."""
    try:
        descriptor = os.open(data_dir / "run" / "lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return int(os.read(descriptor, 20) or b"0")
    finally:
        os.close(descriptor)


def end_leftovers(data_dir: Path, seconds: float = 3.0) -> list[str]:
    """End every process that an earlier supervisor of this data directory left; their command lines.

    To be called with the lock held, which proves that the supervisor they belonged to is gone or going. They have
    little time: requests among them may wait for verdicts of a room server that is being ended beside them.
    """
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == str(data_dir.resolve()):
                left.append(process)
    names = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            names.append(f"{process.pid} {' '.join(process.cmdline()[1:6])}")
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=seconds)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=seconds)
    return names


def socket_path(data_dir: Path) -> Path:
    """The supervisor's control socket."""
    return socket_folder(data_dir, data_dir.resolve() / "run", "supervisor.sock") / "supervisor.sock"


def log_path(data_dir: Path, name: str) -> Path:
    """The log of one component."""
    return data_dir / "logs" / f"{name}.log"


def write_configuration(data_dir: Path, components: list[Component]) -> Path:
    """Write run/supervisord.conf; its path."""
    run = run_folder(data_dir)
    private_folder(data_dir / "logs")
    socket = socket_path(data_dir)
    if socket.parent != run.resolve():
        private_folder(socket.parent.parent, 0o711)
        private_folder(socket.parent)
    socket.unlink(missing_ok=True)
    path = run / "supervisord.conf"
    path.write_text(configuration(data_dir, components), encoding="utf-8")
    path.chmod(0o600)
    return path


def configuration(data_dir: Path, components: list[Component]) -> str:
    """supervisord's configuration. Only PostgreSQL starts by itself: the others once the database is made ready."""
    sections: list[tuple[str, dict[str, object]]] = [
        (
            "supervisord",
            {
                "nodaemon": "true",
                "silent": "true",
                "logfile": log_path(data_dir, "supervisor"),
                "logfile_maxbytes": LOG_BYTES,
                "logfile_backups": LOG_BACKUPS,
                "pidfile": data_dir / "run" / "supervisord.pid",
                "umask": "077",
                "nocleanup": "true",
                "minfds": 1024,
            },
        ),
        ("unix_http_server", {"file": socket_path(data_dir), "chmod": "0700"}),
        (
            "rpcinterface:supervisor",
            {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
    ]
    sections += [(f"program:{one.name}", _program(data_dir, one)) for one in components]
    text = []
    for name, values in sections:
        text.append(f"[{name}]")
        # supervisord expands %(name)s in values.
        text += [f"{key} = {str(value).replace('%', '%%')}" for key, value in values.items()]
        text.append("")
    return "\n".join(text)


def _program(data_dir: Path, one: Component) -> dict[str, object]:
    return {
        "command": " ".join(_quoted(part) for part in (sys.executable, "-m", "bin.command", *one.arguments)),
        "autostart": "true" if one.name == "postgres" else "false",
        "autorestart": "true",
        "startsecs": 1,
        # The pause grows by a second with each start that fails at once; never give up on a server.
        "startretries": 1_000_000,
        "priority": one.order,
        "stopsignal": one.signal,
        "stopwaitsecs": one.patience,
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": log_path(data_dir, one.name),
        "stdout_logfile_maxbytes": LOG_BYTES,
        "stdout_logfile_backups": LOG_BACKUPS,
    }


def _quoted(part: str) -> str:
    return part if re.fullmatch(r"[\w./=:+-]+", part) else '"' + re.sub(r'(["\\])', r"\\\1", part) + '"'


def become_supervisor(data_dir: Path, configuration_file: Path, environ: Mapping[str, str]) -> None:
    """Replace this process by supervisord, in an interpreter that has loaded nothing else. Never returns."""
    environment = {**environ, MARK: str(data_dir.resolve()), "SPT_NOENV": "1"}
    command = [sys.executable, "-m", "bin.supervisor", str(configuration_file)]
    # Kept for the supervisor's handlers: a Python that still loads its modules may lose a signal, or die of it in disorder.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    os.execve(sys.executable, command, environment)


class Supervisor:
    """A client of the supervisor's control socket. Every call may raise OSError when there is no supervisor."""

    def __init__(self, data_dir: Path) -> None:
        self._address = f"unix://{socket_path(data_dir)}"

    def _call(self, method: str, *arguments: Any) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        # A connection of its own per call: one that failed can never be used again.
        transport = SupervisorTransport(None, None, self._address)
        try:
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
                return getattr(server.supervisor, method)(*arguments)
        except http.client.HTTPException as error:
            raise ConnectionError(f"the supervisor broke off: {error}") from error

    def wait(self, seconds: float) -> None:
        """Wait until the supervisor answers; raises TimeoutError."""
        end = time.monotonic() + seconds
        while True:
            try:
                self._call("getState")
                return
            except (OSError, xmlrpc.client.Error) as error:
                if time.monotonic() > end:
                    raise TimeoutError(f"the supervisor does not answer after {seconds:.0f} s") from error
                time.sleep(0.02)

    def start(self, name: str) -> None:
        """Start a component, if it is not running; does not wait for it."""
        with contextlib.suppress(xmlrpc.client.Fault):
            self._call("startProcess", name, False)

    def processes(self) -> list[dict[str, Any]]:
        """What supervisord knows of each component: name, pid (0 if none), statename, start, spawnerr."""
        return list(self._call("getAllProcessInfo"))
