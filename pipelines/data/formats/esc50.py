"""ESC-50, 50 classes of environmental sounds in five folds (Piczak 2015), as downloaded: meta/esc50.csv and audio/.

data.test=fold5 names the test fold (default: the last), data.validation=fold4 a validation fold (default: cut from
train). Published results are means over five runs with another test fold each. Clips of one source (src_file) are in
one fold, and a cut keeps them together. ESC-50 is CC BY-NC, its part ESC-10 is CC BY. data.format=esc50 with
data.config=esc10 reads that part only, and so does a folder that holds only its clips.
"""

from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.formats import _audio_lists
from pipelines.data.schema import Source
from pipelines.errors import DataError

CONFIGURED = True  # data.config selects a part
KEEPS_CONFIG = True  # the parts do not depend on where the data are, so --data keeps data.config

COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file")

Cells = list[tuple[str, dict[str, str]]]  # (file:line, cells by column)


def detect(path: Path) -> bool:
    """Whether a folder holds meta/esc50.csv."""
    return (path / "meta" / "esc50.csv").is_file()


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"audio": "audio", "label": "label"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the folds, as splits. Raises DataError or MissingColumn."""
    root = _audio_lists.folder(section)
    path = root / "meta" / "esc50.csv"
    if section.config not in (None, "esc10"):
        raise DataError(f"data.config: {section.config!r} is no part of ESC-50: give esc10, or leave it out")
    found, wrong = _audio_lists.listed(path, COLUMNS)
    others = [row for row in found if row[1]["esc10"] != "True"]
    small = section.config is not None or not any((root / "audio" / cells["filename"]).is_file() for _, cells in others)
    rows = [row for row in found if row not in others] if small else found
    folds = sorted({cells["fold"] for _, cells in rows})
    source = Source(splits={}, group="src_file", license="cc-by-3.0" if small else "cc-by-nc-3.0")
    named = _splits(section, folds)
    for name in dict.fromkeys(("train", *named.values())):
        good, skips = _rows(root / "audio", [row for row in rows if named.get(row[1]["fold"], "train") == name])
        _audio_lists.add(source, section, name, good, [*wrong, *skips] if name == "train" else skips, columns, path)
    if "label" not in section.columns:
        numbers = {cells["category"]: cells["target"].zfill(3) for _, cells in rows}
        source.labels = sorted(numbers, key=numbers.__getitem__)
    source.ignored = {"rows of esc50.csv outside of ESC-10": len(others)} if small and others else {}
    return source


def _splits(section: DataSection, folds: list[str]) -> dict[str, str]:
    """Fold -> split, for folds that are not in train.

    A split has the name that the recipe gives it. Raises DataError.
    """
    if section.train not in (None, "train"):
        raise DataError(
            f"data.train: {section.train!r}: training is on every fold but those of test and validation: leave it out"
        )
    known = {f"fold{fold}": fold for fold in folds}
    named: dict[str, str] = {}
    for name in ("validation", "test"):
        asked = getattr(section, name)
        if asked is not None and asked not in known:
            raise DataError(f"data.{name}: {section.id} has no fold {asked!r} (it has: {', '.join(known)})")
        if asked is not None:
            named[known[asked]] = asked
    left = [fold for fold in folds if fold not in named]
    if section.test is None and left:
        named[left.pop()] = "test"
    if not left:
        raise DataError(f"{section.id}: folds {', '.join(folds)} leave none to train on")
    return named


def _rows(clips: Path, found: Cells) -> tuple[list[_audio_lists.Row], _audio_lists.SkippedRows]:
    rows: dict[str, _audio_lists.Row] = {}
    skips: _audio_lists.SkippedRows = []
    for where, cells in found:
        name = cells["filename"]
        try:
            if not name or not cells["category"] or name in rows:
                raise DataError(f"{name} a second time" if name in rows else "a clip without a name or category")
            also = {"label": cells["category"], "fold": cells["fold"], "src_file": cells["src_file"]}
            rows[name] = {"id": name, **_audio_lists.recording(clips / name), **also}
        except DataError as error:
            skips.append((where, f"{where}: {error}"))
    return list(rows.values()), skips
