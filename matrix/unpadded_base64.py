"""Unpadded base64, standard and URL-safe, as text.

Source: appendices, "Unpadded Base64". Decoding accepts padding, which the appendix recommends, and nothing else:
two texts never decode to the same bytes by way of ignored characters.
"""

from __future__ import annotations

from binascii import Error as _Base64Error
from binascii import a2b_base64, b2a_base64

__all__ = ["decode", "encode", "encode_url_safe"]

_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def encode(data: bytes) -> str:
    """Standard alphabet, no padding."""
    return b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")


def encode_url_safe(data: bytes) -> str:
    """URL-safe alphabet, no padding."""
    return b2a_base64(data, newline=False).translate(_TO_URL_SAFE, b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Bytes of a standard base64 text, padded or not; ValueError for anything else."""
    try:
        unpadded = text.encode("ascii").rstrip(b"=")
        return a2b_base64(unpadded + b"=" * (-len(unpadded) % 4), strict_mode=True)
    except (UnicodeEncodeError, _Base64Error) as error:
        raise ValueError("not unpadded base64") from error
