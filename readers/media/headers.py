"""The headers of what is downloaded: nothing that a user uploaded may run in anybody's browser.

Source: client-server API, "Content repository" (Content-Security-Policy and others) and "Serving inline content";
RFC 6266 and RFC 8187 for file names; RFC 9110, section 14, for ranges.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

SAFETY: Final = {
    "content-security-policy": "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
    "style-src 'unsafe-inline'; object-src 'self';",
    "cross-origin-resource-policy": "cross-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-robots-tag": "noindex, nofollow, noarchive, noimageindex",
}
"""On everything that is downloaded."""

INLINE: Final = frozenset(
    (
        *("text/css", "text/plain", "text/csv", "application/json", "application/ld+json"),
        *("image/jpeg", "image/gif", "image/png", "image/apng", "image/webp", "image/avif"),
        *("video/mp4", "video/webm", "video/ogg", "video/quicktime"),
        *("audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav", "audio/x-wav"),
        *("audio/x-pn-wav", "audio/flac", "audio/x-flac"),
    )
)
"""Types that a browser may show by itself; all others are saved."""

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)
_PLAIN = re.compile(r"[ !#-\[\]-~]*")


class NoSuchRange(Exception):
    """The content does not reach so far."""


def disposition(content_type: str, file_name: str | None) -> str:
    """Content-Disposition of a content."""
    kind = "inline" if content_type.partition(";")[0].strip().lower() in INLINE else "attachment"
    if not file_name:
        return kind
    if _PLAIN.fullmatch(file_name):
        return f'{kind}; filename="{file_name}"'
    return f"{kind}; filename*=utf-8''{quote(file_name.encode('utf-8', 'replace'), safe='')}"


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The one range that is asked for, as first byte and the byte behind its last. None: all is to be sent.

    Several ranges, and what is no range, count as none, which the standard allows. Raises NoSuchRange.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None or (not match[1] and not match[2]):
        return None
    if not match[1]:
        # The last so many bytes.
        first, last = size - int(match[2]), size - 1
        if not int(match[2]) or not size:
            raise NoSuchRange
        return max(first, 0), last + 1
    first = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    if first >= size:
        raise NoSuchRange
    return first, min(last, size - 1) + 1
