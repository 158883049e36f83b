"""Manifests of NVIDIA NeMo: a JSON object a line, also in files called .json; often used without NeMo.

    speech/train_manifest.json      {"audio_filepath": "clips/1.wav", "text": "yes", "duration": 1.5}
    speech/test_manifest.json       {"audio_filepath": "long.wav", "offset": 3.2, "duration": 1.5, "text": "no"}

data.id is a manifest or a folder of them. A manifest is the split that its name contains (train_manifest.json,
dev.jsonl); a single one is train. Paths are relative to the manifest. `offset` and `duration` select a part of a
recording; a duration alone is its length. The class of a recording is `label`, or `command` in older manifests.
"""

import logging
from collections import Counter
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data import compressed
from pipelines.data.files import all_files
from pipelines.data.formats import _audio_lists, table
from pipelines.data.media import AUDIO, paths
from pipelines.data.schema import Source
from pipelines.errors import DataError

log = logging.getLogger("graft")

FILE = "audio_filepath"
USUAL = {"audio": (FILE,), "label": ("label", "command"), "text": ("text",)}  # the task's column -> a manifest's


def detect(path: Path) -> bool:
    """Whether a file is a manifest, or a folder holds some."""
    return _is_manifest(path) if path.is_file() else path.is_dir() and bool(_manifests(path))


def columns(path: Path) -> dict[str, str]:
    """The columns of a manifest, or of the first of a folder, with their kinds. Raises DataError."""
    first = path if path.is_file() else _manifests(path)[0]
    own = table.columns(first)
    names = _named(set(own))
    found = {column: own[name] for column, name in names.items() if column in ("audio", "label", "text")}
    # every text of a short manifest may look like a label
    return {**found, "audio": "audio", **({"text": "text"} if "text" in found else {})}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of every manifest. Raises DataError or MissingColumn."""
    root = Path(section.id).expanduser()
    manifests = [root] if root.is_file() else _manifests(root) if root.is_dir() else []
    if not manifests:
        raise DataError(f"data.id: {section.id} holds no manifest: lines of JSON with {FILE!r} in each")
    source = Source(splits={})
    listed: set[Path] = set()
    for name, path in _splits(manifests, section).items():
        have = set(table.column_names(path))
        names = {column: own for column, own in _named(have).items() if column in (*columns, *optional)}
        names = {**{column: own for column, own in names.items() if column != own}, **section.columns}
        part = table.read(section.model_copy(update={"id": str(path), "columns": names}), columns, optional)
        rows = part.splits["train"]
        source.splits[name], source.skipped[name], source.lost[name] = rows, part.skipped["train"], part.lost["train"]
        source.ignored |= part.ignored
        listed |= {Path(file).resolve() for file in paths(rows) if file}
    if root.is_dir():
        others = sum(file.suffix.lower() in AUDIO.suffixes and file.resolve() not in listed for file in all_files(root))
        source.ignored |= {"recordings that no manifest lists": others} if others else {}
    return source


def _named(have: set[str]) -> dict[str, str]:
    """The task's columns that a manifest has, and their names in it."""
    found = {column: next((name for name in names if name in have), None) for column, names in USUAL.items()}
    return {column: name for column, name in found.items() if name is not None}


def _is_manifest(path: Path) -> bool:
    if compressed.inner(path).suffix.lower() not in (".json", ".jsonl") or not table.is_table(path):
        return False
    try:
        first = table.head(path)[:1]
    except DataError:
        return False
    return bool(first) and isinstance(first[0].get(FILE), str) and "audio" not in first[0]


def _manifests(path: Path) -> list[Path]:
    return [file for file in all_files(path, deep=False) if _is_manifest(file)]


def _splits(manifests: list[Path], section: DataSection) -> dict[str, Path]:
    """Split -> manifest: by the names that the recipe gives, else by the words in the names of the files."""
    stems = [compressed.inner(path).stem for path in manifests]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise DataError(f"{section.id}: two manifests are called {twice[0]!r}, which is the split's name: take one out")
    asked = {section.train, section.validation, section.test}
    roles = [stem if stem in asked else _audio_lists.split_in(stem) or stem for stem in stems]
    names = [one if roles.count(one) == 1 else stem for one, stem in zip(roles, stems, strict=True)]
    if len(names) == 1 and names[0] not in asked:
        names = ["train"]
    return dict(zip(names, manifests, strict=True))
