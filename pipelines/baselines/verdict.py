"""Whether the network is worth it on this data: the rule, and the one sentence that says so.

The rule looks at the paired difference between the network and the hand-made features that did best on validation, on
the same test rows and in the headline metric:

- worth it: the whole 95 % interval is on the network's side of 0, and so is that of the difference to the simplest
  answer (the majority class, or the mean).
- not worth it: the whole interval of one of these two differences is on the other side of 0.
- not shown: everything else. These rows are too few to tell, or the two are alike.

Learners on the features of a pretrained network take no part: they are deep learning too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pipelines.reporting.pages import in_a_sentence
from pipelines.utils.formatting import decimals, number

Kind = Literal["worth it", "not shown", "not worth it"]
# The units (rows or groups) that must all agree. The sign test (two-sided) gives 0.06 for five of five, 0.03 for six.
LEAST = 6
OPENING: dict[Kind, str] = {
    "worth it": "The network is worth it here",
    "not shown": "It is not shown that the network is worth it here",
    "not worth it": "The network is not worth it here",
}


class Verdict(NamedTuple):
    kind: Kind
    sentence: str


def verdict(found: Mapping[str, Any]) -> Verdict:
    """The rule, applied to the section `baselines` of results.json, which needs no `verdict` yet."""
    units = _units(found)
    by_name = {learner["name"]: learner for learner in found["learners"]}
    simplest = next((learner for learner in found["learners"] if learner["kind"] == "majority"), None)
    best = by_name.get(found["best"])
    sign = 1 if found["metric"]["direction"] == "max" else -1
    gain = None if simplest is None else _gain(simplest, sign)
    beaten = 0 if simplest is None else _side(simplest, sign, units)
    if simplest is not None and beaten < 0:
        return _said("not worth it", found, simplest, "the simplest answer")
    side = 0 if best is None else _side(best, sign, units)
    # hand-made features may do worse than the simplest answer, which the network must beat, too
    if simplest is not None and gain is not None and beaten == 0 and (side > 0 or (side == 0 and gain <= 0)):
        return _said("not shown", found, simplest, "the simplest answer")
    if best is None:
        return _without_features(found, simplest)
    kinds: dict[int, Kind] = {1: "worth it", 0: "not shown", -1: "not worth it"}
    return _said(kinds[side], found, best, "the best hand-made features")


def _gain(learner: Mapping[str, Any], sign: int) -> float | None:
    """How much better the network is, positive in both directions of the metric; None if a score is undefined."""
    value = learner["difference"]["value"]
    return sign * value if value is not None and math.isfinite(value) else None


def _units(found: Mapping[str, Any]) -> int:
    """How many units were resampled: rows, or groups of rows; 0 if nothing could be."""
    return int(found["interval"].get("units", found["rows"]["test"])) if found["interval"]["resamples"] else 0


def _side(learner: Mapping[str, Any], sign: int, units: int) -> int:
    """1 if the network is surely better, -1 if it is surely worse, else 0.

    An interval that is None has two reasons: nothing could be resampled, which shows nothing, or every resample gives
    the same difference. That decides if there are at least LEAST units.
    """
    gain, bounds = _gain(learner, sign), learner["difference"]["ci95"]
    if gain is None or (bounds is None and units < LEAST):
        return 0
    low, high = (gain, gain) if bounds is None else sorted(sign * bound for bound in bounds)
    return 1 if low > 0 else -1 if high < 0 else 0


# ---- the sentence ----


def _said(kind: Kind, found: Mapping[str, Any], learner: Mapping[str, Any], what: str) -> Verdict:
    """The sentence about the network and one learner, in the words of the metric: higher is not always better."""
    metric, difference = found["metric"]["name"], learner["difference"]
    value, bounds = difference["value"], difference["ci95"]
    score = learner["metrics"].get(metric)
    beside = f"{what} ({learner['name']}, {_rounded(score, learner['ci95'].get(metric))})"
    name = in_a_sentence(metric) + ("," if "," in in_a_sentence(metric) else "")
    rows = f"{found['rows']['test']:,} test row{'s' * (found['rows']['test'] != 1)}"
    on = f"on the same {rows}"
    if value is None or not math.isfinite(value):
        return Verdict(kind, f"{OPENING[kind]}: {name} cannot be compared with {beside} {on}, it is undefined there.")
    if value == 0:
        clause = f"{name} is the same as with {beside} {on}"
    else:
        higher = "higher" if value > 0 else "lower"
        clause = f"{name} is {_rounded(abs(value), bounds)} {higher}{{range}} than with {beside} {on}"
    if bounds is None:
        units = _units(found)
        why = " (in every resample)" if units and value != 0 else ""
        few = (
            "they are too few to tell"
            if found["interval"]["unit"] == "rows"
            else f"their {units} groups are too few to tell"
        )
        end = "; they are too few for an interval" if not units else f"; {few}" if units < LEAST and value != 0 else ""
        return Verdict(kind, f"{OPENING[kind]}: {clause.format(range=why)}{end}.")
    if bounds[0] > 0 or bounds[1] < 0:  # as sizes, because "higher" or "lower" gives the sign
        ends = sorted(abs(bound) for bound in bounds)
        return Verdict(kind, f"{OPENING[kind]}: {clause.format(range=f' (95 % interval {_ends(ends)})')}.")
    return Verdict(
        kind,
        f"{OPENING[kind]}: {clause.format(range='')}, and the 95 % interval of the difference, {_ends(bounds, '+')}, "
        "holds 0.",
    )


def _without_features(found: Mapping[str, Any], simplest: Mapping[str, Any] | None) -> Verdict:
    """Nothing hand-made could be tried: the network beats the simplest answer at most."""
    if simplest is None:
        return Verdict("not shown", f"{OPENING['not shown']}: there is no hand-made feature to compare it with.")
    said = _said("not shown", found, simplest, "the simplest answer").sentence.removesuffix(".")
    return Verdict("not shown", f"{said}, and there is no hand-made feature to compare it with.")


def _places(bounds: Sequence[float]) -> int | None:
    """The decimals that an interval warrants, and as many more as its ends need to differ from 0."""
    places = decimals(bounds)
    if places is None:
        return None
    near = min((abs(bound) for bound in bounds if bound != 0), default=1.0)
    return max(places, min(6, math.ceil(-math.log10(2 * near)))) if round(near, places) == 0 else places


def _rounded(value: float | None, bounds: Sequence[float] | None) -> str:
    places = None if bounds is None else _places(bounds)
    return number(value) if value is None or places is None else f"{value:,.{places}f}"


def _ends(bounds: Sequence[float], sign: str = "") -> str:
    places = _places(bounds)
    return " to ".join(number(bound) if places is None else f"{bound:{sign},.{places}f}" for bound in bounds)
