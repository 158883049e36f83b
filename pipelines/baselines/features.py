"""FeatureSet: how a row becomes numbers for a classical learner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


class Unreadable(DataError):
    """Rows that cannot be read: their places among the rows that were asked for, each with the reason."""

    def __init__(self, rows: Mapping[int, str]) -> None:
        super().__init__("; ".join(list(rows.values())[:3]))
        self.rows = dict(rows)


@dataclass(frozen=True)
class FeatureSet:
    """Features of rows, in two parts: `read` learns nothing, and `steps` learn from the training rows alone.

    So `read` is computed once per row, and every learner, setting and number of training rows uses what it returned.
    """

    name: str
    """For people: "HOG", "colour histogram", "TF-IDF of words"."""
    read: "Callable[[Dataset], Any]"
    """Rows -> one entry per row, in their order: an array [rows, numbers], or a list (of texts, of descriptors).

    Raises DataError for rows that cannot be read; Unreadable if it knows which ones these are.
    """
    steps: Callable[[int], list[tuple[str, Any]]]
    """Seed -> the first steps of a scikit-learn pipeline, which turn these entries into numbers."""
    learners: tuple[str, ...]
    """The keys of pipelines.baselines.learners.LEARNERS that are tried on them."""
    learned: bool = False
    """Whether they come from a pretrained network. Its scores are reported apart from those of hand-made features."""
    about: str = ""
    """What they measure and their source, for the report: one sentence."""
    shared: Callable[[], float] = lambda: 0.0
    """Seconds that other feature sets spent on work which these features need, too (decoding the images)."""
    cached: Callable[[], int] = lambda: 0
    """Bytes of decoded rows that are held now, for this and for other feature sets."""
    names: Callable[[Any], Sequence[str]] | None = None
    """The fitted steps (a scikit-learn pipeline; None without steps) -> what each number measures, for people.

    None if no single number says anything to people (one bin of a histogram of edges).
    """
    quotes: bool = False
    """Whether these names are parts of the rows' own texts, which may be private."""
