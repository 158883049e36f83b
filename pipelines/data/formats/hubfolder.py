"""A data set of the hub on this disk: a clone or download of its repository, or written by datasets' `save_to_disk`.

    beans/data/train-00000-of-00002.parquet   beans/data/train-00001-of-00002.parquet
    beans/data/test-00000-of-00001.parquet
    beans/train.parquet   beans/test.parquet         files in which the datasets library stored the names of the classes
    saved/dataset_dict.json   saved/train/state.json   saved/train/data-00000-of-00001.arrow

The files of a split are joined, and classes have the data set's names. A folder with several configurations needs
`data.config`. Images and recordings are bytes in their rows, or files below the folder; a row that names another file
is skipped.
"""

import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data import parquet
from pipelines.data.files import all_files, folders, runs
from pipelines.data.formats import _boxes, _class_folders, _instance_maps, _masks, hub, table
from pipelines.data.schema import Source
from pipelines.data.stored import files_key
from pipelines.errors import DataError, GraftError
from pipelines.utils.files import read_json

CONFIGURED = True  # data.config selects a part

TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".json")
SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?")
NAMES = ("Image", "Audio", "Video", "ClassLabel")  # types of columns that only the library's own metadata describe


def detect(path: Path) -> bool:
    """Whether a file or folder is a data set of the hub, or was written by `save_to_disk`."""
    if path.is_file():
        return path.suffix.lower() == ".parquet" and _described(path)
    if _is_saved(path) or _splits(path):
        return True
    return bool(_configs(path)) and _class_folders.medium(path) is None


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds, by the types that the library stored. Raises DataError."""
    if path.is_dir() and _is_saved(path):
        info = next((file for file in all_files(path) if file.name == "dataset_info.json"), None)
        features = {} if info is None else read_json(info).get("features") or {}
    else:
        configs = {"": {"train": [path]}} if path.is_file() else _configs(path)
        first = next(iter(next(iter(configs.values())).values()))[0]
        features = _features(first) or dict.fromkeys(table.columns(first))
    if "objects" in features and "image" in features:
        return {**dict.fromkeys(features, "text"), **_boxes.COLUMNS}
    named = {"Image": "image", "Audio": "audio", "Video": "video", "ClassLabel": "label"}
    types = {name: kind.get("_type") if isinstance(kind, dict) else None for name, kind in features.items()}
    kinds = {name: named.get(str(kind), "text") for name, kind in types.items()}
    mask = hub.mask_column([name for name, kind in kinds.items() if kind == "image"])
    if mask is not None:
        kinds[mask] = "mask"
    if mask is not None and _instance_maps.CLASSES in features:
        kinds[mask] = "boxes"
        return {**kinds, **_boxes.COLUMNS}
    alone = {
        kind: kind for kind in (*named.values(), "mask") if list(kinds.values()).count(kind) == 1
    }  # read under any name
    return {**kinds, **alone}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of a local copy of a hub data set. Raises DataError or MissingColumn."""
    root = Path(section.id).expanduser()
    if not root.exists():
        raise DataError(f"data.id: no such file or folder: {section.id}")
    source = Source(splits={})
    loaded = _saved(section, root) if root.is_dir() and _is_saved(root) else _shards(section, root, source)
    if "video" in columns:
        loaded, _ = hub.with_named_videos(section, loaded)
    base = (root if root.is_dir() else root.parent).resolve()
    if hub.has_maps(section, loaded, columns):
        source.mask_names = _masks.class_table([base])
    hub.take(source, section, loaded, [base], columns, optional, str(base))
    return source


# ---- parquet ----


def _shards(section: DataSection, root: Path, source: Source) -> dict[str, Any]:
    configs = {"": {"train": [root]}} if root.is_file() else _configs(root)
    if not configs:
        raise DataError(
            f"data.id: {section.id} holds no parquet files of a data set of the hub, "
            "and nothing that save_to_disk wrote"
        )
    config = section.config or next((name for name in ("default", "data", "") if name in configs), None)
    if config is None and len(configs) == 1:
        config = next(iter(configs))
    if config not in configs:
        raise DataError(
            f"data.config: {section.id} has the configurations {', '.join(configs)}; got {config or 'none'}: name one"
        )
    source.ignored |= {
        f"files of the configuration {n!r}": sum(map(len, c.values())) for n, c in configs.items() if n != config
    }
    pointer = next((file for files in configs[config].values() for file in files if _is_pointer(file)), None)
    if pointer is not None:
        raise DataError(f"{pointer}: a pointer of Git LFS, not the file itself: run `git lfs pull` in {section.id}")
    return {name: _joined(section, files) for name, files in configs[config].items()}


def _joined(section: DataSection, files: list[Path]) -> Any:
    """The rows of some files, with the types that the library stored; those of large files are mapped into memory.

    The library itself would hold a row group at a time in memory, and a file may be one row group. Raises DataError.
    """
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset, DatasetInfo, Features
    from datasets.table import InMemoryTable, MemoryMappedTable, concat_tables, table_cast

    def cast(batch: Any) -> Any:
        return table_cast(pyarrow.Table.from_batches([batch]), schema)

    parts = []
    try:
        features = Features.from_arrow_schema(pyarrow.parquet.read_schema(files[0]))
        schema = features.arrow_schema
        for file in files:
            if parquet.is_large(file):
                stored = parquet.arrow_file(file, list(features), cast, str(schema))
                parts.append(MemoryMappedTable.from_file(str(stored)))
            else:
                parts.append(InMemoryTable(table_cast(pyarrow.parquet.read_table(file), schema)))
    except GraftError:
        raise
    except Exception as error:  # the libraries raise many kinds
        raise _explained(section, files[0], error) from error
    about = files_key(files) or uuid.uuid4().hex  # files that changed just now have no lasting name
    mark = hashlib.blake2b(json.dumps(about).encode(), digest_size=8).hexdigest()
    return Dataset(concat_tables(parts), info=DatasetInfo(features=features), fingerprint=mark)


def _explained(section: DataSection, path: Path, error: Exception) -> GraftError:
    if isinstance(error, OSError):
        return DataError(f"{path}: cannot be read: {error.strerror or error}")
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(f"data.id: {section.id} cannot be read, or its files differ in their columns: {first}")


def _configs(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Configuration -> split -> files: those of the folder itself (under the name ""), or of folders in it."""
    own = _splits(root)
    if own:
        return {"": own}
    return {folder.name: found for folder in folders(root) if (found := _splits(folder))}


def _splits(folder: Path) -> dict[str, list[Path]]:
    """Split -> files; empty unless all tables of a folder are parquet files of a hub data set."""
    found: dict[str, list[Path]] = {}
    names = [entry.name for _, entries in runs(folder, deep=False) for entry in entries]
    tables = [name for name in names if name.lower().endswith(TABLES) and name != "dataset_infos.json"]
    for file in (Path(folder, name) for name in tables):
        match = SHARD.fullmatch(file.stem)
        if file.suffix.lower() != ".parquet" or not (match or _described(file)):
            return {}
        found.setdefault(match["split"] if match else file.stem, []).append(file)
    return found


def _described(path: Path) -> bool:
    """Whether the datasets library wrote the file, with columns of types that only its own metadata describe."""
    kinds = [part for part in _features(path).values() if isinstance(part, dict)]
    return any(
        part.get("_type") in NAMES for kind in kinds for part in (kind, kind.get("feature")) if isinstance(part, dict)
    )


def _features(path: Path) -> dict[str, Any]:
    """The types of columns that the datasets library stored in a parquet file; empty if it stored none."""
    import pyarrow
    import pyarrow.parquet

    try:
        about = (pyarrow.parquet.read_schema(path).metadata or {}).get(b"huggingface", b"{}")
        features = json.loads(about)["info"]["features"]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(40).startswith(b"version https://git-lfs")
    except OSError:
        return False  # reading it will report why


# ---- save_to_disk ----


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def _saved(section: DataSection, root: Path) -> dict[str, Any]:
    from datasets import DatasetDict, load_from_disk

    # the library reads dataset_dict.json only if the folder is not itself a single data set
    for folder in (root, *_saved_splits(root)):
        _check_names(root, folder / "state.json")
    try:
        loaded = load_from_disk(str(root))
    except Exception as error:  # the library raises many kinds
        raise _explained(section, root, error) from error
    return dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}


def _saved_splits(root: Path) -> list[Path]:
    """The folders of the splits in dataset_dict.json. Raises DataError for a folder outside of `root`."""
    listed = root / "dataset_dict.json"
    if not listed.is_file():
        return []
    try:
        names = json.loads(listed.read_text())["splits"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_saved(listed, error) from None
    if not isinstance(names, list):
        raise DataError(f"{listed}: splits is a list of names, got {type(names).__name__}: save the data set again")
    for name in names:
        if not _within(root, root, name):
            raise DataError(f"{listed}: names the split {str(name)[:200]!r}, which is no folder in {root}: not read")
    return [root / name for name in names]


def _check_names(root: Path, state: Path) -> None:
    """Raise DataError if a saved data set names files outside of its own folder."""
    if not state.is_file():
        return
    try:
        about = json.loads(state.read_text())
        files = [*about["_data_files"], *(about.get("_indices_data_files") or [])]
        names = [file["filename"] for file in files]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _not_saved(state, error) from None
    odd = next((name for name in names if not _within(root, state.parent, name)), None)
    if odd is not None:
        raise DataError(f"{state}: names the file {str(odd)[:200]!r}, which is not in its folder: not read")


def _within(root: Path, folder: Path, name: Any) -> bool:
    """Whether `name` is the name of an entry of `folder`, and not a link to a place outside of `root`."""
    if not isinstance(name, str) or Path(name).name != name or name in ("", "..") or "\\" in name or "\0" in name:
        return False
    return (folder / name).resolve().is_relative_to(root.resolve())


def _not_saved(path: Path, error: Exception) -> DataError:
    what = f"cannot be read as what save_to_disk writes ({type(error).__name__})"
    return DataError(f"{path}: {what}: save the data set again")
