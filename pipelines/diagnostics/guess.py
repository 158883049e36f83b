"""A guess for `graft train photos/`: which task takes these data, and which recipe for own data trains it.

Names of files and folders decide, and the first rows of a table. Each format says which columns its data have, and each
task which columns it needs (DataSpec), so this file knows no task.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice, product
from pathlib import Path
from typing import Any

from pipelines.config import overrides as overrides_of
from pipelines.config.catalog import FIRST, is_name, own_data, run_name
from pipelines.config.recipe import DataSection, known_keys, load_recipe, task_class
from pipelines.config.yaml_io import read_file
from pipelines.data import compressed, unsupported
from pipelines.data.files import all_files
from pipelines.data.formats import audiofolder, imagefolder, table, videofolder
from pipelines.data.loading import BOXES, ONLY_MASKS, format_module
from pipelines.data.media import AUDIO, IMAGES, MEDIA, VIDEO
from pipelines.data.text import chat
from pipelines.errors import DataError, RecipeError
from pipelines.models.source import read_json_object
from pipelines.utils.files import did_you_mean, problem
from pipelines.utils.formatting import short

COUNTED = 200_000  # files that are counted; a folder that has more is shown as "more than 200,000"
USUAL = {  # column of a task -> other names that tables have for it; they are taken without a question
    "text": ("texts", "sentence", "review", "comment", "content", "document", "body", "message", "tweet"),
    "label": ("labels", "class", "classes", "category", "target", "sentiment", "intent", "topic"),
    "image": ("img", "file_name", "filename", "file", "path"),
    "audio": ("file_name", "filename", "file", "path"),
    "video": ("video_path", "clip", "file_name", "filename", "file", "path"),
    "context": ("passage", "paragraph"),
    "answer": ("answers",),
}


@dataclass(frozen=True)
class Choice:
    """What a command works on: a recipe, the data, the overrides, and the name of the run."""

    recipe: str
    data: str | None
    overrides: list[str]
    base: str
    lines: tuple[str, ...] = ()  # what was guessed, to be shown


@dataclass(frozen=True)
class _Candidate:
    """A recipe that could train on the data, and how."""

    entry: Mapping[str, str]
    purpose: str  # the hub's name for what the task does; tasks with the same one differ in the method only
    columns: int  # how many columns of the data it needs
    architectures: tuple[str, ...]  # how the names of the classes of its models end
    settings: tuple[str, ...]  # overrides that the data require
    sure: bool  # whether the columns have names that need no question


def choose(
    verb: str, source: str | None, overrides: Sequence[str] = (), data: str | None = None, model: str | None = None
) -> Choice:
    """The recipe of a command. `source` is what follows the verb: a recipe, data, or an override if --data is given.

    A recipe's name wins over a folder of that name. Raises RecipeError; if several tasks take the data, it lists the
    commands to choose from.
    """
    typed = list(overrides)
    if source is not None and not is_name(source) and "=" in source and not _exists(source):
        typed, source = [source, *typed], None
    if source is None and data is None:
        raise RecipeError(
            f"`graft {verb}` needs your data (graft {verb} FOLDER) or a recipe (`graft recipes` lists them)"
        )
    if source is not None and (is_name(source) or not _exists(source)):
        also = (f"{source} is taken as the recipe of this name; for the folder: graft {verb} ./{source}",)
        return Choice(source, data, typed, run_name(source), also if Path(source).is_dir() else ())
    if source is not None and data is not None:
        raise RecipeError(f"{short(source, 80)} and --data {short(data, 80)} are both data: leave one out")
    given = source if source is not None else str(data)
    if not _exists(given):
        raise RecipeError(
            f"--data {short(given, 80)}: no such file or folder{did_you_mean(given)}, and Graft looks only at data on "
            f"this disk to choose a recipe: correct it, or name a recipe: graft {verb} RECIPE --data {short(given, 80)}"
        )
    return _guess(verb, given, typed, model)


def _exists(source: str) -> bool:
    return not problem(source) and Path(source).expanduser().exists()


def _guess(verb: str, given: str, overrides: list[str], model: str | None) -> Choice:
    path = Path(given).expanduser()
    _refuse_others(path, given, verb)
    columns, what = _look(path)
    found = _candidates(columns, overrides)
    if not found:
        needs = "; ".join(dict.fromkeys(entry["takes"].removesuffix(FIRST) for entry in own_data()))
        sound = "; to learn from the sound of videos, name a recipe for recordings: graft train RECIPE --data FOLDER"
        hint = sound if VIDEO.column in columns.values() else ""
        raise RecipeError(f"{given}: {what}: no task takes them as they are. Graft learns from {needs}{hint}")
    typed = [*overrides, *(["--model", model] if model else [])]

    def command(one: _Candidate) -> str:
        return shlex.join(["graft", verb, one.entry["name"], "--data", given, *one.settings, *typed])

    found = _for_the_model(found, model)
    most = max(one.columns for one in found)
    best = [one for one in found if one.columns == most]
    sure = [one for one in found if one.sure]
    best = [one for one in best if one.sure] or best
    purposes = {one.purpose for one in best}
    yielding = [one for one in best if _YIELDS.get(one.purpose) in purposes]
    best = [one for one in best if one not in yielding]
    if len({one.purpose for one in best}) > 1 or not all(one.sure for one in best):
        first = {(one.purpose, one.settings): one for one in reversed([*best, *(o for o in sure if o not in best)])}
        why = "more than one task takes them" if len({one.purpose for one in first.values()}) > 1 else _UNCLEAR
        commands = [f"  {command(one)}    ({one.entry['task']})" for one in reversed(first.values())]
        raise RecipeError("\n".join([f"{given}: {what}: {why}. Choose:", *commands[:8]]))
    chosen, *others = best
    named = compressed.inner(path.resolve())
    base = (named.stem if path.is_file() else named.name) or "data"
    train = f"-> {chosen.entry['task']}, recipe {chosen.entry['name']} {' '.join(chosen.settings)}".rstrip()
    also = ", ".join(dict.fromkeys(one.entry["name"] for one in [*others, *yielding]))
    lines = (f"{given}: {what}", train + (f"; other recipes for such data: {also}" if also else ""))
    return Choice(chosen.entry["name"], given, [*chosen.settings, *overrides], base, lines)


# a purpose that takes the same columns as another one, which most people mean; its recipes are named beside
_YIELDS = {"text-to-speech": "automatic-speech-recognition"}
_UNCLEAR = "it is not clear which column is which"


def _refuse_others(path: Path, given: str, verb: str) -> None:
    """Raise RecipeError for a run folder, a model folder, and for data that no task takes."""
    from pipelines.data.formats import youtube8m

    if path.is_dir() and (path / "recipe.yaml").is_file():
        raise RecipeError(
            f"{given} is a run folder, not data: to train its recipe again, graft {verb} {given}/recipe.yaml; to start "
            "from its model, --model"
        )
    if path.is_dir() and any((path / name).is_file() for name in ("config.json", "model_index.json")):
        raise RecipeError(f"{given} is a model folder, not data: graft {verb} DATA --model {given}")
    if path.is_dir() and next(all_files(path), None) is None:
        raise RecipeError(f"{given} is an empty folder: give the folder or the file with your data")
    if youtube8m.detect(path):
        recipe = "youtube8m_lstm" if youtube8m.level(path) == "frame" else "youtube8m_logistic"
        raise RecipeError(
            f"{given}: TFRecord files with features of videos: name a recipe, "
            f"as in graft {verb} {recipe} --data {given}"
        )
    other = None if _is_of(path, BOXES) else unsupported.seen(path)
    if other is not None and _is_of(path, ONLY_MASKS) and _takes_masks():
        other = None
    if other is not None:
        raise RecipeError(f"{given}: {other}: no task of Graft takes them as they are")


def _is_of(path: Path, formats: Iterable[str]) -> bool:
    """Whether data are in one of the layouts."""
    return any(import_module(f"pipelines.data.formats.{name}").detect(path) for name in formats)


def _takes_masks() -> bool:
    """Whether a recipe for own data takes masks."""
    return any("mask" in task_class(load_recipe(one["name"]).task)().data.columns for one in own_data())


# ---- what the data are ----


def _look(path: Path) -> tuple[dict[str, str], str]:
    """The columns of the data with their kinds, and what the data are, in words. Raises DataError or RecipeError."""
    counts = Counter(file.suffix.lower() for file in islice(all_files(path), COUNTED)) if path.is_dir() else Counter()
    media = {kind: sum(counts[suffix] for suffix in kind.suffixes) for kind in (IMAGES, AUDIO)}
    kind = max(media, key=media.__getitem__)
    try:
        module = format_module(DataSection(id=str(path)))
    except DataError:
        if media[kind] and kind is AUDIO:
            raise RecipeError(
                f"{path}: {media[kind]:,} recordings without classes or transcripts, which no task takes: put each "
                "class into a folder, or each transcript into a text file (1.wav and 1.txt)"
            ) from None
        raise
    columns: dict[str, str] = module.columns(path)
    if VIDEO.column in columns.values():  # mp4 is also a suffix of recordings, and gif one of images
        kind, media[VIDEO] = VIDEO, sum(counts[suffix] for suffix in VIDEO.suffixes)
    more = "more than " if sum(counts.values()) == COUNTED else ""
    if module is table or not (kind.column in columns and media[kind]):
        return columns, _of_texts(module, path, columns, counts)
    what = f"{more}{media[kind]:,} {kind.files if media[kind] != 1 else kind.one}"
    labels = module.classes(path) if module in (imagefolder, audiofolder, videofolder) and "label" in columns else []
    if labels:
        some = ", ".join(short(label) for label in labels[:4]) + (", ..." if len(labels) > 4 else "")
        what += f" in {len(labels):,} class folders ({some})"
    elif "objects" in columns:
        what += f" with boxes, in the layout `{module.__name__.rpartition('.')[2]}`"
    elif "mask" in columns:
        what += f" with masks (counted together), in the layout `{module.__name__.rpartition('.')[2]}`"
    elif "text" in columns:
        what += " with captions" if kind is not AUDIO else " with transcripts"
    elif "label" in columns:
        what += " with labels"
    else:
        what += _unlabelled(path)
    return columns, what


def _unlabelled(path: Path) -> str:
    inner = [child for child in path.iterdir() if not child.name.startswith(".")] if path.is_dir() else []
    if len(inner) == 1 and inner[0].is_dir():
        return f" in one folder ({short(inner[0].name)}): a classifier needs a folder for each of two classes or more"
    return " without classes or captions"


def _of_texts(module: Any, path: Path, columns: Mapping[str, str], counts: Counter[str]) -> str:
    if module is table:
        rows, counted = table.size(path)
        named = ", ".join(short(name) for name in list(columns)[:8]) + (", ..." if len(columns) > 8 else "")
        return f"a table of {'' if counted else 'about '}{rows:,} rows with the columns {named}"
    name = module.__name__.rpartition(".")[2]
    if {"question", "context"} <= columns.keys():
        return "questions with passages and answers, in SQuAD's form"
    texts = counts[".txt"] + counts[".md"]
    return (
        f"{texts:,} text files"
        if name == "text" and texts > 1
        else "a text"
        if name == "text"
        else f"data in the layout `{name}`"
    )


# ---- which recipes take them ----


def _candidates(columns: Mapping[str, str], overrides: Sequence[str]) -> list[_Candidate]:
    """Every recipe for own data whose task finds its columns.

    A key that only some tasks have says that one of them is meant. If none of these takes the data, all other tasks are
    asked: the recipe that is chosen names the key that it does not have. Raises RecipeError if no task takes the value
    of an option.
    """
    read = _read_by_recipe(overrides)
    needed = {override for _, understood in read for override in understood}
    return _taking(columns, [one for one in read if one[1].keys() == needed]) or _taking(columns, read)


_Read = tuple[Mapping[str, str], dict[str, tuple[str, Any]]]  # a recipe, and {override: (its full key, value)}


def _taking(columns: Mapping[str, str], recipes: Sequence[_Read]) -> list[_Candidate]:
    found: list[_Candidate] = []
    refused: RecipeError | None = None
    for entry, typed in recipes:
        try:
            recipe = load_recipe(entry["name"], [o for o, (key, _) in typed.items() if key.startswith("options")])
        except RecipeError as error:
            refused = refused or error
            continue
        task = task_class(recipe.task)
        spec, options = task(recipe.options).data, task.Options.model_fields
        if "boxes" in columns.values() and "boxes" not in spec.columns.values():
            continue  # who has boxes wants to learn boxes, not the photos alone
        if "mask" in columns and "mask" not in spec.columns:
            continue  # the same holds for masks
        keys, mapped = {key for key, _ in typed.values()}, _mapped(typed.values())
        talks = chat.KIND in spec.columns
        for names, sure in _talks(columns, mapped) if talks else _named(spec.columns, columns, mapped):
            settings = [f"data.columns.{c}={n}" for c, n in names.items() if n != c and c not in mapped]
            kind = columns.get(names.get("label", ""))
            option = {"labels": "multi_label", "number": "regression"}.get(kind or "")
            if option is not None and not keys & {"options.multi_label", "options.regression", "options"}:
                if option not in options:
                    continue
                settings.append(f"options.{option}=true")
            found.append(
                _Candidate(entry, task.hub.pipeline_tag, len(names), task.hub.architectures, tuple(settings), sure)
            )
    if refused is not None and not found:
        raise refused
    return found


def _read_by_recipe(overrides: Sequence[str]) -> list[_Read]:
    """The recipes for own data, each with the overrides that it understands."""
    found: list[_Read] = []
    for entry in own_data():
        known = known_keys(read_file(Path(entry["path"])).value)
        settings = {override: overrides_of.read([override], known)[0] for override in overrides}
        found.append((entry, {override: read[0] for override, read in settings.items() if read}))
    return found


def _mapped(settings: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """The columns that the user names: the task's column -> the data's."""
    found: dict[str, str] = {}
    for key, value in settings:
        if key == "data.columns":
            found |= {str(column): str(name) for column, name in (value or {}).items()}
        elif key.startswith("data.columns."):
            found[key.removeprefix("data.columns.")] = str(value)
    return found


def _for_the_model(found: list[_Candidate], model: str | None) -> list[_Candidate]:
    """Those whose task has models of this class; all if the model is not on this disk, or fits none of them.

    Texts and a Llama say that texts are to be written.
    """
    path = Path(model).expanduser() / "config.json" if model and _exists(model) else None
    config = read_json_object(path) if path is not None else None
    classes = [str(name) for name in (config or {}).get("architectures") or []]
    fitting = [one for one in found if any(name.endswith(one.architectures) for name in classes)]
    return fitting or found


def _talks(columns: Mapping[str, str], mapped: Mapping[str, str]) -> list[tuple[dict[str, str], bool]]:
    """The columns of conversations, in the form of `_named`. Names that the user gives are no part of it."""
    found = chat.learnable(columns, mapped)
    return [] if found is None else [({column: column for column in found}, True)]


def _named(
    needed: Mapping[str, str], columns: Mapping[str, str], mapped: Mapping[str, str]
) -> list[tuple[dict[str, str], bool]]:
    """Ways to find the columns that a task needs: (the task's column -> the data's), and whether the names are sure."""
    ways: list[list[str]] = []
    sure = True
    taken = set(mapped.values())
    for column, kind in needed.items():
        usual = [column, *USUAL.get(column, ())]
        by_name = [name for name in columns if name.strip().lower() in usual and name not in taken]
        exact = [name for name in by_name if name == column]
        if column in mapped:
            ways.append([mapped[column]])
        elif exact:
            ways.append(exact)
        elif len(by_name) == 1 and (kind not in MEDIA or columns[by_name[0]] == kind):
            ways.append(by_name)
        else:
            alike = [name for name, own in columns.items() if own == kind and name not in taken]
            if column != kind or not alike:  # only a column that is called like its kind is found by how it looks
                return []
            sure = False
            ways.append(alike)
    found = [dict(zip(needed, names, strict=True)) for names in product(*ways) if len(set(names)) == len(names)]
    return [(names, sure) for names in found[:3]]
