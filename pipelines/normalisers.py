"""How transcripts are made comparable before they are scored: a word error rate means little without it.

none              as they stand, but for runs of spaces
basic             for all languages and scripts: lower case, [notes] and <notes> out, punctuation and symbols to blanks; letters with
                  their marks, digits, and apostrophes within a word stay (don't stays don't, well-known becomes well known)
whisper-english   Whisper's for English, also contractions, numbers and British spellings (Radford et al. 2022, appendix C)

Whisper's own rules for other languages are not used: they take vowel signs for symbols, and so cut words of Hindi or Tamil in pieces.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Any, Literal, get_args

Normaliser = Literal["none", "basic", "whisper-english"]
NORMALISERS: tuple[str, ...] = get_args(Normaliser)

NOTES = re.compile(r"\[[^\]]*\]|<[^>]*>")  # [noise], <unk>: of whoever wrote it down, nobody said it
APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc"), "'")  # typographic ones, and the one that counts as a letter
INNER_DOT = "i\u0307"  # what lower case makes of the Turkish \u0130


@lru_cache(maxsize=2**18)  # a transcript is normalised once, however often it is scored
def normalised(text: str, normaliser: str) -> str:
    """A transcript as it is scored, its words one space apart; maybe nothing is left of it."""
    return " ".join((text if normaliser == "none" else _rules(normaliser)(text)).split())


@lru_cache
def _rules(normaliser: str) -> Any:
    if normaliser == "basic":
        return basic
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def basic(text: str) -> str:
    """Words of letters (category L), marks (M), numbers (N) and the apostrophes between them, in NFKC and lower case."""
    text = unicodedata.normalize("NFKC", NOTES.sub(" ", text)).lower().replace(INNER_DOT, "i").translate(APOSTROPHES)
    made: list[str] = []
    for character in text:
        kind = unicodedata.category(character)
        if kind[0] in "LN" or character == "'" or (kind[0] == "M" and made and made[-1] not in " '"):
            made.append(character)
        elif kind != "Cf":  # soft hyphens and joiners are no blanks: they stand within words
            made.append(" ")
    return " ".join(stripped for word in "".join(made).replace("''", " ").split() if (stripped := word.strip("'")))
