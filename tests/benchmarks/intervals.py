"""How long the intervals of large test splits take: `python -m tests.benchmarks.intervals`.

The records are simulated. The benchmark times 1,000 resamples of their statistics. It compares this with versions up
to 0.1, which scored lists of dictionaries again for every resample. The old code is kept only here and runs a few
resamples: its time is extrapolated to 1,000 and marked with a tilde. Seconds are processor seconds
(OMP_NUM_THREADS=1), so that other programs do not count. The elapsed time is given in brackets.
"""

import platform
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

import numpy as np

from pipelines.metrics import classification, intervals, question_answering, speech_recognition
from pipelines.metrics.statistics import Statistics

Record = dict[str, Any]
LABELS = [f"class {number}" for number in range(10)]
FEW = 3  # resamples of the old code


# ---- records ----


def classified(count: int) -> list[Record]:
    rng = random.Random(0)
    records = []
    for number in range(count):
        true, right = rng.randrange(10), rng.random() < 0.9
        guess = true if right else rng.randrange(10)
        record = {
            "id": str(number),
            "true": LABELS[true],
            "predicted": LABELS[guess],
            "confidence": rng.betavariate(9, 2),
        }
        records.append({**record, "rank": 0 if true == guess else rng.randrange(1, 10)})
    return records


def transcribed(count: int) -> list[Record]:
    rng = random.Random(0)
    words = [chr(ord("a") + n % 26) * (1 + n % 7) for n in range(500)]
    records = []
    for number in range(count):
        true = rng.choices(words, k=20)
        heard_words = [rng.choice(words) if rng.random() < 0.1 else word for word in true if rng.random() > 0.02]
        records.append(
            {"id": str(number), "true": " ".join(true), "predicted": " ".join(heard_words), "speaker": str(number % 50)}
        )
    return records


def answered(count: int) -> list[Record]:
    rng = random.Random(0)
    records = []
    for number in range(count):
        true = " ".join(rng.choices(["river", "king", "north", "1912", "war"], k=rng.randrange(1, 5)))
        heard_words = true if rng.random() < 0.6 else rng.choice(["river", "king of north", ""])
        judged = question_answering.judge(heard_words, [true])
        records.append({"id": str(number), "question": "who?", "true": [true], "predicted": heard_words, **judged})
    return records


# ---- the old code: lists of dictionaries, scored once for every resample ----


def old_classification(records: Sequence[Record]) -> dict[str, float]:
    true, predicted, confidence, rank = zip(
        *map(itemgetter("true", "predicted", "confidence", "rank"), records), strict=True
    )
    index = {label: place for place, label in enumerate(LABELS)}
    truth, guess = (np.array([index[label] for label in part]) for part in (true, predicted))
    sure, correct = np.array(confidence, dtype=float), truth == guess
    found, guessed, right = (np.bincount(part, minlength=10) for part in (truth, guess, truth[correct]))
    order = np.argsort(sure)
    place = np.clip(np.searchsorted(np.linspace(0, 1, 16), sure[order], side="left") - 1, 0, 14)
    hits, confident = (np.bincount(place, weights=part[order], minlength=15) for part in (correct, sure))
    return {
        "accuracy": float(correct.mean()),
        "balanced_accuracy": float((right / found).mean()),
        "f1_macro": float((2 * right / (found + guessed)).mean()),
        "top_5_accuracy": float((np.array(rank) < 5).mean()),
        "ece": float(np.abs(hits - confident).sum() / len(sure)),
    }


def old_speech(records: Sequence[Record]) -> dict[str, float]:
    counted = [speech_recognition.counts(r["true"], r["predicted"], "none") for r in records]
    sums = speech_recognition.Counts(*map(sum, zip(*counted, strict=True)))
    return {
        "wer": sums.errors / sums.words,
        "cer": sums.character_errors / sums.characters,
        "insertions": sums.insertions / sums.words,
        "deletions": sums.deletions / sums.words,
        "substitutions": sums.substitutions / sums.words,
    }


def old_answers(records: Sequence[Record]) -> dict[str, float]:
    judged = [{"exact_match": r["exact_match"], "f1": r["f1"]} for r in records]
    return {name: 100 * float(np.sort([one[name] for one in judged]).mean()) for name in ("exact_match", "f1")}


def old_way(score: Callable[[Sequence[Record]], dict[str, float]], records: Sequence[Record]) -> float:
    """Processor seconds of 1,000 resamples, extrapolated from a few of them."""
    rng = np.random.default_rng(0)
    score(records)  # this call fills the caches
    began = time.process_time()
    for _ in range(FEW):
        score([records[place] for place in rng.integers(0, len(records), len(records))])
    return (time.process_time() - began) / FEW * 1000


# ---- the new code ----


def new_way(found: Statistics, summarize: Callable[[Statistics, np.ndarray], dict[str, float]]) -> tuple[float, float]:
    """Processor seconds, and elapsed seconds."""
    units = np.arange(len(found.ids))
    began, clock = time.process_time(), time.perf_counter()
    values = intervals.resampled(lambda weights: summarize(found, weights), units)
    bounds = {name: intervals.bounds(of, len(units)) for name, of in values.items()}
    taken = time.process_time() - began, time.perf_counter() - clock
    assert all(len(of) == intervals.RESAMPLES for of in values.values())
    assert all(bound is not None and bound[0] < bound[1] for bound in bounds.values())
    return taken


def main() -> None:
    cases: list[tuple[str, list[Record], Any, Any, Any]] = [
        (
            "50,000 rows, 10 classes: accuracy, macro-F1, calibration error and two more",
            classified(50_000),
            lambda records: classification.statistics(records, LABELS),
            classification.summarize,
            old_classification,
        ),
        (
            "5,000 utterances: WER, CER and three more",
            transcribed(5_000),
            lambda records: speech_recognition.statistics(records, "none"),
            speech_recognition.summarize,
            old_speech,
        ),
        (
            "10,000 SQuAD rows: exact match, F1",
            answered(10_000),
            question_answering.statistics,
            question_answering.summarize,
            old_answers,
        ),
    ]
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, "
        f"Python {platform.python_version()}, NumPy {np.__version__}\n"
    )
    print("| 1,000 resamples of | statistics, s | intervals, s | version 0.1, s | ratio |\n|---|---|---|---|---|")
    for title, records, statistics, summarize, old in cases:
        began = time.process_time()
        found = statistics(records)
        once = time.process_time() - began
        (new, clock), before = new_way(found, summarize), old_way(old, records)
        print(f"| {title} | {once:.2f} | {new:.2f} ({clock:.2f}) | ~{before:.0f} | {before / new:.0f} |", flush=True)


if __name__ == "__main__":
    main()
