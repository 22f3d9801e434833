"""Names as words that are found by their beginnings, whatever the case and the accents.

Invariant: a word of a query finds every name in which a word begins with it, a user id by its beginning or that of one of its
parts; nothing that anybody writes is more than a word of a query.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MOST_WORDS: Final = 100
"""Words kept of a user, or taken of a query."""
LONGEST: Final = 255

_WORD = re.compile(r"\w+")
# Scripts whose words no spaces part: each character may begin one.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def fold(text: str) -> str:
    """The text without case and accents."""
    # Decomposed before, for signs that stand for several letters have no case of their own.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character) and character != "\0")


def words_of(user_id: str, display_name: str | None) -> list[str]:
    """The words by which a user is found."""
    whole = fold(user_id.removeprefix("@"))
    localpart = whole.partition(":")[0]
    words = dict.fromkeys((whole, localpart))
    for text in (localpart, fold(display_name or "")):
        for word in re.split(r"_+", " ".join(_WORD.findall(text)).replace(" ", "_")):
            words[word] = None
            if _UNSPACED.search(word):
                words |= dict.fromkeys(word[start:] for start in range(1, min(len(word), 30)))
    return [word[:LONGEST] for word in words if word][:MOST_WORDS]


def queries_of(term: str) -> tuple[str, str]:
    """A search term as two tsqueries: what is found, and what is found first. Empty for a term without words."""
    folded = fold(term.strip())
    words = [word for word in re.split(r"_+", "_".join(_WORD.findall(folded))) if word][:MOST_WORDS]
    ways: list[list[str]] = []
    if words and not folded.startswith("@"):
        ways.append(words)
    if folded.strip("@") and not re.search(r"\s", folded):
        ways.append([folded.removeprefix("@")])
    begins = " | ".join(f"({' & '.join(f'{_quoted(word)}:*' for word in way)})" for way in ways)
    exact = " | ".join(f"({' & '.join(map(_quoted, way))})" for way in ways)
    return begins, exact


def _quoted(word: str) -> str:
    escaped = word[:LONGEST].replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
