"""Numbers and names as people read them, in one form for figures, report and card."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_METRICS = {
    "ece": "Calibration error (ECE)",
    "f1_macro": "F1, mean over classes",
    "f1_micro": "F1, over all decisions",
    "map": "Mean average precision",
    "top_5_accuracy": "Top-5 accuracy",
    "subset_accuracy": "Rows right in every label",
    "exact_match": "Exact match",
    "f1": "F1",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP, small things",
    "ap_medium": "AP, medium things",
    "ap_large": "AP, large things",
    "ar1": "AR1",
    "ar10": "AR10",
    "ar100": "AR100",
    "ar_small": "AR, small things",
    "ar_medium": "AR, medium things",
    "ar_large": "AR, large things",
    "count_error": "Error of the count",
    "wer": "Word error rate",
    "cer": "Character error rate",
    "iou": "IoU",
    "mean_iou": "Mean IoU",
    "frequency_weighted_iou": "IoU, weighted by pixels",
    "dice": "Dice, all images together",
    "dice_per_image": "Dice, mean over images",
    "boundary_f1": "F1 of boundaries",
    "foreground_iou": "IoU of the foreground",
    "foreground_dice": "Dice of the foreground",
    "foreground_precision": "Precision of the foreground",
    "foreground_recall": "Recall of the foreground",
    "object_precision": "Precision of objects",
    "object_recall": "Recall of objects",
    "object_f1": "F1 of objects",
    "fid": "FID",
    "kid": "KID",
    "mcc": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mse": "Mean squared error",
    "clip_score": "CLIP score",
    "gap": "GAP",
    "hit_at_1": "Hit@1",
    "perr": "PERR",
    "mel_cepstral_distortion": "Mel-cepstral distortion, dB",
    "log_mel_distance": "Log-mel distance, dB",
    "duration_ratio": "Duration, times the real one",
    "dnsmos": "DNSMOS, overall",
    "dnsmos_signal": "DNSMOS, speech",
    "dnsmos_background": "DNSMOS, background",
}


def readable_name(name: str) -> str:
    """The name of a metric in words: balanced_accuracy -> Balanced accuracy."""
    words = name.replace("_", " ")
    return _METRICS.get(name, words[:1].upper() + words[1:])


def short(text: str, length: int = 24) -> str:
    """The text as one printable line of at most `length` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def printable(text: str, keep: str = "") -> str:
    """The text without characters that a terminal would obey, other than those of `keep`."""
    return "".join(letter if letter.isprintable() or letter in keep else "�" for letter in text)


def number(value: float | None) -> str:
    """1234 -> 1,234; 0.97312 -> 0.973; 0.00005 -> 5.00e-05; None -> a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def brief(value: float) -> str:
    """A setting in few characters: 0.003 -> 3e-3; 0.25 -> 0.25; 64 -> 64."""
    if value == 0 or abs(value) >= 0.01:
        return f"{value:g}".replace("e+", "e").replace("e0", "e")
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def setting(value: object) -> str:
    """The value of a setting: 0.0005 -> 0.0005; 20241129 -> 20241129, because an integer keeps all its digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def decimals(bounds: Sequence[float] | None) -> int | None:
    """The number of decimals of a score that its 95 % interval warrants; None if there is no interval.

    It is the place of the first digit of half the interval's width, because later digits are noise: [0.95, 1.0] ->
    0.025 -> 2. A measured value is rounded as its uncertainty is (JCGM 100:2008, 7.2.6).
    """
    if bounds is None or not all(math.isfinite(bound) for bound in bounds):
        return None
    half = (bounds[1] - bounds[0]) / 2
    return min(max(0, -math.floor(math.log10(half) + 1e-9)), 6) if half > 0 else None


def score(value: float | None, bounds: Sequence[float] | None, sign: str = "") -> str:
    """A score with the digits that an interval warrants: 0.983 and [0.95, 1.0] -> 0.98. Without one, as `number`."""
    places = decimals(bounds)
    if value is None or not math.isfinite(value):
        return number(value)
    if places is None:
        return ("+" if sign and value >= 0 else "") + number(value)
    return f"{value:{sign},.{places}f}"


def score_in_words(value: float | None, bounds: Sequence[float] | None, sign: str = "") -> str:
    """As `score`, for a terminal: a score that is not defined is called so."""
    return "undefined" if value is None or not math.isfinite(value) else score(value, bounds, sign)


def interval(bounds: Sequence[float] | None, sign: str = "") -> str:
    """[0.951, 1.0] -> 0.95 to 1.00; None -> a dash."""
    if bounds is None:
        return "–"
    return f"{score(bounds[0], bounds, sign)} to {score(bounds[1], bounds, sign)}"


def of_rows(value: float | None, rows: int) -> str:
    """A mean over so many rows, which has no interval of its own: with the digits that so few rows warrant at most.

    Two decimals (three from 9,604 rows, where the widest interval of a fraction warrants them), one from 2 upwards.
    """
    if value is None or isinstance(value, int) or not math.isfinite(value):
        return number(value)
    half = 0.98 / math.sqrt(max(rows, 1))
    return f"{value:,.1f}" if abs(value) >= 2 else f"{value:.{max(2, decimals([0, 2 * half]) or 0)}f}"


def epochs(count: float) -> str:
    """9.2308 -> 9; 1.52 -> 1.5; 0.2541 -> 0.25."""
    return f"{count:,.0f}" if count >= 3 else f"{count:.2g}"


def resampled(section: Mapping[str, Any]) -> str:
    """Sentences that explain how the intervals of a section of results.json (n, groups, interval) were computed."""
    n, groups, how = section["n"], section["groups"], section["interval"]
    units = f"{n:,} rows" if groups is None else f"{groups:,} groups of rows"
    if how["resamples"] is None:  # results of older versions do not record the number
        return "The interval is a bootstrap over the test rows."
    if how["resamples"] == 0:
        only = "one row" if groups is None else f"one group of rows ({how['unit']})"
        return f"There are no intervals: {only} cannot be resampled."
    why = "" if groups is None else f" (rows of the same {how['unit']} belong together)"
    text = f"The intervals are from {how['resamples']:,} resamples of the {units}{why}."
    if how["exact"]:
        names = ", ".join(readable_name(name) for name in how["exact"])
        text += f" {names}: all right or all wrong, so the interval is the exact binomial one of {units}."
    return text


def utc(seconds: float) -> str:
    """A time.time() as 2026-11-29T21:15:19Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """75 -> 1 min 15 s."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 and not isinstance(seconds, int) else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def large(count: float) -> str:
    """85800194 -> 85.8 M; 41.03 -> 41."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g}"
