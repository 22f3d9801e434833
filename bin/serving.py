"""The API processes: gunicorn with uvicorn's worker, one application per worker made from the settings.

Invariant: a worker builds its application after the fork (its event loop and connections are its own); what can be
shared, the loaded modules, is loaded before it. A worker whose master is gone leaves, and frees the port for the next.
"""

import gc
import os
import signal
import threading
import time
from typing import Any

from gunicorn.app.base import BaseApplication

from bin.components import federation_apart
from eventlog.configuration import Listen, Settings

LEAVE_SECONDS = 5.0
"""How long a worker without a master may go on with the requests that it has."""


class Server(BaseApplication):
    """gunicorn, configured from the settings and not from a file or the command line."""

    def __init__(self, settings: Settings, *, federation: bool = False) -> None:
        self._settings = settings
        self._federation = federation
        # Only the master holds the end for writing, so its death, however it comes, is the end of file for the workers.
        self._alive, self._held = os.pipe()
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        client, federation = self._settings.client, self._settings.federation
        addresses: list[Listen | None] = [federation.listen] if self._federation else [client.listen]
        if not self._federation and not federation_apart(self._settings):
            addresses.append(federation.listen)
        certificate, key = (
            (federation.tls_certificate, federation.tls_key)
            if self._federation
            else (client.tls_certificate, client.tls_key)
        )
        chosen: dict[str, Any] = {
            "bind": [str(address) for address in addresses if address],
            "workers": client.processes,
            "worker_class": "bin.worker.Worker",
            "backlog": client.backlog,
            "proc_name": "walden api",
            "graceful_timeout": 10,
            # A long poll is not silence: the worker itself reports. A worker that is stuck for this long is killed.
            "timeout": 60,
            "keepalive": 75,
            "certfile": str(certificate) if certificate else None,
            "keyfile": str(key) if key else None,
            "forwarded_allow_ips": ",".join(client.trusted_proxies),
            "accesslog": None,
            "loglevel": self._settings.logging.level,
            "control_socket_disable": True,
            "when_ready": lambda _: gc.freeze(),
            "post_fork": self._watch_master,
        }
        for name, value in chosen.items():
            if name in self.cfg.settings:  # gunicorn before 25 has no control socket
                self.cfg.set(name, value)

    def _watch_master(self, _arbiter: Any, _worker: Any) -> None:
        """In a worker: uvicorn's does not see that the master was killed, and would keep the port from the next one."""
        os.close(self._held)

        def wait() -> None:
            os.read(self._alive, 1)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(LEAVE_SECONDS)
            os._exit(1)

        threading.Thread(target=wait, name="master", daemon=True).start()

    def load(self) -> Any:
        """The ASGI application, in a worker."""
        from bin.api import create_app

        return create_app(self._settings)


def serve(settings: Settings, *, federation: bool) -> None:
    """Serve the clients' listener (and the other servers' if it needs nothing of its own), or the latter alone."""
    import bin.api  # noqa: F401 - loaded before the fork, shared by the workers

    Server(settings, federation=federation).run()
