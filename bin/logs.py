"""What the processes print: structlog in the configured level and format, on standard output.

Invariant: one entry is one line; the supervisor keeps the lines in DATA_DIR/logs. A traceback names no values of variables, for
among them are passwords and tokens.
"""

import logging
import sys
from typing import Any

import orjson
import structlog

from eventlog.configuration import Settings


def configure_logs(settings: Settings, component: str) -> None:
    """Set up structlog for this process; every entry carries the component's name."""
    level = logging.getLevelNamesMapping()[settings.logging.level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.logging.format == "json":
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        render: list[Any] = [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    else:
        plain = structlog.dev.plain_traceback
        render = [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(component=component)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def warnings_alone() -> None:
    """For a command that speaks for itself: what components it uses log goes to standard error, if it is a warning."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _json(entry: Any, **_: Any) -> str:
    return orjson.dumps(entry, default=str).decode()
