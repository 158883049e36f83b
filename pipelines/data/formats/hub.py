"""Data sets on the hub: parquet or plain files (a loading script is never run)."""

import errno
import logging
from pathlib import Path
from typing import Any

from pipelines.errors import DataError, GraftError, HubError

log = logging.getLogger("graft")


def detect(path: Path) -> bool:
    return False  # what is not on disk


def read(section: Any, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Any:
    import pyarrow.compute
    from datasets import Audio, ClassLabel, Image

    from pipelines.data import Source

    if Path(section.id).expanduser().exists():
        raise DataError(f"data.format: {section.id} is on this disk, not on the hub: leave format out")
    loaded, info = _load(section)
    source = Source(splits={}, hub_id=section.id, revision=info.get("sha"), license=info.get("license"))
    for name, rows in loaded.items():
        names = {c: section.columns.get(c) or _guess(c, rows.features) or c for c in columns}
        for column, own in names.items():
            if own not in rows.column_names:
                raise DataError(
                    f"{section.id}: no column {own!r} (it has: {', '.join(rows.column_names)}); "
                    f"name the right one with data.columns.{column}=NAME"
                )
        group = section.group if section.group not in (None, "none") else None
        if group and group not in rows.column_names:
            raise DataError(f"data.group: {section.id} has no column {group!r} (it has: {', '.join(rows.column_names)})")
        absent = next((c for c in optional if section.columns.get(c, c) not in rows.column_names and c in section.columns), None)
        if absent:
            have = ", ".join(rows.column_names)
            raise DataError(f"data.columns.{absent}: {section.id} has no column {section.columns[absent]!r} (it has: {have})")
        names |= {c: section.columns.get(c, c) for c in optional if section.columns.get(c, c) in rows.column_names}
        keep = dict.fromkeys([*names.values(), *([group] if group else [])])
        rows = rows.select_columns(list(keep)).rename_columns({own: c for c, own in names.items() if own != c})
        rows = rows.add_column("id", [f"{name}/{i}" for i in range(len(rows))])
        for column, feature in rows.features.items():
            if isinstance(feature, (Image, Audio)):
                rows = rows.cast_column(column, Image(decode=False) if isinstance(feature, Image) else Audio(decode=False))
                # so that the fingerprint covers the files; read from the table's offsets, not from the files
                sizes = pyarrow.compute.binary_length(pyarrow.compute.struct_field(rows.data.column(column), "bytes"))
                rows = rows.add_column("size", sizes.to_pylist())
        for column, wanted, many in (("image", Image, "images"), ("audio", Audio, "recordings")):
            if column in columns and not isinstance(rows.features[column], wanted):
                what, own = rows.features[column], names[column]
                raise DataError(f"{section.id}: column {own!r} holds no {many} but {what}: name another, data.columns.{column}=NAME")
        if "label" in columns:
            feature = _item(rows.features["label"])
            source.labels = list(feature.names) if isinstance(feature, ClassLabel) else source.labels
            rows, source.skipped[name] = _named_labels(rows)
        source.splits[name] = rows
    return source


def _guess(column: str, features: Any) -> str | None:
    """The only column of the right type, where the name differs (img, fine_label)."""
    from datasets import Audio, ClassLabel, Image

    if column in features:
        return column
    wanted = {"image": Image, "audio": Audio, "label": ClassLabel}.get(column)
    fitting = [name for name, feature in features.items() if wanted and isinstance(feature, wanted)]
    return fitting[0] if len(fitting) == 1 else None


def _item(feature: Any) -> Any:
    """What a column of lists holds; else the column's own type."""
    from datasets import List

    return feature.feature if isinstance(feature, List) else feature


def _named_labels(rows: Any) -> tuple[Any, list[tuple[str, str]]]:
    """Class numbers -> class names, anything else -> text; an empty label stays so. Rows of class -1 are skipped."""
    from datasets import ClassLabel, Dataset, List, Value

    feature = _item(rows.features["label"])

    def name(value: Any) -> str | None:
        if not isinstance(feature, ClassLabel):
            return None if value is None else str(value)
        return feature.names[value] if value is not None and value >= 0 else None

    given = rows["label"][:]
    labels = [[name(v) for v in label] if isinstance(label, list) else name(label) for label in given]
    # no label at all may mean that none fits (several labels): the task decides; -1 means that the label is kept secret
    known = [label is not None and not (isinstance(label, list) and None in label) for label in labels]
    good = [i for i in range(len(labels)) if given[i] is None or known[i]]
    skipped = [(rows["id"][i], f"{rows['id'][i]}: no label") for i in sorted(set(range(len(labels))) - set(good))]
    if not good:  # GLUE keeps the labels of its test splits secret; the library cannot add a column to no rows
        return Dataset.from_dict({name: [] for name in rows.column_names}), skipped
    rows = rows if len(good) == len(rows) else rows.select(good)
    kind = List(Value("string")) if any(isinstance(label, list) for label in labels) else Value("string")
    return rows.remove_columns("label").add_column("label", [labels[i] for i in good], feature=kind), skipped


def _load(section: Any) -> tuple[dict, dict]:
    import huggingface_hub
    from datasets import load_dataset
    from huggingface_hub.errors import HTTPError

    try:
        loaded = load_dataset(section.id, section.config, revision=section.revision)
    except Exception as error:  # that library raises nearly everything, its readers' errors and the hub client's included
        raise _explained(section, error) from error
    try:
        found = huggingface_hub.dataset_info(section.id, revision=section.revision)
    except (OSError, HTTPError):
        log.warning("the hub cannot be asked: data set %s comes from the cache, its revision and licence are not known", section.id)
        return dict(loaded), {}
    license_ = (found.card_data.to_dict() if found.card_data else {}).get("license")
    return dict(loaded), {"sha": found.sha, "license": license_[0] if isinstance(license_, list) and license_ else license_}


def _explained(section: Any, error: Exception) -> GraftError:
    """What the datasets library or the hub's client complains of, in a line."""
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub.errors import HFValidationError, HTTPError

    if isinstance(error, DatasetGenerationError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0]
    if isinstance(error, DatasetNotFoundError):
        if "gated" in first:
            return DataError(f"data.id: {section.id} is gated: ask for access on its page on the hub, then type `hf auth login`")
        if section.revision and "revision" in first.lower():
            return DataError(f"data.revision: {section.id} has no revision {section.revision!r}: give a branch, a tag or a full commit")
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
        return DataError(f"data.config: {section.id} has the configurations {names}; got {section.config or 'none'}: name one")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return HubError(f"no room left on the disk for data set {section.id}: free some, or set HF_HOME to a folder on another disk")
    if isinstance(error, (OSError, HTTPError)):
        return HubError(f"data set {section.id} cannot be fetched: {first}; check the network, or give a local path")
    return DataError(f"data.id: {section.id} cannot be read: {first}")
