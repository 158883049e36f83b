"""What decides for a classical learner: words or features in a list, and for images a map beside the network's.

    explain(features, learned, fitted, labels, maps)              the part `explanation` of results.json: baselines
    beside(task, model, features, learned, fitted, rows, ...)     some test rows with both maps, for a figure

Lists come from what the learner itself holds: the coefficients of a linear one (its features are standardised, or have
the size of TF-IDF, so coefficients can be compared), or the importances of a forest.

The map of an image is that of the network: windows are hidden one after the other, in the same photo, for both.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.baselines import learners
from pipelines.baselines.features import FeatureSet
from pipelines.baselines.learners import Fitted, LearnedSteps, OnePerLabel
from pipelines.plots.baselines import Beside
from pipelines.task import Record
from pipelines.utils.formatting import printable, short

if TYPE_CHECKING:
    from torch import Tensor, nn

LISTED = 10  # features of each class, on each side
CLASSES = 50  # classes in the list, those with the most training rows
FEATURES = 15  # features of a learner that has one list for all classes
LONGEST = 40  # characters of a feature's name
ROWS = 6  # test rows in the figure
BUDGET = 20.0  # seconds; rows that would begin later are left out (SIFT takes a fifth of a second for each image)

COEFFICIENTS = (
    "The {what} with the largest coefficients: how much the score of the class rises, or falls, with each of them."
)
COEFFICIENTS_OF_NUMBER = "The {what} with the largest coefficients: how much the predicted number rises, or falls."
IMPORTANCES = (
    "The features that the trees of the forest use most: the share of all that their splits gain (Breiman 2001). It "
    "does not say for which class."
)
MAPS = (
    "The figure shows a few test rows. A window of each photo is blurred, one after the other, and the map shows how "
    "much the score of the given answer falls (Zeiler and Fergus 2014), by the same windows for the learner and for "
    "the network. Orange: this part supports the answer. Blue: it speaks against it. The strongest part of each map "
    "has the full colour. An answer in orange is wrong."
)


# ---- lists ----


def explain(
    features: FeatureSet,
    learned: LearnedSteps,
    fitted: Fitted,
    labels: Sequence[str],
    maps: Sequence[Beside] = (),
) -> dict[str, Any] | None:
    """{learner, about, content, answers, features, maps} of a fitted learner; None if there is nothing to show.

    `answers` holds {answer, for, against}, lists of [name, coefficient], strongest first; that of a regression is
    None. `features` holds [name, importance]. One of the two is empty, and both are if the features have no names.
    `content` says whether the names are parts of the rows. The text `maps` explains the figure, if there are any in it.
    """
    found = _listed(features, learned, fitted, labels)
    found["maps"] = MAPS if maps else ""
    return found if found["about"] or found["maps"] else None


def _listed(
    features: FeatureSet,
    learned: LearnedSteps,
    fitted: Fitted,
    labels: Sequence[str],
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "learner": f"{features.name} + {fitted.learner.name}",
        "about": "",
        "content": features.quotes,
        "answers": [],
        "features": [],
        "maps": "",
    }
    if features.names is None:
        return found
    names = [readable(name) for name in features.names(learned.pipeline)]
    weights = _coefficients(fitted)
    if weights is not None:
        about = COEFFICIENTS_OF_NUMBER if fitted.kind == "number" else COEFFICIENTS
        what = "words or parts of words" if features.quotes else "features"
        return found | {"about": about.format(what=what), "answers": _by_class(weights, names, fitted, labels)}
    importances = _importances(fitted)
    if importances is None:
        return found
    best = np.argsort(-importances, kind="stable")[:FEATURES]
    listed = [[names[place], float(importances[place])] for place in best if importances[place] > 0]
    return found | {"about": IMPORTANCES, "features": listed} if listed else found


def readable(name: str) -> str:
    """A name as one printable line. Spaces at the ends of a part of a word are made visible."""
    if not name:  # pipelines.baselines.texts.NOTHING
        return "(no word)"
    visible = name if name == name.strip() else name.replace(" ", "␣")
    return short(printable(visible), LONGEST)


def _by_class(weights: np.ndarray, names: Sequence[str], fitted: Fitted, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The strongest coefficients; `weights` is [labels, features], or [1, features] for a number."""
    if fitted.kind == "number":
        shown: list[tuple[int, str | None]] = [(0, None)]
    else:
        most = sorted(range(len(labels)), key=lambda place: -int(fitted.rows[place]))[:CLASSES]
        shown = [(place, labels[place]) for place in sorted(most) if fitted.rows[place]]
    found = []
    for place, label in shown:
        order = np.argsort(weights[place], kind="stable")
        sides = {"for": [one for one in order[::-1][:LISTED] if weights[place, one] > 0]}
        sides["against"] = [one for one in order[:LISTED] if weights[place, one] < 0]
        listed = {side: [[names[one], float(weights[place, one])] for one in ones] for side, ones in sides.items()}
        found.append({"answer": label, **listed})
    return found


def _coefficients(fitted: Fitted) -> np.ndarray | None:
    """[labels, features], or [1, features] for a number; 0 for a label without training rows. None: it has none."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.svm import LinearSVC

    linear = (LogisticRegression, LinearSVC, Ridge)
    estimator = fitted.estimator
    if isinstance(estimator, Ridge):
        return np.atleast_2d(estimator.coef_)
    if isinstance(estimator, linear):
        own = np.asarray(estimator.coef_)
        own = np.concatenate([-own, own]) if len(own) == 1 else own
        full = np.zeros((len(fitted.rows), own.shape[1]))
        full[fitted.rows > 0] = own
        return full
    if isinstance(estimator, OnePerLabel):  # a label that all training rows have, or none, has no coefficients
        full = np.zeros((len(fitted.rows), len(estimator.coefficients)))
        full[estimator.varied] = estimator.coefficients.T
        return full
    return None


def _importances(fitted: Fitted) -> np.ndarray | None:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    if isinstance(fitted.estimator, (RandomForestClassifier, RandomForestRegressor)):
        return np.asarray(fitted.estimator.feature_importances_)
    return None


# ---- maps of images ----


def beside(
    task: Any,
    model: "nn.Module",
    features: FeatureSet,
    learned: LearnedSteps,
    fitted: Fitted,
    rows: Any,
    network: Sequence[Record],
    classical: Sequence[Record],
) -> list[Beside]:
    """A few test rows of an image classifier, with the maps of the classical learner and of the network.

    `rows` are the test rows (a Dataset); `network` and `classical` are their records, in any order. Each map is of the
    answer that was given. With several labels per row, both are of the first true one. The model must be in eval mode.
    """
    import torch
    from PIL import Image

    from pipelines.baselines.images import small
    from pipelines.models import attribution

    ours, theirs = ({record["id"]: record for record in records} for records in (network, classical))
    labels, kind, found = list(task.labels), fitted.kind, []
    began, numbered = time.perf_counter(), itertools.count()
    for row in (rows[place] for place in chosen([str(one) for one in rows["id"]], ours, theirs)):
        if time.perf_counter() - began > BUDGET:
            break
        name = row["id"]
        photo = small(row, task.options.white)
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255
        read = task.parts(model, {"image": Image.fromarray(photo)})

        def by_learner(photos: "Tensor", name: str = name) -> "Tensor":
            hidden = [{"id": f"{name}, {next(numbered)} hidden", "image": one} for one in _pictures(photos)]
            numbers = learned.of(features.read(hidden), [one["id"] for one in hidden])
            return torch.from_numpy(learners.logits(fitted, numbers))

        def by_network(photos: "Tensor", read: Any = read) -> "Tensor":
            examples = task.prepare([{"image": one} for one in _pictures(photos)])
            answer: Tensor = read.logits(torch.stack([one["pixels"] for one in examples]).to(read.inputs.device)).cpu()
            return answer

        told = [in_words(record[name], labels, kind) for record in (theirs, ours)]
        maps = [
            attribution.map_of(attribution.of_image(pixels, logits), "occlusion", kind, number=number).values
            for logits, (_, _, number) in zip((by_learner, by_network), told, strict=True)
        ]
        found.append(Beside(photo, told[0][0], (told[0][1], told[1][1]), (maps[0], maps[1])))
    return found


def _pictures(photos: "Tensor") -> list[Any]:
    """Floats [n, 3, height, width] from 0 to 1 -> PIL images."""
    from PIL import Image

    pixels = (photos.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one) for one in pixels]


def in_words(record: Record, labels: Sequence[str], kind: str) -> tuple[str, str, int]:
    """The true class, the answer in words, and the number of the class whose map is drawn."""
    if kind == "class":
        return str(record["true"]), str(record["predicted"]), labels.index(record["predicted"])
    shown = next((label for label in (*record["true"], *record["predicted"]) if label in labels), labels[0])
    true, answer = (shown if shown in record[key] else f"not {shown}" for key in ("true", "predicted"))
    return true, answer, labels.index(shown)


def chosen(ids: Sequence[str], network: Mapping[str, Record], classical: Mapping[str, Record]) -> list[int]:
    """The places of ROWS test rows: first those that one of the two has wrong, by turns with those of both kinds."""
    groups: dict[tuple[bool, bool], list[int]] = {}
    for place, name in enumerate(ids):
        if name in network and name in classical:
            right = tuple(of[name]["true"] == of[name]["predicted"] for of in (network, classical))
            groups.setdefault((right[0], right[1]), []).append(place)
    order = [groups[key] for key in ((True, False), (True, True), (False, True), (False, False)) if key in groups]
    found = []
    for turn in range(ROWS):
        found += [group[turn] for group in order if turn < len(group)]
    return found[:ROWS]
