"""Hand-made features of texts: TF-IDF of words and of characters (Salton and Buckley 1988).

A pair of texts gives two blocks of features, one for each text: a word then means something else in the question than
in the passage. What both texts share is not among the features.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.baselines.features import FeatureSet
from pipelines.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

TEXTS = ("text", "text_pair")
LEARNERS = ("logistic", "linear_svm", "ridge")
READ = 20_000  # characters of a text that are read: ten times what most networks read, and memory stays bounded
MOST = 100_000  # terms of a text that are kept, the most frequent ones of the training rows
COEFFICIENTS = 4_000_000  # terms times classes: a logistic regression needs about 254 bytes for each, 1 GB in all
NOTHING = ""  # the term of a text without any other, so that a vocabulary is never empty
# Scripts without spaces between words: each character is a term, and two in a row are one, too.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Marks that belong to a word, and that \w of Python does not match: accents, Hebrew, Arabic, the scripts of India.
MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
WORD = rf"[{UNSPACED}]|(?:(?![{UNSPACED}])[\w{MARKS}])+"


def feature_sets(task: Task) -> list[FeatureSet]:
    """The hand-made features of a task with a `text` per row, or a `text` and a `text_pair`."""
    pair = TEXTS[1] in task.data.input_columns
    columns = TEXTS if pair else TEXTS[:1]
    read = partial(read_texts, columns)
    most = most_terms(len(columns), len(task.data.labels))
    fewer = f" Only the {most:,} most frequent terms are kept, because there are many classes." if most < MOST else ""
    each = " Each text of a pair has its own." if pair else ""
    return [
        FeatureSet(
            "TF-IDF of words",
            read,
            partial(steps, columns, words, most),
            LEARNERS,
            names=partial(names, columns),
            quotes=True,
            about=f"How often each word and each pair of words occurs, less for those in many texts.{each}{fewer}",
        ),
        FeatureSet(
            "TF-IDF of characters",
            read,
            partial(steps, columns, characters, most),
            LEARNERS,
            names=partial(names, columns),
            quotes=True,
            about=f"The same for 2 to 5 characters in a row within words.{each}{fewer}",
        ),
    ]


def read_texts(columns: tuple[str, ...], rows: "Dataset") -> list[tuple[str, ...]]:
    """The texts of each row, in the order of `columns`."""
    from pipelines.data.columns import values

    return list(zip(*(values(rows, column) for column in columns), strict=True))


def names(columns: tuple[str, ...], fitted: Any) -> list[str]:
    """The term of each number, and of a pair also the text in which it stands."""
    found = [str(name) for name in fitted.get_feature_names_out()]
    if len(columns) == 1:
        return found
    which = dict(zip(columns, ("first text", "second text"), strict=True))
    parts = (name.partition("__") for name in found)
    return [f"{term} ({which[column]})" for column, _, term in parts]


def words() -> Callable[[str], list[str]]:
    """A function from a text to its words and pairs of neighbouring words, in lower case."""
    return _analyzer(analyzer="word", token_pattern=WORD, ngram_range=(1, 2))


def characters() -> Callable[[str], list[str]]:
    """A function from a text to its runs of 2 to 5 characters, in lower case, with a space on both ends of a word."""
    return _analyzer(analyzer="char_wb", ngram_range=(2, 5))


def _analyzer(**settings: Any) -> Callable[[str], list[str]]:
    from sklearn.feature_extraction.text import CountVectorizer

    found: Callable[[str], list[str]] = CountVectorizer(**settings).build_analyzer()
    return found


def terms(analyze: Callable[[str], list[str]], place: int, texts: tuple[str, ...]) -> list[str]:
    """The terms of one text of a row; NOTHING if it has none (an empty second text, or punctuation alone)."""
    return analyze(texts[place][:READ]) or [NOTHING]


def most_terms(texts: int, classes: int) -> int:
    """The most terms of each text: a linear learner has a coefficient for each of them and each class."""
    return max(1, min(MOST, COEFFICIENTS // (texts * max(1, classes))))


def steps(
    columns: tuple[str, ...], kind: Callable[[], Callable[[str], list[str]]], most: int, seed: int
) -> list[tuple[str, Any]]:
    """One step: texts -> a sparse matrix, each text's part of a row of length 1.

    Every term of the training rows is kept up to `most`, also one that occurs once: few rows have few other terms.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    analyze = kind()
    parts = [
        (
            column,
            TfidfVectorizer(
                analyzer=partial(terms, analyze, place), sublinear_tf=True, max_features=most, dtype=np.float32
            ),
        )
        for place, column in enumerate(columns)
    ]
    return [("tf-idf", parts[0][1] if len(parts) == 1 else FeatureUnion(parts))]
