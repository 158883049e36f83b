"""The section `baselines` of results.json as `graft baseline` writes it, with made-up numbers."""

import json
from pathlib import Path
from typing import Any

from pipelines.baselines.verdict import verdict
from pipelines.plots.baselines import figures
from pipelines.reporting.report import save_figures

RESAMPLES = 1000


def learner(
    name: str,
    kind: str,
    value: float | None,
    difference: float | None,
    ci95: list[float] | None,
    metric: str = "accuracy",
    **more: Any,
) -> dict[str, Any]:
    """One entry of `learners`; its score has an interval of 0.1."""
    features, _, rule = name.partition(" + ")
    return {
        "name": name,
        "features": features,
        "learner": rule or name,
        "kind": kind,
        "settings": {"C": 0.1} if kind == "hand-made" else {"k": 5} if kind == "learned" else {},
        "validation": value,
        "metrics": {metric: value},
        "ci95": {} if value is None else {metric: [value - 0.05, value + 0.05]},
        "difference": {"value": difference, "ci95": ci95},
        "seconds": {"features": 3.1, "search": 2.2, "fit": 0.4},  # the search holds the fit
        "memory_mb": 310.2,
        "parameters": 12345,
        "about": f"What {features} measures." if kind == "hand-made" else "",
        **more,
    }


def section(
    learners: list[dict[str, Any]],
    *,
    network: float = 0.9,
    metric: str = "accuracy",
    direction: str = "max",
    best: str | None = None,
    resamples: int = RESAMPLES,
    units: int = 120,
    **more: Any,
) -> dict[str, Any]:
    """The whole section, with the sentence that the rule gives."""
    of_kind = {kind: [one["name"] for one in learners if one["kind"] == kind] for kind in ("hand-made", "learned")}
    best = best or next(iter(of_kind["hand-made"]), None)
    found = {
        "metric": {"name": metric, "direction": direction},
        "split": "test",
        "rows": {"train": 400, "validation": 50, "test": 120},
        "interval": {"unit": "rows" if units == 120 else "speaker", "units": units, "resamples": resamples},
        "network": {
            "metrics": {metric: network},
            "ci95": {metric: [network - 0.04, network + 0.04]},
            "seconds": 95.0,
            "memory_mb": 1810.0,
            "parameters": 2_225_858,
        },
        "learners": learners,
        "best": best,
        "best_learned": next(iter(of_kind["learned"]), None),
        "curve": [
            {
                "name": one["name"],
                "points": [
                    {
                        "rows": rows,
                        "share": rows / 400,
                        "value": one["metrics"][metric] - lost,
                        "ci95": [one["metrics"][metric] - lost - 0.06, one["metrics"][metric] - lost + 0.06],
                    }
                    for rows, lost in ((40, 0.12), (120, 0.05), (400, 0.0))
                ],
            }
            for one in learners
            if one["name"] in (best, next(iter(of_kind["learned"]), None)) and one["metrics"][metric] is not None
        ],
        "skipped": [{"name": "SIFT words", "why": "row jane_doe.jpg has no keypoints"}],
        "explanation": None,
        "environment": {"graft": "0.1.0"},
        "finished": "2026-11-30T12:00:00Z",
        **more,
    }
    return {**found, "verdict": dict(verdict(found)._asdict())}


def usual(**more: Any) -> dict[str, Any]:
    """Four learners and a network that is worth it."""
    return section(
        [
            learner("majority class", "majority", 0.5, 0.4, [0.31, 0.49]),
            learner("HOG + linear SVM", "hand-made", 0.78, 0.12, [0.05, 0.19]),
            learner("colour histogram + random forest", "hand-made", 0.64, 0.26, [0.17, 0.35]),
            learner("mobilenet features + k nearest neighbours", "learned", 0.89, 0.01, [-0.02, 0.04]),
        ],
        **more,
    )


WORDS: dict[str, Any] = {
    "learner": "TF-IDF of words + logistic regression",
    "content": True,
    "about": "The words with the largest coefficients.",
    "answers": [
        {"answer": "cat", "for": [["whiskers", 2.1], ["purr<b>", 1.9]], "against": [["bark", -1.7]]},
        {"answer": "dog", "for": [["bark", 1.7]], "against": [["whiskers", -2.1]]},
    ],
    "features": [],
    "maps": "The figure shows a few test rows.",
}
STATISTICS: dict[str, Any] = {
    "learner": "MFCC statistics + random forest",
    "content": False,
    "about": "The share of the trees' splits.",
    "answers": [],
    "features": [["mean of MFCC 1", 0.4], ["deviation of MFCC 3", 0.2]],
    "maps": "",
}


def add_baselines(run: Path, found: dict[str, Any]) -> None:
    """Put the section and its figures into a run folder."""
    path = run / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "baselines": found}))
    save_figures(figures(found), run / "figures")
