"""The gunicorn worker of the API: uvicorn's, with what our application needs of it.

Invariant: a worker that is told to stop answers its long polls first; whoever waits gets an ordinary, empty answer and comes
back to another process.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from bin.garbage import settle
from bin.http_protocol import Protocol

# Requests still running this long after the signal are cut off.
GRACE_SECONDS = 8


class _Server(Server):
    """Tells the application that it is asked to stop, before it waits for the requests."""

    def __init__(self, config: Config, application: Any) -> None:
        super().__init__(config)
        self._application = application

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal that ends the process."""
        super().handle_exit(sig, frame)
        self._application.stop()


class Worker(UvicornWorker):  # type: ignore[misc]
    """uvloop, httptools, no access log, no headers that say what runs here."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": Protocol,
        "ws": "none",
        "lifespan": "on",
        "interface": "asgi3",
        # `bin.web.Gate` believes the proxies that are configured.
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        "timeout_graceful_shutdown": GRACE_SECONDS,
    }

    async def _serve(self) -> None:
        settle()
        self.config.app = self.wsgi
        server = _Server(self.config, self.wsgi)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
