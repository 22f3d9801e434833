"""Starting an installation: everything between the command `walden up` and the line with the base URL.

Invariant: whatever went wrong is said in one sentence on standard error and ends the supervisor in order. The process
that started becomes the supervisor itself; a short-lived child makes the database ready, starts the components in
order, and tells when the server answers.
"""

import contextlib
import os
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import psutil

from bin import embedded
from bin.certificates import check_certificates
from bin.components import components
from bin.initialise import initialise_waiting, make_ready
from bin.metrics_folder import VARIABLE, clear, metrics_folder
from bin.places import data_folder, run_folder
from bin.supervision import (
    Supervisor,
    become_supervisor,
    end_leftovers,
    log_path,
    take_lock,
    write_configuration,
)
from eventlog.configuration import Listen, Settings

DATABASE_SECONDS = 600.0
"""How long crash recovery may take before the start gives up."""
ANSWER_SECONDS = 120.0
"""How long the components may take from their start to the first answer."""


class StartError(Exception):
    """The installation cannot be started; the message says why and what would do."""


def up(settings: Settings, environ: Mapping[str, str]) -> NoReturn:
    """Start everything and become the supervisor. Raises what the preparation raises; afterwards, never returns."""
    check_certificates(settings)
    data_dir = data_folder(settings.server.data_dir)
    take_lock(data_dir)
    for leftover in end_leftovers(data_dir):
        say(f"ended a process of an earlier run: {leftover}")
    (run_folder(data_dir) / "failed").unlink(missing_ok=True)
    for listen in filter(None, (settings.client.listen, settings.federation.listen, settings.server.metrics_listen)):
        _check_free(listen)
    if settings.server.metrics_listen is not None:
        clear(metrics_folder(settings))
        # What the supervisor loads for its components must not count for itself.
        environ = {**environ, VARIABLE: str(metrics_folder(settings))}
    make_ready(settings)
    if settings.embedded:
        one = embedded.cluster(settings)
        if not one.data.is_dir():
            say(f"making the database in {one.folder}")
        embedded.prepare(one)
    configuration = write_configuration(data_dir, components(settings))
    supervisor = os.getpid()
    # Forked twice, so that the supervisor has no child that it knows nothing of.
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            _bring_up(settings, supervisor)
        os._exit(0)
    os.waitpid(child, 0)
    become_supervisor(data_dir, configuration, environ)
    raise AssertionError("unreachable")


def _bring_up(settings: Settings, supervisor: int) -> NoReturn:
    """The child's part. Ends with os._exit, for it shares the parent's open files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, whose end is ours.
    os.closerange(3, 256)
    threading.Thread(target=_leave_with, args=(supervisor,), daemon=True).start()
    data_dir = settings.server.data_dir
    try:
        _start_components(settings, Supervisor(data_dir))
        with contextlib.suppress(OSError):  # Nobody has to read it.
            print(f"Walden answers at {settings.base_url}", flush=True)
    except BaseException as error:
        if _alive(supervisor):
            say(f"the start failed: {error}")
            (run_folder(data_dir) / "failed").write_text(f"{error}\n", encoding="utf-8")
            os.kill(supervisor, signal.SIGTERM)
        os._exit(1)
    os._exit(0)


def _leave_with(supervisor: int) -> None:
    while _alive(supervisor):
        time.sleep(0.2)
    os._exit(1)


def _start_components(settings: Settings, client: Supervisor) -> None:
    client.wait(30)
    if settings.embedded:
        embedded.wait_ready(settings.dsn(), DATABASE_SECONDS)
    initialise_waiting(settings, say)
    started = [one.name for one in components(settings)]
    for name in started:
        client.start(name)
    _wait_for_answer(settings, client)


def _wait_for_answer(settings: Settings, client: Supervisor) -> None:
    end = time.monotonic() + ANSWER_SECONDS
    address = settings.local_url + "/_matrix/client/versions"
    # Our own listener, asked by its address. Made once and without the system's certificates, whose reading takes its time.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    while not _answers(opener, address):
        if time.monotonic() > end:
            raise StartError(_what_ails(settings.server.data_dir, client, address))
        time.sleep(0.05)


def _answers(opener: urllib.request.OpenerDirector, address: str) -> bool:
    try:
        with opener.open(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _what_ails(data_dir: Path, client: Supervisor, address: str) -> str:
    ailing = [one["name"] for one in client.processes() if one["statename"] != "RUNNING"] or ["api"]
    parts = [f"{address} does not answer after {ANSWER_SECONDS:.0f} s"]
    for name in ailing:
        log = log_path(data_dir, name)
        parts.append(f"the end of {log}:\n{tail(log)}")
    return "; ".join(parts)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"({error.strerror})"


def _check_free(listen: Listen) -> None:
    family = socket.AF_INET6 if ":" in listen.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers will do, so that connections of a run that has just ended are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.address, listen.port))
        except OSError as error:
            raise StartError(
                f"cannot listen on {listen}: {error.strerror}. Another program may have the port: "
                "choose another one with WALDEN_CLIENT_LISTEN and WALDEN_FEDERATION_LISTEN, or in walden.toml"
            ) from None


def _alive(pid: int) -> bool:
    # A dead one may be a zombie for long: its parent may wait for the end of our output before it looks.
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def say(sentence: str) -> None:
    """Progress, for people, if any listen: standard output is for the base URL."""
    with contextlib.suppress(OSError):
        print(f"walden: {sentence}", file=sys.stderr, flush=True)
