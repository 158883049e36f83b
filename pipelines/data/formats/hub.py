"""Data sets on the hub: parquet or plain files (a loading script is never run)."""

from pathlib import Path
from typing import Any

from pipelines.errors import DataError, HubError


def detect(path: Path) -> bool:
    return False  # what is not on disk


def read(section: Any, columns: tuple[str, ...]) -> Any:
    from datasets import ClassLabel, Dataset, Image

    from pipelines.data import Source

    loaded, info = _load(section)
    source = Source(splits={}, hub_id=section.id, revision=info.get("sha"), license=info.get("license"))
    for name, rows in loaded.items():
        assert isinstance(rows, Dataset)
        names = {c: section.columns.get(c) or _guess(c, rows.features) or c for c in columns}
        for column, own in names.items():
            if own not in rows.column_names:
                raise DataError(
                    f"{section.id}: no column {own!r} (it has: {', '.join(rows.column_names)}); "
                    f"name the right one with data.columns.{column}=NAME"
                )
        label = rows.features.get(names.get("label", ""))
        if isinstance(label, ClassLabel):
            source.labels = list(label.names)
        group = section.group if section.group not in (None, "none") else None
        keep = [*names.values(), *([group] if group and group in rows.column_names else [])]
        rows = rows.select_columns(list(dict.fromkeys(keep))).rename_columns({own: c for c, own in names.items() if own != c})
        for column, feature in rows.features.items():
            if isinstance(feature, Image):
                rows = rows.cast_column(column, Image(decode=False))
        if "label" in columns:
            rows = _named_labels(rows)
        source.splits[name] = rows.add_column("id", [f"{name}/{i}" for i in range(len(rows))])
    return source


def _guess(column: str, features: Any) -> str | None:
    """The only column of the right type, where the name differs (img, fine_label)."""
    from datasets import ClassLabel, Image

    if column in features:
        return column
    wanted = {"image": Image, "label": ClassLabel}.get(column)
    fitting = [name for name, feature in features.items() if wanted and isinstance(feature, wanted)]
    return fitting[0] if len(fitting) == 1 else None


def _named_labels(rows: Any) -> Any:
    """Class numbers -> class names; anything else -> text. A class number of -1 (no label) is an error."""
    from datasets import ClassLabel, Value

    feature = rows.features["label"]
    if not isinstance(feature, ClassLabel):
        texts = [[str(v) for v in label] if isinstance(label, list) else str(label) for label in rows["label"]]
        return rows.remove_columns("label").add_column("label", texts)
    numbers = rows["label"]
    if any(number is None or number < 0 for number in numbers):
        return rows.filter(lambda label: label is not None and label >= 0, input_columns="label").map(
            lambda label: {"label": feature.names[label]}, input_columns="label", features=rows.features | {"label": Value("string")}
        )
    return rows.remove_columns("label").add_column("label", [feature.names[number] for number in numbers])


def _load(section: Any) -> tuple[dict, dict]:
    import huggingface_hub
    from datasets import get_dataset_config_names, load_dataset
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import HfHubHTTPError

    info: dict = {}
    try:
        loaded = load_dataset(section.id, section.config, revision=section.revision)
    except DatasetNotFoundError as error:
        reason = "no such revision" if section.revision and "revision" in str(error).lower() else "not on the hub, or private"
        raise DataError(f"data.id: {section.id}: {reason}; check the spelling, log in with `hf auth login`, or give a local path") from None
    except ValueError as error:
        if "onfig" in str(error):
            names = get_dataset_config_names(section.id, revision=section.revision)
            raise DataError(f"data.config: {section.id} has the configurations {', '.join(names)}; got {section.config!r}") from None
        raise DataError(f"data.id: {section.id}: {error}") from None
    except RuntimeError as error:
        raise DataError(f"data.id: {section.id}: {str(error).splitlines()[0]}") from None
    except (ConnectionError, HfHubHTTPError, OSError) as error:
        raise HubError(f"data set {section.id} cannot be fetched: {str(error).splitlines()[0]}; check the network, or give a local path") from None
    try:
        found = huggingface_hub.dataset_info(section.id, revision=section.revision)
        card = found.card_data.to_dict() if found.card_data else {}
        license_ = card.get("license")
        info = {"sha": found.sha, "license": license_[0] if isinstance(license_, list) and license_ else license_}
    except (ConnectionError, HfHubHTTPError, OSError):
        pass  # offline with a cached copy: revision and licence stay unknown, and the card says so
    return dict(loaded), info
