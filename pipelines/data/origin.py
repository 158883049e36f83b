"""Where a row comes from: its file, and for a row of a table its line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.data.compressed import inner
from pipelines.data.media import paths


class Origin(NamedTuple):
    """The place of a row in the data."""

    text: str
    """The place for people: `cats/12.jpg`, or `reviews.csv, line 57`."""
    file: Path | None
    """The file that holds the row, or its image or recording; None if no file on this disk does."""


def origins(rows: Any, places: Sequence[int], source: str) -> list[Origin]:
    """Where some rows of a split come from. `source` is the path of the data; a hub id has no files here.

    Only a row's own image or recording, and files below `source`, count as its file.
    """
    chosen = rows.select(places)
    root = Path(source).expanduser() if source else None
    return [_origin(id_, path, root) for id_, path in zip(chosen["id"], paths(chosen), strict=True)]


def _origin(id_: str, path: str | None, root: Path | None) -> Origin:
    name, _, line = id_.rpartition(":")
    own = Path(path) if path is not None and Path(path).is_file() else None
    if name and line.isdigit():
        table = _below(root, name)
        kind = "row" if inner(Path(name)).suffix.lower() == ".parquet" else "line"
        return Origin(f"{name}, {kind} {line}", own or table)
    return Origin(id_, own or _below(root, id_))


def _below(root: Path | None, name: str) -> Path | None:
    """The file with this path below `root`, or `root` if it is a file; None if there is none."""
    if root is None or "\0" in name or len(name) > 1000:
        return None
    try:
        if root.is_file():
            return root
        path = root / name
        return path if path.resolve().is_relative_to(root.resolve()) and path.is_file() else None
    except OSError:  # a name that no disk allows
        return None
