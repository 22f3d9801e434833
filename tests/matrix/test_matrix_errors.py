"""The standard error response."""

from __future__ import annotations

import pytest

from matrix import errors
from matrix.errors import MatrixError


def test_an_error_is_its_code_and_sentence_in_the_body() -> None:
    error = errors.forbidden("No.")
    assert (error.status, error.body()) == (403, {"errcode": "M_FORBIDDEN", "error": "No."})


def test_what_an_errcode_defines_besides_is_in_the_body() -> None:
    assert errors.limit_exceeded(250).body() == {
        "errcode": "M_LIMIT_EXCEEDED",
        "error": "Too many requests.",
        "retry_after_ms": 250,
    }
    assert errors.unknown_token(soft_logout=True).body()["soft_logout"] is True


def test_an_extra_member_cannot_take_the_place_of_the_errcode() -> None:
    error = MatrixError(400, "M_UNKNOWN", "x")
    error.extra["errcode"] = "M_FORBIDDEN"
    assert error.body()["errcode"] == "M_UNKNOWN"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.bad_json("x"), 400),
        (errors.not_json("x"), 400),
        (errors.missing_param("x"), 400),
        (errors.invalid_param("x"), 400),
        (errors.bad_state("x"), 400),
        (errors.invalid_username("x"), 400),
        (errors.user_in_use(), 400),
        (errors.room_in_use("x"), 400),
        (errors.unsupported_room_version("0"), 400),
        (errors.missing_token(), 401),
        (errors.unauthorized("x"), 401),
        (errors.not_found(), 404),
        (errors.unrecognized(), 404),
        (errors.unrecognized(405), 405),
        (errors.too_large("x"), 413),
        (errors.unknown(502, "x"), 502),
    ],
)
def test_every_kind_of_error_has_the_status_that_the_specification_gives_it(error: MatrixError, status: int) -> None:
    assert error.status == status
    assert error.errcode.startswith("M_")
    assert error.body()["error"] == error.error
