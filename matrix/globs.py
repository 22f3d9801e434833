"""Glob-style matching, in time linear in the text.

`*` stands for any number of characters, `?` for exactly one. Patterns and texts come from users, so nothing here backtracks:
between two `*` lies a piece of fixed length, and taking the leftmost place of each piece is as good as any.
Source: appendices, "Glob-style matching"; push rules, `event_match`.
"""

from __future__ import annotations

import re

__all__ = ["Glob", "Wildcard", "WordGlob"]

_WORD = "[A-Za-z0-9_]"


class Wildcard:
    """A pattern in which only `*` is special and case counts, as in the event types of filters."""

    __slots__ = ("_first", "_last", "_least", "_middle")

    def __init__(self, pattern: str) -> None:
        first, *rest = pattern.split("*")
        self._first = first
        self._last = rest.pop() if rest else None
        self._middle = tuple(filter(None, rest))
        self._least = len(first) + len(self._last or "")

    def matches(self, text: str) -> bool:
        """Whether the pattern stands for the whole text."""
        if self._last is None:
            return text == self._first
        if len(text) < self._least or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        at, end = len(self._first), len(text) - len(self._last)
        for piece in self._middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


class Glob:
    """A pattern with `*` and `?` that stands for a whole text, whatever the case."""

    __slots__ = ("_first", "_last", "_least_last", "_middle", "literal")

    def __init__(self, pattern: str) -> None:
        first, *rest = pattern.split("*")
        self.literal = None if "*" in pattern or "?" in pattern else pattern.lower()
        """The lower-case text that the pattern is, if nothing in it is special."""
        last = rest.pop() if rest else None
        self._first = _piece(first)
        self._last = None if last is None else _piece(last)
        self._least_last = 0 if last is None else len(last)
        self._middle = tuple(_piece(piece) for piece in rest if piece)

    def matches(self, text: str) -> bool:
        """Whether the pattern stands for the whole text."""
        if self.literal is not None:
            return text.lower() == self.literal
        if self._last is None:
            return self._first.fullmatch(text) is not None
        begun = self._first.match(text)
        if begun is None:
            return False
        at, end = begun.end(), len(text) - self._least_last
        for piece in self._middle:
            found = piece.search(text, at, max(at, end))
            if found is None:
                return False
            at = found.end()
        return end >= at and self._last.fullmatch(text, end) is not None


class WordGlob:
    """A pattern with `*` and `?` that stands for some part of a text between word boundaries, whatever the case.

    A boundary is the start or end of the text, or beside a character that is not in `[A-Za-z0-9_]`.
    """

    __slots__ = ("_first", "_rest")

    def __init__(self, pattern: str) -> None:
        first, *rest = pattern.split("*")
        # What a pattern begins with may be found at its first place that begins a word: if what follows is not found
        # behind it, it is not found behind a later one.
        opening = f"(?<!{_WORD})" if first else ""
        if rest:
            self._first = _piece(first, before=opening)
            last = rest.pop()
            pieces = [_piece(piece) for piece in rest if piece]
            if last:
                pieces.append(_piece(last, after=f"(?!{_WORD})"))
            self._rest = tuple(pieces)
        else:
            self._first = _piece(first, before=f"(?<!{_WORD})", after=f"(?!{_WORD})")
            self._rest = ()

    def matches(self, text: str) -> bool:
        """Whether some part of the text is what the pattern stands for."""
        found = self._first.search(text)
        for piece in self._rest:
            if found is None:
                return False
            found = piece.search(text, found.end())
        return found is not None


def _piece(text: str, *, before: str = "", after: str = "") -> re.Pattern[str]:
    """What lies between two `*`: as many characters as it has, `?` being any."""
    characters = "".join("." if character == "?" else re.escape(character) for character in text)
    return re.compile(before + characters + after, re.IGNORECASE | re.DOTALL)
