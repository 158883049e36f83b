"""Labels as data sets write them, as classes or numbers, and whether a model knows them."""

import ast
import logging
import math
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.data.columns import select, values, with_column
from pipelines.data.files import composed
from pipelines.errors import DataError
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from datasets import Dataset

    from pipelines.data.schema import Splits

log = logging.getLogger("graft")


BETWEEN = "|"  # stands between the labels of a row, unless data.label_separator names another sign


def several(label: Any, separator: str = BETWEEN) -> list[str]:
    """The labels of a row that may have several: a list, or text with separators. An empty list if there are none."""
    parts = label if isinstance(label, list) else (label or "").split(separator)
    return [composed(part.strip()) for part in parts if part.strip()]


def labelled(
    rows: "Dataset", many: bool, needed: bool, separator: str = BETWEEN
) -> "tuple[Dataset, list[tuple[str, str]]]":
    """The rows with spaces around labels removed and accents in one form, and the rows (id, why) without a label.

    With `many`, every label becomes a list: text is split at `separator`, and no label is an empty list. Otherwise a
    row without a label is skipped if one is needed, and gets an empty label if not.
    """
    from datasets import List, Value

    found = values(rows, "label")
    lists = any(isinstance(label, list) for label in found)
    if many:
        printed = None if lists else _printed([label for label in found if label and label.strip()])
        cleaned: list[Any] = [several(label if printed is None else printed.get(label), separator) for label in found]
    elif lists:  # the task decides whether it accepts lists
        cleaned = [None if label is None else several(label) for label in found]
    else:
        # numbers of classes are kept if no task reads them
        cleaned = [composed(label.strip()) if isinstance(label, str) else label for label in found]
    lacking = set() if many else {i for i, label in enumerate(cleaned) if label is None or label == ""}
    if lacking:
        cleaned = [([] if lists else "") if i in lacking else label for i, label in enumerate(cleaned)]
    if cleaned != found:
        kind = List(Value("string")) if many or lists else Value("string")
        rows = with_column(rows, "label", cleaned, feature=kind)
    if not needed or not lacking:
        return rows, []
    ids = values(rows, "id")
    kept = select(rows, [i for i in range(len(rows)) if i not in lacking])
    return kept, [(ids[i], f"{ids[i]}: label is empty") for i in sorted(lacking)]


_ON = {"1", "true", "yes", "y", "t", "x"}
_OFF = {"0", "false", "no", "n", "f", "", "none"}


def from_columns(rows: "Dataset", columns: Sequence[str], many: bool) -> "tuple[Dataset, list[tuple[str, str]]]":
    """The rows with `label` from one column of 0 or 1 for each label, and the rows (id, why) that have no such values.

    With `many` a label is a list. Otherwise a row has one label exactly.
    """
    from datasets import List, Value

    found: list[Any] = []
    skipped: list[tuple[str, str]] = []
    kept: list[int] = []
    cells = [rows[column][:] for column in columns]
    for number, (id_, *row) in enumerate(zip(rows["id"][:], *cells, strict=True)):
        odd = next((place for place, cell in enumerate(row) if _flag(cell) is None), None)
        have = [column for column, cell in zip(columns, row, strict=True) if _flag(cell)]
        if odd is not None:
            skipped.append((id_, f"{id_}: {columns[odd]} holds {short(repr(row[odd]), 40)}, and not 0 or 1"))
        elif not many and len(have) != 1:
            several_ = f"{len(have)} labels ({', '.join(have)})" if have else "no label"
            skipped.append((id_, f"{id_}: {several_}, and one is wanted; options.multi_label=true allows any number"))
        else:
            kept.append(number)
            found.append(have if many else have[0])
    kind = List(Value("string")) if many else Value("string")
    rows = rows.remove_columns([column for column in columns if column in rows.column_names])
    return rows.select(kept).add_column("label", found, feature=kind), skipped


def _flag(cell: Any) -> bool | None:
    """Whether a cell says yes; None if it says neither yes nor no."""
    text = re.sub(r"^([01])\.0+$", r"\1", str(cell).strip().lower())
    return True if text in _ON else False if text in _OFF or text == "nan" else None


def like_flags(rows: Iterable[tuple[str, dict[Any, Any]]], columns: Sequence[str]) -> list[str]:
    """The columns that hold 0 and 1 alone, as columns of labels do; empty if there are less than two."""
    found = list(columns)
    for _, row in rows:
        found = [name for name in found if str(row.get(name)).strip() in ("0", "1", "0.0", "1.0")]
        if len(found) < 2:
            return []
    return found


def lost(labels: Iterable[tuple[str, Any]], skipped: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The labels of the `skipped` rows (id, why) -> why the first row with this label is skipped.

    `labels` holds (id, label) of all rows.
    """
    found: dict[str, str] = {}
    whys = dict(skipped)
    for id_, label in labels if whys else ():
        number = isinstance(label, (int, float)) and label == label  # not NaN, which is an empty cell
        name = str(label).strip() if number or isinstance(label, str) else ""
        if name and id_ in whys:
            found.setdefault(name, whys[id_])
    return found


def check_lost(found: dict[str, str], rows: "Dataset", source: str) -> None:
    """Raise DataError for a class of which every training row is skipped, because the model would never learn it."""
    have = {label for label in values(rows, "label") if isinstance(label, str)}
    gone = [label for label in found if label not in have]
    if gone:
        more = f" (and none of {len(gone) - 1} more classes)" if gone[1:] else ""
        why = f"no row of the class {short(gone[0])!r} can be used{more}; the first: {found[gone[0]]}"
        raise DataError(f"{source}: {why}")


_ITEM = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+]?\d+(?:\.\d+)?""")
_NOTHING = {"nan", "none", "null", "set()"}  # how programs print a missing list, in any case


def _items(label: str) -> list[str] | None:
    """The items of a list, tuple or set as Python, NumPy or JSON prints it: ['a', 'b'], ['a' 'b'], {"a"}; else None."""
    text = label.strip()
    if text[:1] + text[-1:] not in ("[]", "()", "{}") or _ITEM.sub("", text[1:-1]).strip(", \n"):
        return None
    try:
        return [str(ast.literal_eval(item)) for item in _ITEM.findall(text[1:-1])]
    except (ValueError, SyntaxError):
        return None


def _printed(labels: Sequence[str]) -> dict[str, list[str]] | None:
    """Label -> its items, if most labels are printed lists; else None. Any other label is the only one of its row."""
    found = {label: _items(label) for label in dict.fromkeys(labels)}
    lists = [label for label in labels if found[label] is not None]
    if len(lists) * 2 <= len(labels):
        return None
    log.warning("labels are printed lists (%s): they are read as several labels each", short(max(lists, key=len), 60))
    others = {label: [] if label.strip().lower() in _NOTHING else [label] for label in labels}
    return {label: others[label] if items is None else items for label, items in found.items()}


_SIGNS = {",": "commas", ";": "semicolons", "\t": "tabs", "/": "slashes", "+": "pluses", "&": "&s", " ": "blanks"}


def warn_joined(rows: Sequence[Sequence[str]], source: str) -> None:
    """Warn if no row has two labels, and some look like several labels joined by another sign than `|`."""
    if any(len(row) > 1 for row in rows):
        return
    labels = Counter(label for row in rows for label in row)
    for sign, name in _SIGNS.items():
        parted = {label: [part.strip() for part in label.split(sign) if part.strip()] for label in labels}
        parts = Counter(part for found in parted.values() for part in set(found))
        # a comma between words is enough; other signs may be part of a name, unless its parts are labels too
        long = [label for label, found in parted.items() if len(found) > 1]
        joined = next((label for label in long if sign in ",;" or any(parts[part] > 1 for part in parted[label])), None)
        if joined is not None:
            log.warning(
                "%s: no row has two labels, though several are asked for, and %r looks like %d labels with %s between "
                "them: set data.label_separator=%s if they are",
                source,
                joined,
                len(parted[joined]),
                name,
                f"'{sign}'" if sign not in "/+" else sign,
            )
            return


def alike(label: str) -> str:
    """A form that is equal for labels that people read as the same: case, spaces, forms of accents, and 1.0 for 1."""
    text = unicodedata.normalize("NFKC", "".join(c for c in label if unicodedata.category(c) != "Cf"))
    plain = " ".join(unicodedata.normalize("NFKC", text.casefold()).split())
    return re.sub(r"^(-?\d+)\.0+$", r"\1", plain)


def warn_alike(labels: Sequence[str], source: str) -> None:
    """Warn of classes whose names look the same or nearly the same."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(alike(label), []).append(label)
    near = []
    for group in groups.values():
        if len(group) > 1:
            seen = {unicodedata.normalize("NFC", label) for label in group}
            show = repr if len(seen) == len(group) else ascii  # for names that print in the same way
            near.append(", ".join(map(show, group)))
    if near:
        shown = "; ".join(near[:3]) + (f"; and {len(near) - 3} more" if len(near) > 3 else "")
        what = "classes that differ in case, blanks, accents' spelling or zeros only"
        log.warning("%s: %s: %s; spell a class in one way if these are one", source, what, shown)


def check_known(found: set[str], classes: Sequence[str]) -> None:
    """Warn of labels that the model does not know. Raises DataError if it knows none of them."""
    unknown = sorted(found - set(classes))
    some = ", ".join(unknown[:5])
    if unknown and len(unknown) == len(found):
        known = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        raise DataError(f"the model knows none of the classes of these data ({some}): it knows {known}")
    if unknown:
        log.warning(
            "the model does not know %d of %d classes (%s): their rows count as errors", len(unknown), len(found), some
        )


# ---- numbers ----


def number(label: Any) -> float:
    """The number in a label. Raises DataError if it is not a finite number."""
    try:
        value = float(label)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        comma = ", with a decimal point" if isinstance(label, str) and _COMMA.fullmatch(label) else ""
        raise DataError(f"label is no number: {short(repr(label), 60)} (options.regression wants one per row{comma})")
    return value


_COMMA = re.compile(r"\s*[-+]?(?:\d{1,3}(?:\.\d{3})+|\d*),\d+\s*")  # 3,5 or 1.234,5


def decimal_points(rows: "Dataset", source: str) -> "Dataset":
    """Convert labels with a decimal comma, 3,5 to 3.5, in a table that does not separate its cells by commas."""
    labels = values(rows, "label")

    def point(label: Any) -> Any:
        comma = isinstance(label, str) and _COMMA.fullmatch(label)
        return label.replace(".", "").replace(",", ".") if comma else label

    converted = list(map(point, labels))
    changed = next(((old, new) for old, new in zip(labels, converted, strict=True) if old != new), None)
    if changed is None:
        return rows
    log.warning("%s: labels have a decimal comma: %s is read as %s", source, *changed)
    return with_column(rows, "label", converted)


def check_numbers(labels: Sequence[float], source: str) -> None:
    """Raise DataError if all labels are equal. Warn of a spread that does not suit usual learning rates."""
    spread = statistics.pstdev(labels)
    if spread == 0:
        raise DataError(f"{source}: every label of train is {labels[0]:g}: there is nothing to learn")
    if not 0.05 < spread < 20:
        middle = statistics.fmean(labels)
        log.warning(
            "the labels spread by %.3g around %.3g: training goes best where they spread by about 1", spread, middle
        )


def label_names(
    splits: "dict[str, Dataset]", known: list[str] | None, source: str, vocabulary: bool = False
) -> list[str]:
    """The classes in the data set's own order, or sorted (numbers by value).

    Raises DataError for a class that is not in train. If `known` is a published vocabulary, its classes are all taken.
    """
    seen = {name: _labels_of(rows) for name, rows in splits.items()}
    if vocabulary and known is not None:
        lacking = sum(label not in seen["train"] for label in known)
        if lacking:
            log.warning("%s: no row of train has %d of the %d classes of the vocabulary", source, lacking, len(known))
        return known
    for name in ("validation", "test"):
        extra = sorted(seen[name] - seen["train"])
        if extra:
            others = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
            near = next((label for label in sorted(seen["train"]) if alike(label) == alike(extra[0])), None)
            others += "" if near is None else f" (train has {near!r}: spell it in one way)"
            raise DataError(
                f"{source}: class {extra[0]!r}{others} occurs in {name} but not in train: "
                "add training rows, or take it out"
            )
    if known is not None:
        unseen = [label for label in known if label not in seen["train"]]
        if unseen:
            log.warning(
                "%s: no row of train has the class %s%s: the model does not learn it",
                source,
                short(repr(unseen[0]), 60),
                f", nor {len(unseen) - 1} more that the data name" if len(unseen) > 1 else "",
            )
        return [label for label in known if label in seen["train"]]
    return sorted(
        seen["train"], key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label)
    )


def _labels_of(rows: "Dataset") -> set[str]:
    found: set[str] = set()
    for label in values(rows, "label"):
        found.update(label if isinstance(label, list) else [label])
    return found


def names(splits: "Splits", multi_label: bool) -> list[str]:
    """The classes of a data set, at least two. Raises DataError."""
    if not multi_label and any(isinstance(label, list) for label in splits.train[:1]["label"]):
        raise DataError(
            f"{splits.name}: the label column holds lists: set options.multi_label=true, or give one label per row"
        )
    labels = splits.labels or []
    if multi_label and not splits.vocabulary:
        labels = sorted(
            {
                part
                for name in ("train", "validation", "test")
                for label in values(splits[name], "label")
                for part in several(label)
            }
        )
    if len(labels) < 2:
        raise DataError(
            f"{splits.name}: {len(labels)} class found ({', '.join(labels)}): classification needs at least two"
        )
    return labels


def balanced(labels: Sequence[str], classes: Sequence[str]) -> dict[str, float]:
    """Class weights that give all classes the same total weight: rows / (classes * rows of the class)."""
    n = dict.fromkeys(classes, 0)
    for label in labels:
        n[label] += 1
    return {label: len(labels) / (len(n) * max(count, 1)) for label, count in n.items()}


def labels_in_proportion(labels: Sequence[str], count: int) -> list[str]:
    """`count` labels in the proportions of `labels`, interleaved, the most frequent first (Sainte-Lague's method)."""
    given = dict.fromkeys(sorted(set(labels)), 0)
    there = Counter(labels)
    found = []
    for _ in range(count):
        found.append(max(given, key=lambda label: there[label] / (2 * given[label] + 1)))
        given[found[-1]] += 1
    return found
