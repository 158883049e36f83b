"""Whether what belongs together stands in one split only: the rows of a group, of one file, and rows with equal content."""

import functools
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.data.media import file_columns, paths
from pipelines.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("graft")

CONTENT = "_content"  # the column of `with_contents`, while splits are cut
PART = ("start", "end", "offset", "duration")  # columns that say which part of a recording a row is


def with_files(rows: "Dataset") -> "Dataset":
    """Where a file has several rows, as an image has with several captions: with a column `file`, the id of the file's first row."""
    firsts: dict[str, str] = {}
    ids, files = rows["id"][:], paths(rows)
    column = [
        firsts.setdefault(file, id_) if file and os.path.isfile(file) else id_
        for id_, file in zip(ids, files, strict=True)
    ]
    return rows if column == list(ids) or "file" in rows.column_names else rows.add_column("file", column)


def groups_of(rows: "Dataset", group: str) -> list[str | None]:
    """The value of every row in the group column, as text without blanks around it; None where there is none."""
    found = [" ".join(str(value).split()) if value is not None else "" for value in rows[group][:]]
    return [None if value in ("", "None") else value for value in found]


def check_groups(section: DataSection, splits: "dict[str, Dataset]", group: str) -> None:
    """Raises DataError where a value of the group column stands in two splits, as a data set's own splits may have it."""
    found = {name: set(groups_of(rows, group)) - {None} for name, rows in splits.items() if group in rows.column_names}
    for one, other in combinations(found, 2):
        both = sorted(str(value) for value in found[one] & found[other])
        if both:
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            raise DataError(
                f"{section.id}: {group} {both[0]!r}{more} in {one} and in {other} too, which makes scores too good: "
                "take such rows out of one, or accept it with data.group=none"
            )


def check_files(section: DataSection, splits: "dict[str, Dataset]") -> None:
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


def warn_of_speakers(section: DataSection, rows: "Dataset", group: str, cut: list[str]) -> None:
    """Recordings are cut one by one where no column says who speaks: a speaker of train is then in test, too."""
    if cut and "audio" in rows.column_names:
        log.warning(
            "%s: no column %r, so %s may share speakers with train, which makes scores too good: name the column that says who speaks "
            "with data.group=NAME, or accept it with data.group=none",
            section.id,
            group,
            " and ".join(cut),
        )


# ---- rows with equal content ----


def with_contents(rows: "Dataset", columns: Sequence[str]) -> "Dataset":
    """The rows with a column CONTENT: 32 hex digits, equal where all of `columns` hold the same.

    Texts are equal when their words are: blanks between and around them do not count. Images and recordings are equal when
    their files are, byte by byte; files are read in threads. A row of which nothing can be read, or whose texts are all
    empty, equals no other.
    """
    have = [name for name in columns if name in rows.column_names]
    if len(rows) == 0 or not have:
        return rows
    files = set(file_columns(rows))
    also = [name for name in PART if name in rows.column_names] if set(have) & files else []
    digests: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        for batch in rows.select_columns(list(dict.fromkeys(["id", *have, *also]))).iter(256):
            values = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
            digests += pool.map(lambda row: _digest(row, have, files, also), values)
    return rows.add_column(CONTENT, digests)


def contents(rows: "Dataset", columns: Sequence[str]) -> list[str]:
    """The column CONTENT alone."""
    found = with_contents(rows, columns)
    return list(found[CONTENT][:]) if CONTENT in found.column_names else []


def _digest(row: dict[str, Any], columns: Sequence[str], files: set[str], also: Sequence[str]) -> str:
    """Of what the row holds: an empty column counts as one that is not there."""
    digest = hashlib.blake2b(digest_size=16)
    empty = True
    for name in columns:
        value = row[name]
        part = (
            _bytes(value)
            if name in files
            else " ".join(str(value).split()).encode("utf-8", "surrogatepass")
            if value
            else b""
        )
        if part:
            empty = False
            digest.update(len(part).to_bytes(8, "big") + part)
    if empty:
        return hashlib.blake2b(f"row {row['id']}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    for name in also:
        if row[name] is not None:
            digest.update(f"{name}={row[name]}".encode())
    return digest.hexdigest()


def _bytes(value: Any) -> bytes:
    """A digest of what a file holds; nothing where it cannot be read, which is reported when the row is used."""
    if not isinstance(value, dict):
        return b""
    if value.get("bytes") is not None:
        return hashlib.blake2b(value["bytes"]).digest()
    path = value.get("path")
    try:
        status = os.stat(path) if path else None
    except (OSError, ValueError):
        return b""
    return _of_file(path, status.st_size, status.st_mtime_ns) if status is not None and S_ISREG(status.st_mode) else b""


@functools.lru_cache(maxsize=1_000_000)
def _of_file(path: str, size: int, changed: int) -> bytes:
    """Kept, because many rows may name one file, and several splits and scores of a process the same files."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError:
        return b""


def overlap(contents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Where it is not 0, how many rows of validation have the content of a row of train, and of test of train or validation."""
    counts = {}
    for name, others in (("validation", ("train",)), ("test", ("train", "validation"))):
        seen = {content for other in others for content in contents.get(other, ())}
        counts[name] = sum(content in seen for content in contents.get(name, ()))
    return {name: count for name, count in counts.items() if count}
