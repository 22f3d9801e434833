"""supervisord, run in the foreground as this process: `python -m bin.supervisor CONFIGURATION`.

Invariant: it ends when it is asked to (SIGINT, SIGTERM, and SIGHUP when its terminal goes away), its components
before it, in order; with code 1 if the start-up said in `run/failed` that there is nothing to supervise.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from supervisor.medusa import asyncore_25
from supervisor.options import ServerOptions
from supervisor.supervisord import Supervisor

from bin import offspring


class Poller:
    """supervisord's poller, woken by a signal: Python goes on with an interrupted poll, so a death would be seen late."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._turns = 0
        self.loaded = False
        self._awake, waker = os.pipe()
        for descriptor in (self._awake, waker):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)

    def poll(self, timeout: float) -> tuple[list[int], list[int]]:
        """As supervisord's, without our own descriptor. The second time PostgreSQL is starting: there is time to load."""
        self._turns += 1
        if self._turns == 2:
            self.loaded = offspring.load(os.environ)
        self._inner.register_readable(self._awake)
        readable, writable = self._inner.poll(timeout)
        if self._awake in readable:
            os.read(self._awake, 4096)
        return [one for one in readable if one != self._awake], writable

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Options(ServerOptions):  # type: ignore[misc]
    """supervisord's options, with SIGHUP meaning the end: there is no configuration to read again."""

    def setsignals(self) -> None:
        """Install the handlers, and let the signals in that have been held since before the exec."""
        super().setsignals()
        signal.signal(signal.SIGHUP, lambda *_: self.signal_receiver.receive(signal.SIGTERM, None))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def execve(self, filename: str, argv: list[str], env: dict[str, str]) -> None:
        """In a fork: become a component."""
        if self.poller.loaded and tuple(argv[1:3]) == offspring.COMMAND:
            offspring.become(argv, env)
        super().execve(filename, argv, env)


def main(configuration: str) -> int:
    """Supervise until asked to end; the exit code."""
    options = Options()
    options.realize(["-n", "-c", configuration])
    options.first, options.test = True, False
    options.poller = Poller(options.poller)
    with contextlib.suppress(asyncore_25.ExitNow):  # how supervisord's loop ends
        Supervisor(options).main()
    options.close_httpservers()
    options.close_logger()
    return int(Path(configuration).with_name("failed").exists())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
