"""Matrix strings as PostgreSQL text: an injective escape for NUL, which text cannot hold.

`unsafe(safe(s)) == s` for every string, and two strings never become one: NUL becomes U+10FFFF "0" and U+10FFFF itself, a
noncharacter that nobody types, becomes U+10FFFF "1". Strings without either are untouched.
"""

_ESCAPE = "\U0010ffff"


def safe(text: str) -> str:
    """The form that a text column can hold."""
    if "\0" not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, _ESCAPE + "1").replace("\0", _ESCAPE + "0")


def unsafe(text: str) -> str:
    """The string a text column's value stands for."""
    if _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE + "0", "\0").replace(_ESCAPE + "1", _ESCAPE)


def like(pattern: str) -> str:
    """A type of a filter as a LIKE pattern: "A * can be used as a wildcard to match any sequence of characters"."""
    return safe(pattern).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")
