"""Data sets on the hub: parquet or plain files. A loading script is never run.

The rows were written by somebody else, so an image, a recording or a video must be bytes in its row, or a file that
came with the data set. A row that names any other file or an address is skipped and counted; the file is not opened,
the address is not fetched.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data.audio.segments import part_columns, timed, times
from pipelines.data.columns import select, values, with_column
from pipelines.data.formats import _boxes, _instance_maps, _masks, ade20k
from pipelines.data.labels import lost
from pipelines.data.media import VIDEO
from pipelines.data.schema import Source
from pipelines.errors import DataError, GraftError, HubError, HubUnreachable, MissingColumn
from pipelines.utils.formatting import short

log = logging.getLogger("graft")


def detect(path: Path) -> bool:
    """False: the hub is used only for what is not on this disk."""
    return False


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of a data set on the hub. Raises DataError, MissingColumn or HubError."""
    if Path(section.id).expanduser().exists():
        raise DataError(f"data.format: {section.id} is on this disk, not on the hub: leave format out")
    loaded, info = _load(section)
    source = Source(splits={}, hub_id=section.id, revision=info.get("sha"), license=info.get("license"))
    if "mask" in columns and section.id.rpartition("/")[2] == "scene_parse_150":
        source.mask_names = {"values": {"0": None, **{str(n): name for n, name in enumerate(ade20k.CLASSES, 1)}}}
    elif has_maps(section, loaded, columns):
        source.mask_names = _class_names(section, info)
    base = ""
    if "video" in columns:
        loaded, named = with_named_videos(section, loaded)
        base = _fetched(section, info, named) if named else ""
    take(source, section, loaded, _own_folders(section.id), columns, optional, base)
    return source


def with_named_videos(section: DataSection, loaded: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The splits with videos in place of their names, and the names, if a column of texts holds names of videos."""
    from datasets import Value, Video

    its = section.columns.get("video", "video")
    found, names = {}, []
    for split, rows in loaded.items():
        found[split] = rows
        if isinstance(rows.features.get(its), Value) and len(rows):
            cells = values(rows, its)
            if all(isinstance(cell, str) and Path(cell).suffix.lower() in VIDEO.suffixes for cell in cells):
                files = [{"path": cell, "bytes": None} for cell in cells]
                found[split] = with_column(rows.remove_columns(its), its, files, feature=Video(decode=False))
                names += cells
    return found, names


def _is_within(name: str) -> bool:
    """Whether a name can be that of a file in a data set."""
    return not ("://" in name or "\\" in name or "\0" in name or {"", ".", ".."} & set(name.split("/")))


_AT_ONCE = 8  # files that are fetched at the same time


def _fetched(section: DataSection, info: dict[str, Any], names: Sequence[str]) -> str:
    """The folder with the files of a data set that its rows name, after they were fetched. Raises HubError.

    A name that is no file of the data set is not fetched: its row is skipped. `info` is what the hub says of the data
    set; if it is empty, the files may be in the cache.
    """
    import huggingface_hub
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    def fetch(name: str) -> str | None:
        try:
            file = huggingface_hub.hf_hub_download(
                section.id,
                name,
                repo_type="dataset",
                revision=info.get("sha", section.revision),
                local_files_only=not info,
            )
        except LocalEntryNotFoundError:
            if info:
                raise
            return None
        return file[: -len(name)]

    there = set(info["files"]) if info else {name for name in names if _is_within(name)}
    wanted = [name for name in dict.fromkeys(names) if name in there]
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return next(filter(None, list(pool.map(fetch, wanted))), "")
    except (OSError, HTTPError) as error:
        raise _explained(section, error) from error


def has_maps(section: DataSection, loaded: dict[str, Any], columns: tuple[str, ...]) -> bool:
    """Whether a column that the task needs holds masks or instance maps, whose classes a file may name."""
    from datasets import Image

    its = section.columns.get("objects", "objects")
    mapped = any(isinstance(rows.features.get(its), Image) for rows in loaded.values())
    return "mask" in columns or ("objects" in columns and mapped)


NAMES_FILE = "id2label.json"


def _class_names(section: DataSection, info: dict[str, Any]) -> dict[str, Any]:
    """What id2label.json of the data set says of its masks; empty without one. Raises DataError or HubError.

    `info` is what the hub says of the data set; if it is empty, the file may be in the cache.
    """
    import huggingface_hub
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    if info and NAMES_FILE not in info["files"]:
        return {}
    try:  # by the recipe's revision: without a network, the cache does not know which commit is the newest
        file = huggingface_hub.hf_hub_download(
            section.id, NAMES_FILE, repo_type="dataset", revision=section.revision, local_files_only=not info
        )
    except (OSError, HTTPError) as error:
        if not info and isinstance(error, LocalEntryNotFoundError):
            return {}
        raise _explained(section, error) from error
    return _masks.class_table([Path(file).parent])


def take(
    source: Source,
    section: DataSection,
    loaded: dict[str, Any],
    own: Sequence[Path],
    columns: tuple[str, ...],
    optional: tuple[str, ...],
    base: str = "",
) -> None:
    """Add the splits that `datasets` loaded to `source`, with the task's columns. Raises DataError.

    Files of rows must be below one of the folders `own`. A relative path is relative to `base`, and not allowed without
    it.
    """
    import pyarrow.compute
    from datasets import Audio, ClassLabel, Image, Video

    for name, rows in loaded.items():
        rows = _flattened(rows, [*section.columns.values(), section.group])
        masks = "mask" in columns
        names = {c: section.columns.get(c) or _guess(c, rows.features, masks) or c for c in columns}
        for column, its in names.items():
            if its not in rows.column_names:
                raise MissingColumn(
                    f"{section.id}: no column {its!r} (it has: {', '.join(rows.column_names)}); "
                    f"{naming(section, column)}"
                )
        group = section.group if section.group not in (None, "none") else None
        if group and group not in rows.column_names:
            raise DataError(
                f"data.group: {section.id} has no column {group!r} (it has: {', '.join(rows.column_names)})"
            )
        absent = next(
            (c for c in optional if section.columns.get(c, c) not in rows.column_names and c in section.columns), None
        )
        if absent:
            have = ", ".join(rows.column_names)
            raise MissingColumn(
                f"data.columns.{absent}: {section.id} has no column {section.columns[absent]!r} (it has: {have})"
            )
        names |= {c: section.columns.get(c, c) for c in optional if section.columns.get(c, c) in rows.column_names}
        taken = [*names.values(), *([group] if group else [])]
        mapped = "objects" in names and isinstance(rows.features[names["objects"]], Image)
        if mapped and _instance_maps.CLASSES in rows.column_names:
            taken.append(_instance_maps.CLASSES)
        cut = timed(columns)
        part = part_columns(rows.column_names, taken) if cut else None
        keep = dict.fromkeys([*taken, *(column for column in part or () if column in rows.column_names)])
        rows = rows.select_columns(list(keep)).rename_columns({its: c for c, its in names.items() if its != c})
        rows = with_column(rows, "id", [f"{name}/{i}" for i in range(len(rows))])
        refused: list[tuple[str, str]] = []
        given = rows
        wanted_types = (
            ("image", Image, "images"),
            ("audio", Audio, "recordings"),
            ("video", Video, "videos"),
            ("mask", Image, "masks"),
        )
        for column, wanted, many in wanted_types:
            if column in columns and not isinstance(rows.features[column], wanted):
                what = rows.features[column]
                raise DataError(
                    f"{section.id}: column {names[column]!r} holds no {many} but {what}: "
                    f"name another, data.columns.{column}=NAME"
                )
        for column, feature in rows.features.items():
            if isinstance(feature, (Image, Audio, Video)):
                rows = rows.cast_column(column, type(feature)(decode=False))
                rows, without = _inside(rows, column, own, base)
                refused += without
                if without and not len(rows):
                    raise DataError(
                        f"{section.id}: none of {len(without)} rows of {name} can be used; the first: {without[0][1]}"
                    )
                # the sizes make the fingerprint cover the files; they come from the table's offsets, without reading
                # the bytes
                held = (
                    rows.with_format("arrow").select_columns(column)[:].column(column)
                    if rows._indices
                    else rows.data.column(column)
                )
                sizes = pyarrow.compute.binary_length(pyarrow.compute.struct_field(held, "bytes")).to_pylist()
                paths = pyarrow.compute.struct_field(held, "path").to_pylist() if None in sizes else []
                for number, path in enumerate(paths):
                    if sizes[number] is None and path:
                        sizes[number] = os.stat(path).st_size
                others = values(rows, "size") if "size" in rows.column_names else []
                if others:  # an image and its mask
                    sizes = [(one or 0) + (other or 0) for one, other in zip(sizes, others, strict=True)]
                rows = with_column(rows, "size", sizes)
        if part and cut:
            rows, without = _with_parts(rows, part, cut)
            refused += without
            if without and not len(rows):
                first = without[0][1]
                raise DataError(f"{section.id}: none of {len(without)} rows of {name} can be used; the first: {first}")
        if "objects" in columns:
            rows, without = (_instance_maps if mapped else _boxes).with_objects(section, rows, source)
            refused += without
        if "label" in columns:
            feature = _item(rows.features["label"])
            source.labels = list(feature.names) if isinstance(feature, ClassLabel) else source.labels
            source.lost[name] = lost(_known_labels(given), refused) if refused else {}
            rows, unlabelled = labels_by_name(rows)
            refused += unlabelled
        source.splits[name], source.skipped[name] = rows, refused


def naming(section: DataSection, column: str) -> str:
    """What to do about a column that the task needs and the data lack: a step for the user to take."""
    if column in (section.label_columns or ()):
        return "name the columns of labels with data.label_columns=[NAME,NAME] (null: one column holds the labels)"
    return f"name the right one with data.columns.{column}=NAME"


def _flattened(rows: Any, names: Sequence[str | None]) -> Any:
    """The rows with the nested columns that the recipe names, such as `review.body`, as columns of their own."""
    import pyarrow.compute

    for name in names:
        path = (name or "").split(".")
        if name in rows.column_names or len(path) < 2 or path[0] not in rows.column_names:
            continue
        feature, column = rows.features[path[0]], rows.data.column(path[0])
        for key in path[1:]:
            if not isinstance(feature, dict) or key not in feature:
                break
            feature, column = feature[key], pyarrow.compute.struct_field(column, key)
        else:
            column = column if rows._indices is None else column.take(rows._indices.column(0))
            rows = with_column(rows, str(name), column.combine_chunks(), feature=feature)
    return rows


def _inside(rows: Any, column: str, own: Sequence[Path], base: str) -> tuple[Any, list[tuple[str, str]]]:
    """The rows whose files are bytes or are in the data set, and (id, why) of the others.

    No file is opened for this check.
    """
    import pyarrow.compute

    if rows._indices is not None:
        rows = rows.flatten_indices()
    held = rows.data.column(column)
    nothing = pyarrow.compute.is_null(pyarrow.compute.struct_field(held, "bytes")).to_pylist()
    if not any(nothing):
        return rows, []
    paths = pyarrow.compute.struct_field(held, "path").to_pylist()
    if base and any(path and nothing[number] for number, path in enumerate(paths)):
        paths = [
            os.path.join(base, path) if path and none and "://" not in path else path
            for path, none in zip(paths, nothing, strict=True)
        ]
        rows = _with_paths(rows, column, paths)
    roots = [os.path.realpath(folder) for folder in own]
    ids = values(rows, "id")
    wrong = [
        (number, why)
        for number, path in enumerate(paths)
        if nothing[number] and path is not None and (why := outside(path, roots))
    ]
    if not wrong:
        return rows, []
    left_out = {number for number, _ in wrong}
    kept = rows.select([number for number in range(len(rows)) if number not in left_out]).flatten_indices()
    return kept, [(ids[number], f"{ids[number]}: {why}") for number, why in wrong]


def _with_paths(rows: Any, column: str, paths: list[str | None]) -> Any:
    """The rows with other paths in a column of files; the bytes are not copied."""
    import pyarrow.compute
    from datasets import Dataset
    from datasets.table import InMemoryTable

    table = rows.data.table
    chunks, at = [], 0
    for chunk in table.column(column).chunks:
        names = pyarrow.array(paths[at : at + len(chunk)], pyarrow.string())
        fields = [pyarrow.compute.struct_field(chunk, "bytes"), names]
        chunks.append(pyarrow.StructArray.from_arrays(fields, ["bytes", "path"], mask=chunk.is_null()))
        at += len(chunk)
    table = table.set_column(table.column_names.index(column), column, pyarrow.chunked_array(chunks))
    return Dataset(InMemoryTable(table), info=rows.info)


def _with_parts(rows: Any, pair: tuple[str, str], column: str) -> tuple[Any, list[tuple[str, str]]]:
    """The rows with the selected part of each recording or video, and (id, why) of rows with invalid times.

    The bytes are not copied.
    """
    import pyarrow.compute
    from datasets import Dataset, DatasetInfo, Features, Value
    from datasets.table import InMemoryTable

    have = [name for name in pair if name in rows.column_names]
    cells = rows.select_columns(["id", *have])[:]
    found: dict[int, dict[str, float | None]] = {}
    wrong: list[tuple[str, str]] = []
    for number, id_ in enumerate(cells["id"]):
        try:
            found[number] = times({name: cells[name][number] for name in have}, pair)
        except DataError as error:
            wrong.append((id_, f"{id_}: {error}"))
    rows = rows.remove_columns(have)
    if wrong or rows._indices is not None:
        rows = rows.select(list(found)).flatten_indices()
    values = {name: [part[name] for part in found.values()] for name in ("start", "end")}
    seconds = {name: pyarrow.array(numbers, pyarrow.float64()) for name, numbers in values.items()}
    table, chunks, at = rows.data.table, [], 0
    for chunk in table.column(column).chunks:
        fields = {name: pyarrow.compute.struct_field(chunk, name) for name in ("path", "bytes")}
        fields |= {name: numbers[at : at + len(chunk)] for name, numbers in seconds.items()}
        chunks.append(pyarrow.StructArray.from_arrays(list(fields.values()), list(fields), mask=chunk.is_null()))
        at += len(chunk)
    times_of = {name: Value("float64") for name in seconds}
    file = {"path": Value("string"), "bytes": Value("binary"), **times_of}
    features = Features({**rows.features, column: file, **times_of})
    parts = pyarrow.chunked_array(chunks, features.arrow_schema.field(column).type)
    table = table.set_column(table.column_names.index(column), column, parts).replace_schema_metadata(None)
    for name, numbers in seconds.items():
        table = table.append_column(name, numbers)
    return Dataset(InMemoryTable(table), info=DatasetInfo(features=features)), wrong


def outside(path: str, roots: Sequence[str]) -> str:
    """Why a row may not name this file, or that the file does not exist; "" if it may."""
    return elsewhere(path, roots) or ("" if os.path.isfile(path) else f"no such file: {short(path, 200)}")


def elsewhere(path: str, roots: Sequence[str]) -> str:
    """Why a file is not in the data set: with links followed, it is not below one of `roots`; "" if it is."""
    shown = short(path, 200)
    if path.startswith("zip://"):  # the message leaves out the path, which is one in the cache
        return (
            "its file lies in an archive, which is not unpacked: download the data set, unpack it and give the folder"
        )
    if "://" in path or path.lower().startswith("file:"):
        return f"its file is an address, {shown!r}, which is not fetched: the data set is to hold the file's bytes"
    real = os.path.realpath(path) if os.path.isabs(path) and "\0" not in path else ""
    if not any(real.startswith(root.rstrip(os.sep) + os.sep) for root in roots):
        return f"it names the file {shown!r}, which is not in the data set: not opened"
    return ""


_MASKS = (  # usual names, the surest first
    *("mask", "masks", "label_map", "segmentation_mask", "semantic_segmentation", "segmentation", "annotation"),
    *("annotations", "label", "labels", "seg", "gt", "target"),
)


def mask_column(names: Sequence[str]) -> str | None:
    """The column of masks among the columns of images, by its name; None if none has such a name."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in _MASKS if name in lower), None) if len(names) > 1 else None


def _guess(column: str, features: Any, masks: bool = False) -> str | None:
    """The only column of the right type, if no column has the name (img, fine_label); None if there are several.

    With `masks`, one column of images holds the masks.
    """
    from datasets import Audio, ClassLabel, Image, Video

    if column in features:
        return column
    wanted = {"image": Image, "audio": Audio, "video": Video, "label": ClassLabel}.get(column)
    if column == "objects" and _instance_maps.CLASSES in features:
        return mask_column([name for name, feature in features.items() if isinstance(feature, Image)])
    if masks:
        images = [name for name, feature in features.items() if isinstance(feature, Image)]
        mask = mask_column(images)
        if column == "mask":
            return mask
        features = {name: feature for name, feature in features.items() if name != mask}
    fitting = [name for name, feature in features.items() if wanted and isinstance(feature, wanted)]
    return fitting[0] if len(fitting) == 1 else None


def _item(feature: Any) -> Any:
    """The type of the items of a list column; otherwise the column's own type."""
    from datasets import List

    return feature.feature if isinstance(feature, List) else feature


def labels_by_name(rows: Any) -> tuple[Any, list[tuple[str, str]]]:
    """Class numbers -> class names, other values -> text; a missing label stays None. Rows of class -1 are skipped."""
    from datasets import ClassLabel, Dataset, List, Value

    feature = _item(rows.features["label"])

    def name(value: Any) -> str | None:
        if not isinstance(feature, ClassLabel):
            return None if value is None else str(value)
        return feature.names[value] if value is not None and value >= 0 else None

    given = values(rows, "label")
    labels = [[name(v) for v in label] if isinstance(label, list) else name(label) for label in given]
    # No label may mean that no class applies (several labels); the task decides. -1 means that the label is not public.
    known = [label is not None and not (isinstance(label, list) and None in label) for label in labels]
    good = [i for i in range(len(labels)) if given[i] is None or known[i]]
    bad = sorted(set(range(len(labels))) - set(good))
    skipped = [(id_, f"{id_}: no label") for id_ in (select(rows, bad)["id"][:] if bad else [])]
    if not good:  # GLUE's test labels are not public; the library cannot add a column to zero rows
        return Dataset.from_dict({name: [] for name in rows.column_names}), skipped
    rows = rows if len(good) == len(rows) else select(rows, good)
    kind = List(Value("string")) if any(isinstance(label, list) for label in labels) else Value("string")
    return with_column(rows, "label", [labels[i] for i in good], feature=kind), skipped


def _known_labels(rows: Any) -> Iterator[tuple[str, Any]]:
    """The id and the label of every row that has one; for classes the name."""
    from datasets import ClassLabel

    feature = rows.features["label"]
    for id_, label in zip(values(rows, "id"), values(rows, "label"), strict=True):
        if not isinstance(feature, ClassLabel):
            yield id_, label
        elif label is not None and label >= 0:
            yield id_, feature.names[label]


def _load(section: DataSection) -> tuple[dict[str, Any], dict[str, Any]]:
    import huggingface_hub
    from datasets import load_dataset_builder
    from huggingface_hub.errors import HTTPError

    found = None
    # if this fails, the call below reports the error better, or finds the data set in the cache
    with contextlib.suppress(OSError, HTTPError, ValueError):
        found = huggingface_hub.dataset_info(section.id, revision=section.revision)
    card = found.card_data.to_dict() if found is not None and found.card_data else {}
    _check_sources(section, _strings(card.get("configs")))
    try:
        builder = load_dataset_builder(section.id, section.config, revision=section.revision)
        files = builder.config.data_files or {}
        _check_sources(section, [str(file) for some in files.values() for file in some], builder.base_path or "")
        builder.download_and_prepare()
        loaded = builder.as_dataset()
    except GraftError:
        raise
    except Exception as error:  # the library raises many kinds, including those of its readers and of the hub client
        raise _explained(section, error) from error
    if found is None:
        log.warning(
            "the hub cannot be asked: data set %s comes from the cache, its revision and licence are not known",
            section.id,
        )
        return dict(loaded), {}
    license_ = card.get("license")
    return dict(loaded), {
        "sha": found.sha,
        "files": [file.rfilename for file in found.siblings or []],
        "license": license_[0] if isinstance(license_, list) and license_ else license_,
    }


def _strings(value: Any) -> list[str]:
    """The values of `data_files` and `data_dir` in the configurations of a data set's card."""
    if isinstance(value, dict):
        return [
            text for key, part in value.items() if key in ("data_files", "data_dir", "path") for text in _strings(part)
        ]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []


def _check_sources(section: DataSection, files: Sequence[str], base: str | None = None) -> None:
    """Raise DataError if a data set's files are outside of it.

    `datasets` would read any local file that a card names. `files` are patterns of the card, or, with `base`, the
    addresses that these were resolved to, which must be below it.
    """
    for file in files:
        if base is not None:
            inside = file.startswith(base.rstrip("/") + "/") and "/../" not in file
        else:
            inside = not (os.path.isabs(file) or "://" in file or file.startswith("~") or ".." in file.split("/"))
        if not inside:
            raise DataError(
                f"data.id: {section.id} takes rows from outside of itself ({short(file, 200)!r}), which are not read: "
                "choose another data set, or download what you need of it and give the folder"
            )


def _own_folders(hub_id: str) -> list[Path]:
    """The folders with the files of a hub data set: what the client downloaded, and archives unpacked from it."""
    import datasets.config
    from datasets.utils.file_utils import hash_url_to_filename
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="dataset")
    unpacked = Path(datasets.config.EXTRACTED_DATASETS_PATH)
    if not unpacked.is_dir():
        return [folder]
    fetched = [file for file in folder.glob("snapshots/*/**/*") if file.is_file()]
    return [
        folder,
        *(path for file in fetched if (path := unpacked / hash_url_to_filename(os.path.abspath(file))).exists()),
    ]


def _explained(section: DataSection, error: Exception) -> GraftError:
    """An error of the datasets library or of the hub client as a GraftError of one line."""
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    if isinstance(error, DatasetGenerationError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0]
    if isinstance(error, DatasetNotFoundError):
        if "gated" in first:
            return DataError(
                f"data.id: {section.id} is gated: ask for access on its page on the hub, then type `hf auth login`"
            )
        if section.revision and "revision" in first.lower():
            return DataError(
                f"data.revision: {section.id} has no revision {section.revision!r}: "
                "give a branch, a tag or a full commit"
            )
        return DataError(
            f"data.id: {section.id}: no such folder here, and not on the hub, or private: "
            "check the spelling, log in with `hf auth login`, or give a local path"
        )
    if isinstance(error, (DataFilesNotFoundError, EmptyDatasetError)):
        return DataError(f"data.id: {section.id} holds no data that can be read: {first}")
    if isinstance(error, HFValidationError):
        return DataError(f"data.id: {section.id!r} is no hub id (owner/name), and no file or folder here")
    if isinstance(error, ValueError) and ("BuilderConfig" in first or first.startswith("Config name is missing")):
        names = text.partition("[")[2].partition("]")[0].replace("'", "")
        return DataError(
            f"data.config: {section.id} has the configurations {names}; got {section.config or 'none'}: name one"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return HubError(
            f"no room left on the disk for data set {section.id}: free some, or set HF_HOME to a folder on another disk"
        )
    if isinstance(error, (OSError, HTTPError)):
        kind = HubError if isinstance(error, HfHubHTTPError) else HubUnreachable
        return kind(f"data set {section.id} cannot be fetched: {first}; check the network, or give a local path")
    return DataError(f"data.id: {section.id} cannot be read: {first}")
