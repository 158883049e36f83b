"""Leakage between splits: rows of one group, of one file, or with equal content must be in one split only."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.data import stored
from pipelines.data.columns import batches, distinct, values, with_column
from pipelines.data.file_digests import of_file, of_files
from pipelines.data.media import file_columns, paths
from pipelines.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("graft")

CONTENT = "_content"  # the column that `with_contents` adds, for cutting splits
PART = ("start", "end", "offset", "duration", "page")  # columns that select the part of a recording, or of a TIFF


def with_files(rows: "Dataset") -> "Dataset":
    """Add a column `file` if several rows have the same file, such as an image with several captions.

    It holds the id of the first row with the same file.
    """
    firsts: dict[str, str] = {}
    ids, files = values(rows, "id"), paths(rows)
    column = [
        firsts.setdefault(file, id_) if file and os.path.isfile(file) else id_
        for id_, file in zip(ids, files, strict=True)
    ]
    return rows if column == ids or "file" in rows.column_names else with_column(rows, "file", column)


def groups_of(rows: "Dataset", group: str) -> list[str | None]:
    """The value of every row in the group column, as text without surrounding spaces; None if it is empty."""
    cells, places = distinct(rows, group)
    names = [named(cell) for cell in cells]
    return [names[place] for place in places.tolist()]


def named(value: Any) -> str | None:
    """The name of a group: its cell as text with single blanks; None if it is empty."""
    text = " ".join(str(value).split()) if value is not None else ""
    return None if text in ("", "None") else text


def check_groups(section: DataSection, splits: "dict[str, Dataset]", group: str) -> None:
    """Raise DataError if a value of the group column is in two splits, which may be so in a data set's own splits."""
    found = {
        name: {named(cell) for cell in distinct(rows, group)[0]} - {None}
        for name, rows in splits.items()
        if group in rows.column_names
    }
    for one, other in combinations(found, 2):
        both = sorted(str(value) for value in found[one] & found[other])
        if both:
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            raise DataError(
                f"{section.id}: {group} {both[0]!r}{more} in {one} and in {other} too, which makes scores too good: "
                "take such rows out of one, or accept it with data.group=none"
            )


def check_files(section: DataSection, splits: "dict[str, Dataset]") -> None:
    """Raise DataError if a file is in two splits, as in Common Voice's validated.tsv and its test.tsv."""
    # the pages of a TIFF are rows of their own, and so are the records of a shard of features
    separate = {name: rows for name, rows in splits.items() if not {"page", "features"} & set(rows.column_names)}
    found = {name: set(paths(rows)) - {None, ""} for name, rows in separate.items()}
    for one, other in combinations(found, 2):
        # with bytes there is only a name, which two splits of the hub may both use
        both = sorted(path for path in found[one] & found[other] if path and os.path.isfile(path))
        if both:
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            raise DataError(
                f"{section.id}: {both[0]}{more} in {one} and in {other} too: a file may be in one split only, "
                f"take such rows out, or name other splits with data.{one} and data.{other}"
            )


def warn_of_speakers(section: DataSection, rows: "Dataset", group: str, cut: list[str]) -> None:
    """Warn that recordings are cut without a column of speakers, so that speakers of train may be in test too."""
    if cut and "audio" in rows.column_names:
        log.warning(
            "%s: no column %r, so %s may share speakers with train, which makes scores too good: "
            "name the column that says who speaks with data.group=NAME, or accept it with data.group=none",
            section.id,
            group,
            " and ".join(cut),
        )


# ---- rows with equal content ----


def with_contents(rows: "Dataset", columns: Sequence[str]) -> "Dataset":
    """The rows with a column CONTENT: 32 hex digits, equal for rows with the same values in all `columns`.

    Texts are equal if their words are; spaces between and around words do not count. Images and recordings are equal if
    their files are equal byte by byte; files are read in threads. A row whose files cannot be read, or whose texts are
    all empty, equals no other row.
    """
    have = [name for name in columns if name in rows.column_names]
    if len(rows) == 0 or not have:
        return rows
    files = set(file_columns(rows))
    also = [name for name in PART if name in rows.column_names] if set(have) & files else []
    if len(have) == 1 and have[0] in files and not also:
        return with_column(rows, CONTENT, _digests_of_files(rows, have[0]))
    needed = rows.select_columns(list(dict.fromkeys(["id", *have, *also])))

    def digests() -> list[str]:
        found: list[str] = []
        with ThreadPoolExecutor(8) as pool:  # for texts, threads would only wait for each other
            each = pool.map if files.intersection(have) else map
            for batch in batches(needed, 256):
                cells = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
                found += each(lambda row: _digest(row, have, files, also), cells)
        return found

    if files.intersection(have) or not stored.large(needed):  # a file may change between two runs
        return with_column(rows, CONTENT, digests())
    key = ["contents", needed._fingerprint, have] if stored.lasting(rows) else None
    return with_column(rows, CONTENT, stored.value(key, f"contents of {len(rows):,} rows", digests))


def contents(rows: "Dataset", columns: Sequence[str]) -> list[str]:
    """The values of the column CONTENT (see `with_contents`); empty if the rows have none of `columns`."""
    found = with_contents(rows, columns)
    return values(found, CONTENT) if CONTENT in found.column_names else []


def _digests_of_files(rows: "Dataset", column: str) -> list[str]:
    """What `_digest` gives for rows of one column of files, without a copy of the bytes that are in the rows."""
    listed = paths(rows)
    of_path = iter(of_files([path for path in listed if path is not None]))
    stored = rows.data.column(column)
    places = range(len(rows)) if rows._indices is None else rows._indices.column(0).to_pylist()
    ids = rows["id"][:]
    found = []
    for number, (path, place) in enumerate(zip(listed, places, strict=True)):
        held = None if path is not None or not stored[place].is_valid else stored[place]["bytes"]
        if path is not None:
            part = next(of_path)
        elif held is not None and held.is_valid:
            part = hashlib.blake2b(held.as_buffer()).digest()
        else:
            part = b""
        text = len(part).to_bytes(8, "big") + part if part else f"row {ids[number]}".encode("utf-8", "surrogatepass")
        found.append(hashlib.blake2b(text, digest_size=16).hexdigest())
    return found


def _digest(row: dict[str, Any], columns: Sequence[str], files: set[str], also: Sequence[str]) -> str:
    """The digest of a row's content. An empty column counts like a missing one."""
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
    """A digest of a file's content; empty if it cannot be read, which is reported when the row is used."""
    if not isinstance(value, dict):
        return b""
    if value.get("bytes") is not None:
        return hashlib.blake2b(value["bytes"]).digest()
    path = value.get("path")
    return of_file(path) if path else b""


def overlap(contents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The number of rows of validation whose content is in train, and of test whose content is in train or validation.

    Splits without such rows are left out.
    """
    counts = {}
    for name, others in (("validation", ("train",)), ("test", ("train", "validation"))):
        seen = {content for other in others for content in contents.get(other, ())}
        counts[name] = sum(content in seen for content in contents.get(name, ()))
    return {name: count for name, count in counts.items() if count}
