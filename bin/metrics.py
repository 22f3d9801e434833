"""`walden metrics`: what all processes of an installation count, and what its database knows, for Prometheus.

Invariant: it takes part in nothing: it reads files and asks the database as a reader, one scrape at a time, so that its being dead,
or asked too often, is nobody else's trouble.
"""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import falcon
import falcon.asgi
import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from bin.database_metrics import database_metrics
from bin.metrics_folder import bury, metrics_folder
from eventlog.configuration import Listen, Settings

MOST_CONNECTIONS = 16

log = structlog.get_logger(__name__)


class Scrape:
    """GET /metrics."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._alone = asyncio.Lock()

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Everything, in the text format that the scraper asks for."""
        async with self._alone:
            known = await database_metrics(self._settings)
            folder = metrics_folder(self._settings)
            resp.data, resp.content_type = await asyncio.to_thread(
                rendered, folder, known, req.get_header("accept") or ""
            )


def rendered(folder: Path, known: list[Metric], accept: str) -> tuple[bytes, str]:
    """What the folder's processes counted and the metrics that are known already, as text, and its media type."""
    bury(folder)
    registry = CollectorRegistry()
    registry.register(_Known(known))
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Known(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


async def serve(settings: Settings, listen: Listen) -> None:
    """Answer until SIGTERM or SIGINT."""
    app: falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response] = falcon.asgi.App()
    app.add_route("/metrics", Scrape(settings))
    config = uvicorn.Config(
        app,
        host=listen.address,
        port=listen.port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=10,
    )
    log.info("metrics are shown", address=f"http://{listen}/metrics")
    server = _Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.leave)
    await server.serve()


class _Server(uvicorn.Server):
    """Leaves in order when told to; uvicorn's own ends by the signal it was sent."""

    def leave(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
