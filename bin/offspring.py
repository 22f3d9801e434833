"""How the supervisor begins a component: a fork of itself, in which the modules are loaded already, in place of an exec.

Invariant: a component finds what an exec would have given it: its arguments and environment, default signal handlers,
streams of its own, no descriptor of the supervisor's, nothing that the supervisor's objects could close behind it. What it
has beyond that is memory that all components share, and half a second that it does not spend on loading. It ends here and
never returns.
"""

import contextlib
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import NoReturn

from bin.metrics_folder import VARIABLE

COMMAND = ("-m", "bin.command")
"""What follows the interpreter in the command line of a component."""

LIBRARIES = (
    "asyncio",
    "concurrent.futures.thread",
    "falcon.asgi",
    "gunicorn.glogging",
    "gunicorn.workers.base",
    "encodings.ascii",
    "encodings.idna",
    "getpass",
    "httptools",
    "nacl.signing",
    "orjson",
    "psycopg_pool",
    "psycopg.types.enum",
    "structlog",
    "uvloop",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn_worker",
    "zoneinfo",
)
OURS = (
    "bin.command",
    "bin.starting",
    "bin.worker",
    "bin.serving",
    "bin.api",
    "bin.running",
    "readers.maintenance",
    "readers.projections",
    "roomserver.service",
)


def load(environ: Mapping[str, str]) -> bool:
    """Load what components will need; whether a fork is as good as an exec from now on.

    Where metrics are shown our own modules are left out: each counts in files of its process.
    """
    sys.argv = ["walden"]
    for name in LIBRARIES if VARIABLE in environ else LIBRARIES + OURS:
        # What cannot be loaded fails in the component, where its log says so.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    with contextlib.suppress(Exception):
        # OpenSSL loads its algorithms, 4 MB, when it first proves that a password is known.
        from psycopg import pq

        connection = pq.PGconn.connect_start(b"host=/nowhere")
        connection.encrypt_password(b"user", b"password", b"scram-sha-256")
        connection.finish()
    gc.collect()
    gc.freeze()
    return threading.active_count() == 1


def become(argv: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """In the fork: be the component that an exec of these would have begun."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["walden", *argv[len(COMMAND) + 1 :]]
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    code = 1
    try:
        from setproctitle import setproctitle

        setproctitle(" ".join(sys.argv))
        command = importlib.import_module("bin.command")
        # Who spawns processes of its own has them load this module first.
        sys.modules["__main__"] = command
        command.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # An exit would run what the supervisor has registered, and close what is not ours.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
