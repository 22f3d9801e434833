"""E-mail addresses as third-party identifiers.

Invariant: an address that passes `check_address` is one line, has one `@` with something on both sides, and can stand in a
message's header and in SMTP; two addresses that people take for the same are the same after `fold_address`.
Source: appendices, "3PID Types".
"""

from __future__ import annotations

from email.errors import HeaderParseError
from email.headerregistry import Address

from matrix.errors import invalid_param

MOST_CHARACTERS = 254
"""What SMTP carries in a path (RFC 5321, 4.5.3.1.3), without its brackets."""


def fold_address(address: str) -> str:
    """The canonical form: "…email addresses… should be… Unicode case-folded"."""
    return address.strip().casefold()


def check_address(address: str) -> str:
    """The canonical form of an address that a message can be sent to; M_INVALID_PARAM for anything else."""
    folded = fold_address(address)
    try:
        parsed = Address(addr_spec=folded)
    except (HeaderParseError, ValueError, IndexError):
        raise invalid_param("That is not an e-mail address.") from None
    plain = folded.isprintable() and not any(character.isspace() for character in folded)
    if not plain or len(folded) > MOST_CHARACTERS or not parsed.username or "." not in parsed.domain.strip("."):
        raise invalid_param("That is not an e-mail address.")
    return folded
