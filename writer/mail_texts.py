"""What messages by e-mail say.

Invariant: plain text, and nothing of it is of the requester's choosing but the address it goes to: a stranger who has a message
sent to somebody cannot say anything in it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Letter:
    """One message."""

    subject: str
    text: str


_IGNORE = "If you did not ask for this, you need not do anything.\n"


def confirm(purpose: str, server_name: str, link: str) -> Letter:
    """Asks for a click. `purpose` is register, password or add."""
    wish = {
        "register": f"register an account on {server_name} with this address",
        "password": f"set a new password for your account on {server_name}",
        "add": f"add this address to an account on {server_name}",
    }[purpose]
    return Letter(
        f"Confirm your address for {server_name}",
        f"Somebody, hopefully you, wants to {wish}.\n\nOpen this page within an hour to confirm it:\n\n{link}\n\n{_IGNORE}",
    )


def already_in_use(server_name: str) -> Letter:
    """Says that the address has an account, to who wanted to use it for another."""
    return Letter(
        f"Your address is known to {server_name}",
        f"Somebody, hopefully you, wants to use this address for an account on {server_name}.\n"
        "It belongs to an account already. If you do not remember the password, your client lets you set a new one\n"
        f"with this address.\n\n{_IGNORE}",
    )


def not_known(server_name: str) -> Letter:
    """Says that the address has no account, to who wanted to set its password."""
    return Letter(
        f"Your address is not known to {server_name}",
        f"Somebody, hopefully you, wants to set the password of an account on {server_name}.\n"
        f"No account there has this address. Perhaps it has another one of yours.\n\n{_IGNORE}",
    )
