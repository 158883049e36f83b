"""Word and character error rates of transcripts, from prediction records.

    scores([{"id": "a", "true": "the cat sat", "predicted": "a cat"}], "none")  ->  {"wer": 0.667, "cer": ..., ...}

A record: {"id", "true", "predicted", "seconds"}, and "speaker" and "confidence" if they are known. jiwer aligns the
words. All sums are of integers, so neither the order of the records nor their grouping changes a score.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from pipelines.errors import DataError
from pipelines.metrics.statistics import Statistics, plain, total
from pipelines.metrics.text_normalizers import normalised

Record = Mapping[str, Any]

ENDS = (2, 5, 10, 15, 20, 30)  # upper ends of the groups by utterance length, in seconds
PHRASE = 8  # words of the longest phrase that `loops` looks for


def directions(normaliser: str) -> dict[str, str]:
    """The scores, each with its direction."""
    raw = () if normaliser == "none" else ("wer_raw", "cer_raw")
    return dict.fromkeys(("wer", "cer", "insertions", "deletions", "substitutions", *raw), "min")


class Counts(NamedTuple):
    """The counts of one utterance."""

    words: int  # in the reference
    insertions: int
    deletions: int
    substitutions: int
    characters: int  # in the reference, spaces included
    character_errors: int

    @property
    def errors(self) -> int:
        """All word errors."""
        return self.insertions + self.deletions + self.substitutions


@lru_cache(maxsize=2**18)  # scores, tables and figures use the same utterances
def counts(true: str, predicted: str, normaliser: str) -> Counts:
    """Errors of a transcript against its reference. If the reference is empty, every predicted word is an insertion."""
    import jiwer

    pair = normalised(true, normaliser), normalised(predicted, normaliser)
    words, characters = jiwer.process_words(*pair), jiwer.process_characters(*pair)
    return Counts(
        words.hits + words.substitutions + words.deletions,
        words.insertions,
        words.deletions,
        words.substitutions,
        len(pair[0]),
        characters.insertions + characters.deletions + characters.substitutions,
    )


def statistics(records: Sequence[Record], normaliser: str) -> Statistics:
    """The columns of `Counts` for each utterance; with a normaliser also raw_errors, raw_words and so on without it.

    Raises DataError if there are no records.
    """
    columns = _counted(records, normaliser)
    if normaliser != "none":
        raw = _counted(records, "none")
        columns["raw_errors"] = raw["insertions"] + raw["deletions"] + raw["substitutions"]
        columns |= {f"raw_{name}": raw[name] for name in ("words", "characters", "character_errors")}
    return Statistics([record["id"] for record in records], columns)


def summarize(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """wer, cer, and insertions, deletions, substitutions per reference word; lower is better, and values may exceed 1.

    With a normaliser also `wer_raw` and `cer_raw`, computed without it. If the references have no words at all, the
    values are counts of errors (as in jiwer). `weights` [rows], or [draws, rows] for arrays [draws].
    """
    kinds = {name: total(weights, statistics[name]) for name in ("insertions", "deletions", "substitutions")}
    words = np.maximum(total(weights, statistics["words"]), 1)
    found = {
        "wer": sum(kinds.values()) / words,
        "cer": total(weights, statistics["character_errors"]) / np.maximum(total(weights, statistics["characters"]), 1),
        **{name: errors / words for name, errors in kinds.items()},
    }
    if "raw_errors" in statistics:
        for name, errors, of in (
            ("wer_raw", "raw_errors", "raw_words"),
            ("cer_raw", "raw_character_errors", "raw_characters"),
        ):
            found[name] = total(weights, statistics[errors]) / np.maximum(total(weights, statistics[of]), 1)
    return plain(found)


def scores(records: Sequence[Record], normaliser: str) -> dict[str, float]:
    """All metrics of one split (see `summarize`)."""
    found = statistics(records, normaliser)
    return summarize(found, found.ones())


def _counted(records: Sequence[Record], normaliser: str) -> dict[str, np.ndarray]:
    found = [counts(record["true"], record["predicted"], normaliser) for record in records]
    return dict(zip(Counts._fields, np.array(found, dtype=int).reshape(-1, len(Counts._fields)).T, strict=True))


def _summed(records: Sequence[Record], normaliser: str) -> Counts:
    return Counts(*(int(column.sum()) for column in _counted(records, normaliser).values()))


# ---- signs of hallucination ----


def loops(text: str) -> int:
    """How often the most repeated phrase of up to 8 words occurs in a row: "no no no thank you" -> 3."""
    words, most = text.split(), min(1, len(text.split()))
    for size in range(1, min(PHRASE, len(words) // 2) + 1):
        run = 0  # consecutive words that equal the word `size` positions before
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            most = max(most, run // size + 1)
    return most


def hallucinations(records: Sequence[Record], normaliser: str) -> dict[str, float]:
    """Signs that a model hallucinates, which error rates do not show; they are close to 0 for a good model.

    repetition     share of transcripts that repeat a phrase at least 4 times in a row, and more often than the
    reference
    overlong       share of transcripts with more than twice the reference's words plus 2
    length_ratio   predicted words per reference word (close to 1 for a good model)

    Raises DataError if there are no records.
    """
    if not records:
        raise DataError("there are no predictions to score")
    repeated, overlong, true, predicted = map(
        sum, zip(*[_signs(r["true"], r["predicted"], normaliser) for r in records], strict=True)
    )
    return {
        "repetition": repeated / len(records),
        "overlong": overlong / len(records),
        "length_ratio": predicted / max(true, 1),
    }


@lru_cache(maxsize=2**18)
def _signs(true: str, predicted: str, normaliser: str) -> tuple[bool, bool, int, int]:
    """Whether a transcript repeats, whether it is too long, and the number of words in reference and transcript."""
    true, predicted = normalised(true, normaliser), normalised(predicted, normaliser)
    reference_words, words = len(true.split()), len(predicted.split())
    repeats = loops(predicted) >= 4 and loops(predicted) > loops(true)
    return repeats, words > 2 * reference_words + 2, reference_words, words


# ---- breakdowns ----


def tables(records: Sequence[Record], normaliser: str) -> dict[str, list[dict[str, Any]]]:
    """Errors by utterance length, and by speaker if the records name several, worst first.

    Speakers are numbered in that order, because these tables are published and names of speakers must not be.
    """
    names = [f"up to {ENDS[0]}", *[f"{low} to {high}" for low, high in pairwise(ENDS)], f"more than {ENDS[-1]}"]
    found = {
        "by utterance length": _grouped(
            records, "seconds", lambda r: names[sum(r["seconds"] > end for end in ENDS)], normaliser
        )
    }
    found["by utterance length"].sort(key=lambda row: names.index(row["seconds"]))
    if len({r.get("speaker") for r in records} - {None}) > 1:
        by_speaker = _grouped(
            records, "speaker", lambda r: "unknown" if r.get("speaker") is None else str(r["speaker"]), normaliser
        )
        ranked = sorted(by_speaker, key=lambda row: (-row["wer"], row["speaker"]))
        found["by speaker"] = [{**row, "speaker": f"speaker {place}"} for place, row in enumerate(ranked, 1)]
    return found


def _grouped(
    records: Sequence[Record], title: str, key: Callable[[Record], str], normaliser: str
) -> list[dict[str, Any]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    rows = []
    for name, group in groups.items():
        sums = _summed(group, normaliser)
        wer, cer = sums.errors / max(sums.words, 1), sums.character_errors / max(sums.characters, 1)
        rows.append({title: name, "n": len(group), "words": sums.words, "wer": wer, "cer": cer})
    return rows


def aligned(record: Record, normaliser: str) -> list[tuple[str, str, str]]:
    """The alignment of a transcript, per word: (equal | substitute | delete | insert, true, predicted)."""
    import jiwer

    output = jiwer.process_words(normalised(record["true"], normaliser), normalised(record["predicted"], normaliser))
    true, predicted = output.references[0], output.hypotheses[0]
    pairs = []
    for chunk in output.alignments[0]:
        for place in range(max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)):
            one = true[chunk.ref_start_idx + place] if chunk.type != "insert" else ""
            two = predicted[chunk.hyp_start_idx + place] if chunk.type != "delete" else ""
            pairs.append((chunk.type, one, two))
    return pairs
