"""Normalise transcripts before scoring, so that spelling and punctuation do not count as errors.

none              unchanged, except for runs of spaces and Unicode form (NFC: an e with an accent is one character)
basic             for all languages and scripts: lower case, without [notes] and <notes>, punctuation and symbols become
                  spaces; letters with their marks, digits, and apostrophes within a word stay (don't stays don't,
                  well-known becomes well known)
whisper-english   Whisper's rules for English, also contractions, numbers and British spellings (Radford et al. 2022,
                  appendix C)

Whisper's own rules for other languages are not used: they treat vowel signs as symbols, which splits words of Hindi or
Tamil.
"""

import logging
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

log = logging.getLogger("graft")

Normaliser = Literal["none", "basic", "whisper-english"]
NORMALISERS: tuple[str, ...] = get_args(Normaliser)

NOTES = re.compile(r"\[[^\]]*\]|<[^>]*>")  # [noise], <unk>: notes of the transcriber, not spoken words
# the typographic apostrophes, and the one in the category of letters
APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc"), "'")
# Thai, Lao, Tibetan, Burmese, Khmer, kana, bopomofo, Chinese characters. Korean is written with spaces.
SPACELESS = re.compile(
    "[\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0edf\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3\u3040-\u30ff\u3105-\u312f"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
LOOKED_AT = 20_000  # transcripts that are searched for letters in two parts
INNER_DOT = "i\u0307"  # lower case of the Turkish \u0130


@lru_cache(maxsize=2**18)  # a transcript is normalised once, although it is scored several times
def normalised(text: str, normaliser: str) -> str:
    """A transcript in the form that is scored, with single spaces; may be empty."""
    text = unicodedata.normalize("NFC", text)  # words that look the same get the same characters
    return " ".join((text if normaliser == "none" else _rules(normaliser)(text)).split())


@lru_cache
def _rules(normaliser: str) -> Any:
    if normaliser == "basic":
        return basic
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def basic(text: str) -> str:
    """Keep letters (category L), marks (M), numbers (N) and inner apostrophes; NFKC, lower case, single spaces."""
    text = unicodedata.normalize("NFKC", NOTES.sub(" ", text)).lower().replace(INNER_DOT, "i").translate(APOSTROPHES)
    kept: list[str] = []
    for character in text:
        kind = unicodedata.category(character)
        if kind[0] in "LN" or character == "'" or (kind[0] == "M" and kept and kept[-1] not in " '"):
            kept.append(character)
        elif kind != "Cf":  # soft hyphens and joiners do not separate words
            kept.append(" ")
    return " ".join(stripped for word in "".join(kept).replace("''", " ").split() if (stripped := word.strip("'")))


def spaceless(texts: Sequence[str]) -> bool:
    """Whether most letters of some transcripts belong to scripts without spaces between words."""
    text = "".join(texts[:1000])
    letters = sum(character.isalpha() for character in text)
    return letters > 0 and len(SPACELESS.findall(text)) > letters / 2


def warn_of_words(texts: Sequence[str]) -> None:
    """Warn of scripts without spaces between words, for which a word error rate means little, and of split letters."""
    split = sum(not unicodedata.is_normalized("NFC", text) for text in texts[:LOOKED_AT])
    if split:
        log.warning(
            "%s transcripts write letters and their accents as two characters: they are learned and scored as one "
            "(Unicode form NFC)",
            f"{split:,}",
        )
    if spaceless(texts):
        log.warning(
            "most letters of these transcripts are of a script without blanks between words: "
            "whatever stands between two blanks counts as one word, so that wer says little; "
            "train.metric=cer lets cer choose the best checkpoint"
        )
