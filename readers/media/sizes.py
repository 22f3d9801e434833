"""Which thumbnails are made: few sizes, whatever clients ask for.

Invariant: what is chosen is no smaller than what was asked for, and of one content there are at most 44 thumbnails. Source:
client-server API, "Thumbnails": "Servers must never return thumbnails smaller than the client's requested dimensions".
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Method = Literal["crop", "scale"]

BOXES: Final = ((32, 32), (96, 96), (320, 240), (640, 480), (800, 600), (1600, 1200))
"""Scaled ones: those of the specification, and one for large screens."""
SIDES: Final = (32, 96, 320, 640, 800, 1600)
"""The longer side of crops, which have the proportions asked for."""
MOST_CROPS: Final = 32
"""Of one content; whoever asks for more proportions gets scaled ones."""


class Size(NamedTuple):
    """A thumbnail to be made."""

    width: int
    height: int
    method: Method
    animated: bool


def chosen(width: int, height: int, method: Method, animated: bool) -> Size | None:
    """The size to make. None: no thumbnail is so large, and the content itself is what to send."""
    if method == "crop":
        longer = max(width, height)
        side = next((side for side in SIDES if side >= longer), None)
        if side is None:
            return None
        # Rounded up.
        return Size(-(-width * side // longer), -(-height * side // longer), "crop", animated)
    return next((Size(*box, "scale", animated) for box in BOXES if box[0] >= width and box[1] >= height), None)
