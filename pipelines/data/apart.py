"""Whether what belongs together stands in one split only: the rows of a group, and the rows of one file."""

import logging
import os
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pipelines.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("graft")

MEDIA = ("image", "audio")  # columns of files


def paths(rows: "Dataset") -> list[str | None]:
    """Of every row the file of its image or recording. A hub data set's rows hold the files' bytes: these are not touched."""
    column = next((name for name in MEDIA if name in rows.column_names), None)
    if column is None:
        return [None] * len(rows)
    flat = rows.select_columns(column).flatten()
    name = f"{column}.path"
    return flat.select_columns(name)[name][:] if name in flat.column_names else [None] * len(rows)


def with_files(rows: "Dataset") -> "Dataset":
    """Where a file has several rows, as an image has with several captions: with a column `file`, the id of the file's first row."""
    firsts: dict[str, str] = {}
    ids, files = rows["id"][:], paths(rows)
    column = [firsts.setdefault(file, id_) if file and os.path.isfile(file) else id_ for id_, file in zip(ids, files, strict=True)]
    return rows if column == list(ids) or "file" in rows.column_names else rows.add_column("file", column)


def check_groups(section: Any, splits: "dict[str, Dataset]", group: str) -> None:
    """Raises DataError where a value of the group column stands in two splits, as a data set's own splits may have it."""
    found = {name: set(map(str, rows[group][:])) - {"", "None"} for name, rows in splits.items() if group in rows.column_names}
    for one, other in combinations(found, 2):
        both = sorted(found[one] & found[other])
        if both:
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            raise DataError(
                f"{section.id}: {group} {both[0]!r}{more} in {one} and in {other} too, which makes scores too good: "
                "take such rows out of one, or accept it with data.group=none"
            )


def check_files(section: Any, splits: "dict[str, Dataset]") -> None:
    """Raises DataError where a file stands in two splits, as in Common Voice's validated.tsv and its test.tsv."""
    found = {name: set(paths(rows)) - {None, ""} for name, rows in splits.items()}
    for one, other in combinations(found, 2):
        # bytes come with a name only, which two splits of the hub may both use
        both = sorted(path for path in found[one] & found[other] if path and os.path.isfile(path))
        if both:
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            raise DataError(
                f"{section.id}: {both[0]}{more} in {one} and in {other} too: a file may be in one split only, "
                f"take such rows out, or name other splits with data.{one} and data.{other}"
            )


def warn_of_speakers(section: Any, rows: "Dataset", group: str, cut: list[str]) -> None:
    """Recordings are cut one by one where no column says who speaks: a speaker of train is then in test, too."""
    if cut and "audio" in rows.column_names:
        log.warning(
            "%s: no column %r, so %s may share speakers with train, which makes scores too good: name the column that says who speaks "
            "with data.group=NAME, or accept it with data.group=none", section.id, group, " and ".join(cut),
        )  # fmt: skip
