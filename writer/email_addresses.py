"""E-mail addresses as third-party identifiers.

Invariant: an address that passes `check_address` is one line, has one `@` with something on both sides, and can stand in a
message's header and in SMTP; two addresses that people take for the same are the same after `fold_address`.
Source: appendices, "3PID Types".
"""

from __future__ import annotations

import re

from matrix.errors import invalid_param

MOST_CHARACTERS = 254
"""What SMTP carries in a path (RFC 5321, 4.5.3.1.3), without its brackets."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# A dot-atom and a host name of at least two labels: neither comments, quotes nor addresses of the network (RFC 5322, 3.4.1).
_ADDRESS = re.compile(
    rf"[a-z0-9!#$%&'*+/=?^_`{{|}}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{{|}}~-]+)*@{_LABEL}(?:\.{_LABEL})+", re.ASCII
)


def fold_address(address: str) -> str:
    """The canonical form: "…email addresses… should be… Unicode case-folded"."""
    return address.strip().casefold()


def check_address(address: str) -> str:
    """The canonical form of an address that a message can be sent to; M_INVALID_PARAM for anything else."""
    folded = fold_address(address)
    if len(folded) > MOST_CHARACTERS or not _ADDRESS.fullmatch(folded):
        raise invalid_param("That is not an e-mail address.")
    return folded
