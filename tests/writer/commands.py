"""`walden` commands run inside a test, beside its event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from click.testing import Result

Run = Callable[..., Awaitable[Result]]
"""Takes the arguments of a command; what it printed, and its exit code."""
