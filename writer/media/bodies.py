"""Bodies that are too long to be kept: read as they come.

Invariant: a body is whole or refused; a client that went away in the middle of it is not taken for one that has finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from falcon.asgi import Request

from matrix.errors import MatrixError, too_large, unknown

SILENT_SECONDS: Final = 60.0
"""How long nothing may come."""
WHOLE_SECONDS: Final = 3600.0
"""How long all of it may take."""


class Abandoned(MatrixError):
    """The client went away before its body was whole."""


async def body_parts(req: Request, most: int) -> AsyncIterator[bytes]:
    """The body as it comes. M_TOO_LARGE beyond `most` bytes, 408 when it does not come."""
    length = req.get_header("content-length")
    if length is not None and length.isdecimal() and int(length) > most:
        raise too_large(f"An upload may have {most} bytes.")
    end = asyncio.get_running_loop().time() + WHOLE_SECONDS
    count = 0
    # Falcon's stream takes a client that went away for the end of the body.
    event = req._first_event
    while True:
        if event is None or event["type"] == "http.disconnect":
            raise Abandoned(400, "M_UNKNOWN", "The body ends before its time.")
        part: bytes = event.get("body", b"")
        count += len(part)
        if count > most:
            raise too_large(f"An upload may have {most} bytes.")
        if part:
            yield part
        if not event.get("more_body"):
            return
        try:
            async with asyncio.timeout(min(SILENT_SECONDS, end - asyncio.get_running_loop().time())):
                event = await req._receive()
        except TimeoutError:
            raise unknown(408, "The body does not come.") from None
