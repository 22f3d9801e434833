import itertools
import time

import psycopg
import pytest
from psycopg import errors

from eventlog.faults import BY_CLASS, BY_SQLSTATE, Failure, Policy, Retries, judge
from eventlog.pgoutput import DecodeError
from eventlog.slots import Loss, SlotActive, SlotLost


@pytest.mark.parametrize(
    ("error", "policy"),
    [
        (errors.AdminShutdown(), Policy.RETRY),
        (errors.CannotConnectNow(), Policy.RETRY),
        (errors.SerializationFailure(), Policy.RETRY),
        (errors.DiskFull(), Policy.RETRY),
        (errors.ObjectInUse(), Policy.RETRY),
        (errors.ReadOnlySqlTransaction(), Policy.RETRY),
        (psycopg.OperationalError("server closed the connection unexpectedly"), Policy.RETRY),
        (ConnectionResetError(), Policy.RETRY),
        (TimeoutError(), Policy.RETRY),
        (SlotActive("s", 1), Policy.RETRY),
        (errors.UntranslatableCharacter(), Policy.QUARANTINE),
        (errors.CheckViolation(), Policy.QUARANTINE),
        (errors.ProgramLimitExceeded(), Policy.QUARANTINE),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), Policy.QUARANTINE),
        (errors.InsufficientPrivilege(), Policy.STOP),
        (errors.InvalidPassword(), Policy.STOP),
        (errors.UndefinedTable(), Policy.STOP),
        (errors.DataCorrupted(), Policy.STOP),
        (DecodeError("x"), Policy.STOP),
        (SlotLost("s", Loss.MISSING), Policy.STOP),
        (ValueError("x"), Policy.STOP),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_every_error_has_a_policy_and_a_remedy(error: Exception, policy: Policy) -> None:
    fault = judge(error)
    assert fault.policy is policy
    assert fault.remedy


def test_the_table_names_only_sqlstates_and_classes_that_exist() -> None:
    for sqlstate in BY_SQLSTATE:
        assert errors.lookup(sqlstate).sqlstate == sqlstate
    states = [getattr(kind, "sqlstate", None) for kind in vars(errors).values() if isinstance(kind, type)]
    known = {state[:2] for state in states if isinstance(state, str)}
    assert set(BY_CLASS) <= known


def test_every_remedy_is_a_sentence() -> None:
    for fault in itertools.chain(BY_SQLSTATE.values(), BY_CLASS.values()):
        assert fault.remedy[0].isupper()
        assert fault.remedy.endswith(".")


def test_a_failures_message_ends_with_its_remedy() -> None:
    assert str(Failure("the thing broke", "mend it")).endswith(": mend it")


def test_waits_grow_to_their_bound_and_end_with_the_budget() -> None:
    began = time.monotonic()
    waits = []
    for wait in Retries(budget=0.3, first=0.01, most=0.04).delays():
        waits.append(wait)
        time.sleep(wait)
    assert time.monotonic() - began < 1
    assert waits[0] <= 0.01
    assert 0.005 <= max(waits) <= 0.04
    assert len(waits) >= 8
