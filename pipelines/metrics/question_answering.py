"""Exact match and F1 of extractive and generative question answering, as in SQuAD's official script.

    scores([{"id": "a", "true": ["Denver Broncos"], "predicted": "the Broncos"}])  ->  {"exact_match": 0.0, "f1": 66.7}

Rajpurkar et al. 2016 (arXiv:1606.05250) and 2018 (arXiv:1806.03822). Scores are 0-100. A record: {"id", "question",
"true": list of accepted answers (empty for a question without an answer), "predicted": text, "confidence"}.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.metrics.statistics import Proportion, Statistics, plain, ratio, total

Record = Mapping[str, Any]

DIRECTIONS = {"f1": "max", "exact_match": "max"}  # the scores
WITHOUT_ANSWERS = {"no_answer_accuracy": "max", "has_answer_f1": "max"}  # more scores, if some rows have no answer

WORDS = ("what", "who", "when", "where", "which", "how", "why")


def normalize(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: `normalize_answer` of the official script."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(predicted: str, true: Sequence[str]) -> float:
    """1 if the answer equals an accepted one after `normalize`, else 0. An empty prediction matches "no answer"."""
    return float(any(normalize(predicted) == normalize(answer) for answer in true or [""]))


def f1(predicted: str, true: Sequence[str]) -> float:
    """The best word overlap (F1) with an accepted answer, 0-1. If one of the two is empty: 1 if both are, else 0."""
    return max(_overlap(normalize(predicted).split(), normalize(answer).split()) for answer in true or [""])


def _overlap(predicted: list[str], true: list[str]) -> float:
    if not predicted or not true:
        return float(predicted == true)
    same = sum((Counter(predicted) & Counter(true)).values())
    return 2 * same / (len(predicted) + len(true))


def statistics(records: Sequence[Record]) -> Statistics:
    """exact_match and f1 of each row (0-1).

    If some rows have no answer, also answerable, unanswerable and silent_right (correctly left without an answer).
    Raises DataError if there are no records.
    """
    judged = [row_scores(record) for record in records]
    columns: dict[str, np.ndarray] = {
        name: np.array([one[name] for one in judged], dtype=float) for name in ("exact_match", "f1")
    }
    proportions = {"exact_match": Proportion("exact_match", scale=100.0)}
    answerable = np.array([bool(record["true"]) for record in records], dtype=bool)
    if not answerable.all():
        columns["answerable"] = answerable
        columns["unanswerable"] = ~answerable
        columns["silent_right"] = ~answerable & np.array([not record["predicted"] for record in records], dtype=bool)
        proportions["no_answer_accuracy"] = Proportion("silent_right", "unanswerable")
    return Statistics([record["id"] for record in records], columns, proportions)


def summarize(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """exact_match and f1, means over rows, 0-100; `weights` [rows], or [draws, rows] for arrays [draws].

    If some rows have no answer, also `has_answer_f1`, the F1 of the other rows, and `no_answer_accuracy`, the share of
    the unanswerable questions that got no answer (a fraction).
    """
    found = {name: 100 * ratio(total(weights, statistics[name]), total(weights)) for name in ("exact_match", "f1")}
    if "answerable" in statistics:
        answerable = statistics["answerable"]
        found["no_answer_accuracy"] = ratio(
            total(weights, statistics["silent_right"]), total(weights, statistics["unanswerable"])
        )
        found["has_answer_f1"] = 100 * ratio(total(weights, statistics["f1"] * answerable), total(weights, answerable))
    return plain(found)


def scores(records: Sequence[Record]) -> dict[str, float]:
    """All metrics of one split (see `summarize`)."""
    found = statistics(records)
    return summarize(found, found.ones())


def row_scores(record: Record) -> dict[str, float]:
    """A record's own scores, as stored in the record; computed if they are not."""
    if "f1" in record and "exact_match" in record:
        return {"exact_match": record["exact_match"], "f1": record["f1"]}
    return judge(record["predicted"], record["true"])


def judge(predicted: str, true: Sequence[str]) -> dict[str, float]:
    """{"exact_match", "f1"} of one answer, 0-1."""
    return {"exact_match": exact_match(predicted, true), "f1": f1(predicted, true)}


# ---- breakdowns ----


def question_word(question: str) -> str:
    """The first of what, who, when, where, which, how, why in a question; otherwise "other"."""
    words = re.findall(r"[a-z]+", question.lower())
    return next((w for w in words if w in WORDS), "other")


def tables(records: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    """Scores by question word, if there are questions, and by the number of words in the shortest accepted answer."""
    by_length = _grouped(records, "words in the answer", _length, ["none", "1", "2", "3", "4", "5 to 8", "9 and more"])
    if "question" not in records[0]:
        return {"by answer length": by_length}
    by_word = _grouped(records, "question word", lambda r: question_word(r["question"]), [*WORDS, "other"])
    return {"by question word": by_word, "by answer length": by_length}


def _length(record: Record) -> str:
    if not record["true"]:
        return "none"
    words = max(1, min(len(answer.split()) for answer in record["true"]))
    return str(words) if words < 5 else "5 to 8" if words < 9 else "9 and more"


def _grouped(records: Sequence[Record], title: str, key: Any, order: Sequence[str]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, float]]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(row_scores(record))
    return [
        {
            title: name,
            "n": len(group),
            **{m: 100 * float(np.mean(np.sort([one[m] for one in group]))) for m in ("exact_match", "f1")},
        }
        for name in order
        if (group := groups.get(name))
    ]


def no_answer_threshold(records: Sequence[Record]) -> float:
    """The threshold for `null score - best span score` that gives the best F1 on these records (SQuAD 2.0).

    Above it the answer is empty. A record has `margin` (this difference) and `span` (the text of the best span). Ties
    take the smallest threshold.
    """
    order = sorted(records, key=lambda r: r["margin"])
    gain = [f1(r["span"], r["true"]) - float(not r["true"]) for r in order]  # of answering instead of not answering
    total = np.concatenate([[0.0], np.cumsum(gain)])  # answering the first k
    best = int(total.argmax())
    edges = [order[0]["margin"] - 1.0, *(r["margin"] for r in order), order[-1]["margin"] + 1.0]
    return float(edges[best] + edges[best + 1]) / 2
