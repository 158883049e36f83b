"""Cut a long text into pieces that a model of speech synthesis speaks well: at sentences, else at commas or spaces."""

import re

LONGEST = 200  # characters of a piece; models learn from recordings of one or two sentences
SENTENCES = re.compile(r"(?<=[.!?;:])\s+")
CLAUSES = re.compile(r"(?<=,)\s+")


def pieces(text: str, longest: int = LONGEST) -> list[str]:
    """Pieces of at most `longest` characters that make the text when they are joined by spaces.

    A text that is short enough is one piece. Words longer than that are cut.
    """
    return _packed([text], (SENTENCES, CLAUSES, re.compile(r"\s+")), longest)


def _packed(parts: list[str], rest: tuple[re.Pattern[str], ...], longest: int) -> list[str]:
    """Parts that are too long are cut by the first pattern of `rest`; neighbours are joined while they fit."""
    found: list[str] = []
    for part in parts:
        if len(part) <= longest:
            own = [part]
        elif rest:
            own = _packed(rest[0].split(part), rest[1:], longest)
        else:
            own = [part[start : start + longest] for start in range(0, len(part), longest)]
        for piece in own:
            if found and rest and len(found[-1]) + 1 + len(piece) <= longest:
                found[-1] += f" {piece}"
            elif piece:
                found.append(piece)
    return found
