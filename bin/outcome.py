"""How a subcommand ends: exit codes, and errors as a sentence.

Invariant: a mistake of the operator's is one sentence on standard error and an exit code, never a traceback.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import click

from eventlog.configuration import ConfigurationError, Settings, load_settings


class RecoveryError(Exception):
    """It cannot be recovered so; the message says why and what would do."""


FAILED, USAGE, CONFIGURATION, ABSENT = 1, 2, 3, 4
ABSENCES = ("08", "28", "3D", "53300", "57P")
"""SQLSTATEs of a database that is not there or lets nobody in; others are of what was asked of it."""


def fail(message: object, code: int = FAILED) -> NoReturn:
    """Say why and leave."""
    click.echo(f"walden: {message}", err=True)
    sys.exit(code)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn the errors an operator can do something about into a sentence and an exit code."""
    import psycopg

    from bin.account import AccountError
    from bin.binaries import BinariesError
    from bin.embedded import EmbeddedError
    from bin.initialise import InitialiseError
    from bin.places import PlacesError
    from bin.starting import StartError
    from bin.supervision import AlreadyRunning
    from eventlog.faults import Failure
    from eventlog.provision import WrongInstallation

    known = (
        *(AccountError, BinariesError, EmbeddedError, PlacesError, StartError),
        *(AlreadyRunning, InitialiseError, RecoveryError),
    )
    try:
        yield
    except ConfigurationError as error:
        fail(error, CONFIGURATION)
    except psycopg.OperationalError as error:
        if error.sqlstate is None or error.sqlstate.startswith(ABSENCES):
            fail(f"the database cannot be reached: {error}", ABSENT)
        fail(f"the database could not do it: {error}")
    except PermissionError as error:
        fail(f"{error.filename} may not be entered or written by this user: {error.strerror}")
    except UnicodeEncodeError as error:
        if not error.reason.startswith("surrogates"):
            raise
        fail("what was given on the command line or standard input is not UTF-8", USAGE)
    except (*known, Failure, WrongInstallation, psycopg.Error) as error:
        fail(error)


def settings() -> Settings:
    """The settings in force; warnings are printed. Leaves when they are wrong."""
    try:
        found = load_settings(os.environ)
    except ConfigurationError as error:
        fail(error, CONFIGURATION)
    for warning in found.warnings:
        click.echo(f"walden: {warning}", err=True)
    return found
