"""Media files with a list of them, as on the hub; used by imagefolder, audiofolder and videofolder.

    photos/metadata.csv              photos/train/metadata.csv   photos/test/metadata.csv

The list (metadata.csv, .jsonl, .parquet or .json, which holds an array of objects) has a column file_name, with paths
relative to it, and the task's other columns.
"""

from collections.abc import Sequence
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.columns import values, with_column
from pipelines.data.files import SPLIT_NAMES, folders, not_among
from pipelines.data.formats import table
from pipelines.data.media import FILE_NAME, Kind, paths
from pipelines.data.schema import Source
from pipelines.errors import DataError

LISTS = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "metadata.json")


def lists(root: Path, section: DataSection | None = None) -> dict[str, Path]:
    """Split -> its list, from the folder itself or from its split folders, including those that the recipe names.

    Raises DataError.
    """
    parts = split_folders(root, section)
    within = {child.name: path for child in parts if (path := own_list(child))}
    own = own_list(root)
    if own is None:
        return within
    if parts:
        raise DataError(
            f"{own}: stands beside split folders ({', '.join(c.name for c in parts)}): put a list into each of these"
        )
    return {"train": own}


def split_folders(root: Path, section: DataSection | None = None) -> list[Path]:
    """The folders with names of splits, including those that the recipe names."""
    asked = {section.train, section.validation, section.test} if section is not None else set()
    return [child for child in folders(root) if child.name.lower() in SPLIT_NAMES or child.name in asked]


def own_list(folder: Path) -> Path | None:
    """The list of a folder, which has a column file_name; None if there is none. Raises DataError."""
    return next((path for name in LISTS if (path := folder / name).is_file() and _lists_files(path)), None)


def _lists_files(path: Path) -> bool:
    try:
        return FILE_NAME in table.column_names(path)
    except DataError:
        if path.suffix == ".json":  # such a file may also describe the complete data set
            return False
        raise


def columns(path: Path, kind: Kind, texts: Sequence[str]) -> dict[str, str]:
    """The columns of a list, with their kinds. Raises DataError."""
    found = table.columns(path)
    text = next((name for name in texts if name in found), None)
    mask = {"mask": "mask"} if "mask" in found or f"mask_{FILE_NAME}" in found else {}
    return {kind.column: kind.column, **({"text": "text"} if text else {}), **found, **mask}


def read(
    section: DataSection,
    kind: Kind,
    found: dict[str, Path],
    texts: Sequence[str],
    columns: tuple[str, ...],
    optional: tuple[str, ...],
) -> Source:
    """The rows of every list in `found` (split -> list). The text column may have any of the names `texts`."""
    root = Path(section.id).expanduser()
    source = Source(splits={})
    listed: set[str] = set()
    for name, path in found.items():
        names = {kind.column: FILE_NAME, **_text_column(path, texts, columns), **_mask_column(path, columns)}
        names |= section.columns
        part = table.read(section.model_copy(update={"id": str(path), "columns": names}), columns, optional)
        where = path.relative_to(root).as_posix()
        rows = part.splits["train"]
        ids = [f"{where}:{id_.rpartition(':')[2]}" for id_ in values(rows, "id")]  # unique over all splits
        source.splits[name] = with_column(rows, "id", ids)
        source.skipped[name], source.lost[name] = part.skipped["train"], part.lost["train"]
        listed.update(file for file in paths(rows) if file)
        source.mask_names = source.mask_names or part.mask_names
        if "mask" in columns:
            listed.update(mask["path"] for mask in rows["mask"] if mask["path"])
    others = not_among(root, kind.suffixes, listed)
    source.ignored = {f"{kind.files} that no metadata lists": others} if others else {}
    return source


def _mask_column(path: Path, columns: tuple[str, ...]) -> dict[str, str]:
    """{"mask": the list's name for the column of masks}: the hub calls it mask_file_name."""
    have = table.column_names(path) if "mask" in columns else []
    name = f"mask_{FILE_NAME}"
    return {"mask": name} if name in have and "mask" not in have else {}


def _text_column(path: Path, texts: Sequence[str], columns: tuple[str, ...]) -> dict[str, str]:
    """{"text": the list's name for the text column}; empty if the task reads no text or the list has none."""
    have = table.column_names(path)
    return next(({"text": name} for name in texts if name in have and "text" in columns), {})
