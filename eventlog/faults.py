"""What to do about an error: try again, set the entry aside, or stop and say what a person has to do.

Invariant: every error has exactly one policy and one remedy sentence, decided by its SQLSTATE (PostgreSQL
documentation, appendix "Error Codes") or its class, never by its text, which is translated.
"""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import psycopg

from eventlog.pgoutput import DecodeError


class Policy(enum.Enum):
    """RETRY: it passes by itself. QUARANTINE: this entry will fail again, others will not. STOP: a person is needed."""

    RETRY = "retry"
    QUARANTINE = "quarantine"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Fault:
    """A judged error: the policy, and the sentence an operator reads."""

    policy: Policy
    remedy: str


class Failure(Exception):
    """An error of ours that carries its own policy; the message ends with the remedy."""

    policy: ClassVar[Policy] = Policy.STOP

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}: {remedy}")
        self.remedy = remedy


class Misconfigured(Failure):
    """The database is not set up as the stream needs it."""


class Interrupted(Failure):
    """The connection is of no more use; a new one may be."""

    policy = Policy.RETRY


@dataclass(frozen=True, slots=True)
class Retries:
    """The bounds of one outage: waits grow from `first` to `most` seconds, until `budget` seconds have passed."""

    budget: float = 300.0
    first: float = 0.1
    most: float = 10.0

    def delays(self) -> Iterator[float]:
        """The waits, each with jitter down to a half, so that consumers cut together do not come back together."""
        delay, until = self.first, time.monotonic() + self.budget
        while (left := until - time.monotonic()) > 0:
            yield min(delay, left) * random.uniform(0.5, 1.0)
            delay = min(delay * 2, self.most)


_R, _Q, _S = Policy.RETRY, Policy.QUARANTINE, Policy.STOP

BY_SQLSTATE: Final[Mapping[str, Fault]] = {
    "25006": Fault(_R, "The server is read-only: point the DSN at the primary, or wait for the failover to end."),
    "28000": Fault(_S, "Allow the role in pg_hba.conf and give it LOGIN and REPLICATION."),
    "28P01": Fault(_S, "Correct the password in the DSN."),
    "3D000": Fault(_S, "Correct the database name in the DSN, or create the database with `walden init`."),
    "42501": Fault(_S, "Grant the role what `walden doctor` lists; the replication role needs REPLICATION."),
    "42704": Fault(_S, "Something that the statement names is missing: run `walden migrate`."),
    "42710": Fault(_R, "The object exists already; the session that holds it should end within wal_sender_timeout."),
    "53300": Fault(_R, "Raise max_connections, max_wal_senders or the role's connection limit."),
    "53400": Fault(_S, "Raise max_replication_slots, or drop slots that nobody uses."),
    "55006": Fault(
        _R, "Another session uses the slot; it should end within wal_sender_timeout, or stop the other one."
    ),
    "55P03": Fault(_R, "Another transaction holds what is needed; end it if it does not end by itself."),
    "57014": Fault(_R, "A timeout or a person cancelled the statement."),
    "57P04": Fault(_S, "The database was dropped: restore it or correct the DSN."),
    "58P01": Fault(_S, "WAL or data files are missing: a slot needs remaking, anything else a restore."),
}

BY_CLASS: Final[Mapping[str, Fault]] = {
    "08": Fault(_R, "The connection failed: see that the server runs and the network reaches it."),
    "0A": Fault(_S, "The server lacks a feature: PostgreSQL 15 or newer is needed, without a pooler in between."),
    "21": Fault(_Q, "The entry breaks a rule of the database: read it in the quarantine and report it."),
    "22": Fault(_Q, "The entry's data cannot be stored: read it in the quarantine and report it."),
    "23": Fault(_Q, "The entry breaks a constraint: read it in the quarantine and report it."),
    "25": Fault(_S, "A transaction was used wrongly: report it."),
    "40": Fault(_R, "Transactions collided and one was rolled back."),
    "42": Fault(_S, "The schema is not the program's: run `walden migrate`."),
    "53": Fault(_R, "The server is short of memory, disk or connections: give it more."),
    "54": Fault(_Q, "The entry is beyond a limit of the database: read it in the quarantine and report it."),
    "55": Fault(_S, "The server is not in the state this needs: run `walden doctor`."),
    "57": Fault(_R, "The server was stopped or is starting."),
    "58": Fault(_R, "The server's operating system failed it: see the server's log."),
    "XX": Fault(_S, "The server reports corruption or a fault of its own: see its log before anything else."),
}

# What no entry is the cause of, whichever it met: connections, privileges, missing or changed objects, read-only servers, locks,
# disks, damaged files. By class, and singly where the rest of a class may be an entry's own.
_NOT_OF_ENTRIES: Final = frozenset(("08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58"))
_DAMAGED: Final = frozenset(("XX001", "XX002"))

# Also what a wrong password or a missing database look like: libpq does not hand on why a connection was refused.
_LOST_CONNECTION: Final = Fault(
    _R, "The connection was lost or refused: see that the server runs, the network reaches it and the DSN is right."
)
_UNKNOWN: Final = Fault(_S, "An unexpected error: report it with the log around it.")


def judge(error: BaseException) -> Fault:
    """The policy and remedy for an error from the database, the network, the decoder or a `Failure` of ours."""
    match error:
        case Failure():
            return Fault(error.policy, error.remedy)
        case DecodeError():
            return Fault(Policy.STOP, "The stream cannot be read: the message says which object and what to do.")
        case psycopg.Error() if error.sqlstate:
            return BY_SQLSTATE.get(error.sqlstate) or BY_CLASS.get(error.sqlstate[:2]) or _UNKNOWN
        case psycopg.OperationalError() | OSError() | TimeoutError() | psycopg.errors.PipelineAborted():
            return _LOST_CONNECTION
        case psycopg.DataError():
            return BY_CLASS["22"]
    return _UNKNOWN


def is_of_the_database(error: BaseException) -> bool:
    """Whether an error is the database's, so that it meets every entry alike: none is to be set aside for it."""
    match error:
        case psycopg.Error() if error.sqlstate:
            return error.sqlstate[:2] in _NOT_OF_ENTRIES or error.sqlstate in _DAMAGED
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
