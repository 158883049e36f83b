"""How transcripts are made comparable before they are scored: a word error rate means little without it.

none              as they stand, but for runs of spaces
basic             Whisper's for all languages: lower case, no brackets, punctuation to spaces (don't -> don t)
whisper-english   Whisper's for English, also contractions, numbers and British spellings (Radford et al. 2022, appendix C)
"""

from functools import lru_cache
from typing import Any, Literal, get_args

Normaliser = Literal["none", "basic", "whisper-english"]
NORMALISERS: tuple[str, ...] = get_args(Normaliser)


@lru_cache(maxsize=2**18)  # a transcript is normalised once, however often it is scored
def normalised(text: str, normaliser: str) -> str:
    """A transcript as it is scored, its words one space apart; maybe nothing is left of it."""
    return " ".join((text if normaliser == "none" else _rules(normaliser)(text)).split())


@lru_cache
def _rules(normaliser: str) -> Any:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    return {"basic": BasicTextNormalizer, "whisper-english": EnglishTextNormalizer}[normaliser]()
