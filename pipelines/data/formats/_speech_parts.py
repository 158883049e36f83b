"""The parts of LibriSpeech and of the sets that were made from it: train-clean-100/SPEAKER/CHAPTER and so on."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import folders
from pipelines.data.formats import _audio_lists
from pipelines.data.schema import Source
from pipelines.errors import DataError

# the rows of a chapter, what is skipped, and other files by their kind
Chapter = tuple[list[_audio_lists.Row], _audio_lists.SkippedRows, Counter[str]]

OFFICIAL = {
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
}


def parts(path: Path, roots: Sequence[str], is_part: Callable[[Path], bool]) -> dict[str, Path]:
    """The name of each part -> its folder.

    `path` is a part, or holds parts, or holds a folder of `roots` with parts.
    """
    path = next((path / name for name in roots if (path / name).is_dir()), path)
    if is_part(path):
        return {path.resolve().name: path}
    return {child.name: child for child in folders(path) if is_part(child)}


def splits(section: DataSection, names: list[str]) -> dict[str, list[str]]:
    """Split -> parts.

    First the parts that the recipe names, then train with the remaining train parts, then the others by their own
    names.
    """
    found: dict[str, list[str]] = {}
    for asked in (section.train, section.validation, section.test):
        own = asked.split("+") if asked else []
        if set(own) <= set(names) and asked not in found:  # name_splits reports unknown names and names given twice
            twice = next((name for name in own if any(name in others for others in found.values())), None)
            if twice:
                raise DataError(
                    f"data: part {twice!r} of {section.id} is in two splits: a row may be in one split only"
                )
            if asked:
                found[asked] = own
    used = {name for several in found.values() for name in several}
    free = [name for name in names if name not in used]
    training = [name for name in free if name.startswith("train")]
    if training and not section.train:
        found["train"] = training
        free = [name for name in free if name not in training]
    return {**found, **{name: [name] for name in free}}


def add(
    source: Source,
    section: DataSection,
    columns: Sequence[str],
    parts: dict[str, Path],
    read_chapter: Callable[[Path], Chapter],
) -> None:
    """Add the rows of all chapters to `source`, split by split (see `splits`). Raises DataError or MissingColumn."""
    ignored: Counter[str] = Counter()
    for name, names in splits(section, list(parts)).items():
        chapters = [chapter for part in names for speaker in folders(parts[part]) for chapter in folders(speaker)]
        rows: list[_audio_lists.Row] = []
        skips: _audio_lists.SkippedRows = []
        # a large part has thousands of chapters, and a disk answers many requests at a time
        with ThreadPoolExecutor(8) as pool:
            for good, bad, others in pool.map(read_chapter, chapters):
                rows += good
                skips += bad
                ignored.update(others)
        _audio_lists.add(source, section, name, rows, skips, columns, parts[names[0]])
    source.ignored = dict(ignored)
