"""Ports for servers that are started for a while, beside others."""

import contextlib
import random
import socket

LOWEST, HIGHEST = 11_000, 32_000
"""Below the range that the kernel takes the ports of outgoing connections from."""


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago, and that no outgoing connection gets in the meantime."""
    # Not of `random`: its seed may be the same in several processes.
    chance = random.SystemRandom()
    while True:
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", chance.randrange(LOWEST, HIGHEST)))
            return int(listener.getsockname()[1])
