"""Decide what may leave this machine: the complete files of a finished run's model, without tokens or local paths.

Only files that Graft wrote are published, and links are not followed. `list_export` records what an export wrote. In
runs older than that record, the names of the files decide.
"""

import json
import os
import re
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pipelines.config import encoders
from pipelines.config.recipe import HUB_METRIC
from pipelines.config.yaml_io import parse, read_file
from pipelines.data import trained_rows
from pipelines.errors import ModelError, RunError
from pipelines.models.pretrained import LORA
from pipelines.reporting import mistakes
from pipelines.reporting.mistakes import Mistakes
from pipelines.reporting.results import check_run_folder, read_results
from pipelines.utils.files import read_json, write_json

TEXT = {".md", ".json", ".jsonl", ".yaml", ".yml", ".txt", ".csv", ".jinja"}
CONFIGS = {"config.json", "adapter_config.json", "model_index.json"}
VOCODER = "vocoder"  # a folder of a model that speaks: what makes recordings of its spectrograms
EXPORTED = "exported.json"  # a file in the run folder with the names of what the export wrote into model/
CARD = ("README.md", "recipe.yaml", "results.json")  # written there by the card step, in addition to figures/
# How the libraries name the files of a model and of its preprocessing.
WEIGHTS = re.compile(
    r"(model|adapter_model|diffusion_pytorch_model|pytorch_lora_weights|speaker_embeddings)\.safetensors(\.index\.json)?"
)
SHARD = re.compile(r"(model|diffusion_pytorch_model)-\d{5}-of-\d{5}\.safetensors")
READS = re.compile(
    r"(config|generation_config|adapter_config|model_index|id2label|(pre|video_pre)?processor_config|image_processor|scheduler_config|"
    r"tokenizer|tokenizer_config|special_tokens_map|added_tokens|normalizer|vocab|entity_vocab|unigram)\.json|"
    r"(vocab|merges|dict|sentencepiece|emoji)\.txt|chat_template\.(jinja|json)|bpe\.codes|[\w.-]+\.(model|spm)"
)


@dataclass(frozen=True)
class Parcel:
    """The files for one repository, sent in one commit."""

    kind: str  # "model" or "space"
    repo_id: str
    files: dict[str, Path]  # path in the repository -> file

    def size(self, names: list[str] | None = None) -> str:
        """ "7 files, 343.2 MB": number and size of all files, or of those with these names."""
        names = list(self.files) if names is None else names
        return f"{len(names)} file{'s' * (len(names) != 1)}, {_bytes(sum(self.files[n].stat().st_size for n in names))}"

    def listing(self) -> list[str]:
        return [f"{_bytes(path.stat().st_size):>9}  {name}" for name, path in self.files.items()]


def every_file(folder: Path) -> dict[str, Path]:
    """Path inside the folder -> file, for a folder that holds only Graft's own files."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def list_export(run: Path, model: Path) -> None:
    """Record in the run folder what an export wrote into `model`, which was empty before."""
    write_json(run / EXPORTED, list(every_file(model)))


def _own(run: Path) -> list[str]:
    """Names of the files that Graft wrote into model/, whether or not they still exist."""
    model = run / "model"
    exported = read_json(run / EXPORTED)
    names = _below(run / EXPORTED, exported) if isinstance(exported, list) else _named_as_an_export(model)
    names |= {trained_rows.FILE} & set(_listed(model))  # older runs have no such file
    examples = _json(model / "examples" / "examples.json")
    if isinstance(examples, list):
        values = {
            value for row in examples if isinstance(row, dict) for value in row.values() if isinstance(value, str)
        }
        found = {name for name in _listed(model / "examples") if name in values}
        names |= {"examples/examples.json", *(f"examples/{name}" for name in found)}
    card = _text(model / "README.md") or ""
    figures = re.findall(r"\bfigures/([\w-][\w.-]*\.png)\b", card)
    wrong = re.findall(r"\bmistakes/(\d+\.(?:jpg|mp3|flac))\b", card)
    sounds = re.findall(r"\bsamples/(\d{5}\.wav)\b", card)
    shown = {*(f"figures/{name}" for name in figures), *(f"{mistakes.FOLDER}/{name}" for name in wrong)}
    shown |= {f"samples/{name}" for name in sounds}
    return sorted({*names, *CARD, *shown})


def _below(path: Path, names: list[Any]) -> set[str]:
    """The names that the file `path` lists.

    Raises RunError for a name outside model/, which would publish other files.
    """
    for name in names:
        if (
            not isinstance(name, str)
            or not name
            or "\\" in name
            or "\0" in name
            or PurePosixPath(name).is_absolute()
            or ".." in name.split("/")
        ):
            raise RunError(
                f"{path}: {name!r} is no path below model/: take it out of the list, or delete the list; nothing was "
                "published"
            )
    return set(names)


def _named_as_an_export(model: Path) -> set[str]:
    """The files of the model and of a pipeline's parts by their names, for a run without a record of its export."""
    index = _json(model / "model_index.json") or {}
    parts = [name for name, value in index.items() if isinstance(value, list) and re.fullmatch(r"\w+", name)]
    found = set()
    for folder in ("", *parts, *([VOCODER] if (model / VOCODER).is_dir() else [])):
        names = _listed(model / folder)
        weights = [name for name in names if WEIGHTS.fullmatch(name)]
        indexes = [_json(model / folder / name) or {} for name in weights if name.endswith(".index.json")]
        shards = {
            shard for index in indexes for shard in index.get("weight_map", {}).values() if SHARD.fullmatch(shard)
        }
        found |= {
            f"{folder}/{name}".lstrip("/")
            for name in names
            if name in weights or name in shards or READS.fullmatch(name)
        }
    more = "additional_chat_templates"
    return found | {f"{more}/{name}" for name in _listed(model / more) if name.endswith(".jinja")}


def _listed(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() and not folder.is_symlink() else []


def _text(path: Path) -> str | None:
    """The text of a regular file; None if it does not exist. Raises RunError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8") if stat.S_ISREG(path.lstat().st_mode) else None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def _json(path: Path) -> Any:
    """The JSON value in a regular file; None if it does not exist. Raises RunError if it is damaged."""
    text = _text(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise RunError(f"{path}: not JSON: {error}") from error


def own_files(run: Path) -> dict[str, Path]:
    """Path inside `model/` -> file, for everything that Graft wrote there. Raises RunError if one of them is a link."""
    model, found = run / "model", {}
    for name in _own(run):
        path = model / name
        places = [path, *(parent for parent in path.parents if parent != model and parent.is_relative_to(model))]
        if link := next((place for place in places if place.is_symlink()), None):
            raise RunError(
                f"{link}: a link, and publish follows none: put the file itself there, or type the `graft train` "
                "command again"
            )
        if path.is_file():
            found[name] = path
    return found


def left_out(run: Path, files: dict[str, Path]) -> list[str]:
    """One line for each other entry of `model/`. A folder without any of `files` is one entry."""
    model, found = run / "model", []
    for place, folders, names in os.walk(model):
        at = Path(place)
        for name in sorted(folders):
            inside = (at / name).relative_to(model).as_posix()
            if (at / name).is_symlink():
                found.append(f"{inside}: a link")
            elif not any(file.startswith(f"{inside}/") for file in files):
                folders.remove(name)
                found.append(f"{inside}/: not written by Graft")
        for name in names:
            inside = (at / name).relative_to(model).as_posix()
            if inside not in files:
                found.append(f"{inside}: {'a link' if (at / name).is_symlink() else 'not written by Graft'}")
    return sorted(found)


def recipe_of(run: Path) -> dict[str, Any]:
    """recipe.yaml of a run folder. Raises RecipeError if it is damaged, RunError if it cannot be read."""
    return parse(_text(run / "recipe.yaml") or "", str(run / "recipe.yaml")).value


def model_files(run: Path) -> dict[str, Path]:
    """The files of a finished run's model.

    Raises ModelError if it is no run folder, RunError that names what is missing.
    """
    model = run / "model"
    if not (run / "recipe.yaml").is_file():
        raise ModelError(f"{run}: no run folder (it has no recipe.yaml): give the folder that `graft train` wrote")
    check_run_folder(run)
    read_results(run)
    if model.is_symlink():
        raise RunError(f"{model}: a link, and no link is followed: put the model's own folder there")
    files = own_files(run)
    again = "finish the run: type its `graft train` command again"
    if not any(name.endswith(".safetensors") for name in files):
        raise RunError(f"{model}: no weights (*.safetensors): {again}")
    _check_weights(files)
    missing = [name for name in ("recipe.yaml", "results.json") if name not in files]
    missing += [] if (CONFIGS | {LORA}) & files.keys() else ["config.json"]
    if missing:
        raise RunError(f"{model}: {', '.join(missing)} missing: {again}")
    if "README.md" not in files:
        raise RunError(f"{model}: the card (README.md) is missing: type `graft card {run}`")
    allowed, rows = allowed_rows(recipe_of(run)), _json(model / "examples" / "examples.json")
    found = len(rows) if isinstance(rows, list) else 0
    if found > allowed or (not allowed and any(name.startswith("examples/") for name in files)):
        raise RunError(
            f"{model}: examples/ holds {found} rows of the data, but the recipe says `hub.examples: {allowed}`: delete "
            "that folder"
        )
    _refuse_local_sources(model, files)
    return files


def allowed_rows(recipe: dict[str, Any]) -> int:
    """How many rows of the data may be published: `hub.examples` of a recipe."""
    return int((recipe.get("hub") or {}).get("examples") or 0)


def card_shows_too_much(run: Path, files: dict[str, Path]) -> bool:
    """Whether the card may show more rows of the data than recipe.yaml of the run allows now.

    The recipe in model/ is the one that the card was written with. The texts of the rows are in the card itself, so
    the card has to be written again.
    """
    wrong = {name.partition(".")[0] for name in files if name.startswith(f"{mistakes.FOLDER}/")}
    written_with = allowed_rows(read_file(files["recipe.yaml"]).value)
    return max(written_with, len(wrong)) > allowed_rows(recipe_of(run))


def _check_weights(files: dict[str, Path]) -> None:
    """Raise RunError if a file of weights is incomplete. Reads only its header."""
    from safetensors import SafetensorError, safe_open

    for name, file in files.items():
        if name.endswith(".safetensors"):
            try:
                with safe_open(file, "np"):
                    continue
            except (OSError, SafetensorError) as error:
                raise RunError(
                    f"{file}: the weights cannot be read ({error}): restore the file, or train again"
                ) from None


def _refuse_local_sources(model: Path, files: dict[str, Path]) -> None:
    """Raise RunError if recipe or configurations name the source of weights or rows by a path instead of a hub id or
    name.
    """
    published = read_file(files["recipe.yaml"]).value
    for section in ("model", "data"):
        source = str((published.get(section) or {}).get("id") or "")
        if source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source:
            raise RunError(
                f"{model / 'recipe.yaml'}: {section}.id is a local path ({source}): leave only its last part"
            )
    for name in CONFIGS & files.keys():
        config = json.loads(files[name].read_text(encoding="utf-8"))
        for key in ("_name_or_path", "base_model_name_or_path"):
            if not re.fullmatch(r"([\w.-]+(/[\w.-]+)?)?", str(config.get(key) or "")) or str(
                config.get(key)
            ).startswith("."):
                raise RunError(f"{model / name}: {key} is a local path ({config[key]}): leave only its last part")


def refuse_leaks(files: dict[str, Path], run: Path, token: str | None) -> None:
    """The last check before publishing: no access token, no absolute path of this machine.

    Raises RunError with file and line.
    """
    tokens = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b" + (f"|{re.escape(token)}" if token else ""))
    paths = _local_paths(run)
    for name, file in files.items():
        if file.suffix not in TEXT:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if tokens.search(line):
                raise RunError(
                    f"{name}, line {number}: holds an access token: take it out, and revoke it; nothing was published"
                )
            if found := paths.search(line):
                raise RunError(
                    f"{name}, line {number}: holds a path of this machine ({found[0]}): take it out; nothing was "
                    "published"
                )


def _local_paths(run: Path) -> re.Pattern[str]:
    """A pattern for paths in the home, current, temporary and run folder, and in anybody's home folder."""
    found = [r"/(?:home|Users)/[\w.-]+/", r"[A-Za-z]:\\+Users\\+[\w.-]+\\"]
    for place in {Path.home(), Path.cwd(), Path(tempfile.gettempdir()), run.absolute(), run.resolve()}:
        # `/tmp` alone may be a word of a vocabulary; `/tmp/x` is a path.
        below = {1: None, 2: r"[/\\]+[\w.]"}.get(len(place.parts), r"(?![\w.-])")
        if below:
            found += [
                re.escape(text) + below for text in {str(place), str(place).replace("\\", "\\\\")}
            ]  # as plain text and as JSON
    return re.compile(rf"(?:(?<![\w.:/-])|(?<=file://))(?:{'|'.join(found)})")


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def public_mistakes(run: Path, recipe: dict[str, Any]) -> Mistakes | None:
    """The wrong rows that the card may show: at most as many as `hub.examples` publishes, and none by default.

    They have no id and no place in the data, because names of files may be names of people.
    """
    most = allowed_rows(recipe)
    found = mistakes.read(run / mistakes.FOLDER) if most > 0 else None
    if found is None:
        return None
    return replace(found, shown=tuple(replace(one, origin=mistakes.NOWHERE) for one in found.shown[:most]))


def public_recipe(recipe: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """The recipe for publishing: model and data by their public names, other local paths by their last part."""
    public: dict[str, Any] = _without_paths(recipe)
    public["data"]["id"] = results["data"]["name"]
    if public["model"]["id"] is not None:
        public["model"]["id"] = results["model"]["id"]
    config = public["model"].get("config")
    place = encoders.place(config)
    if place is not None and place != results["model"].get("encoder"):  # a folder: clients/acme looks like a hub id
        config[encoders.KEYS[config["model_type"]]] = PureWindowsPath(place).name
    if config and isinstance(config.get("word_vectors"), str):
        config["word_vectors"] = PureWindowsPath(config["word_vectors"]).name
    if recipe.get("metrics"):  # local files of metrics are not published
        public["metrics"] = [entry for entry in recipe["metrics"] if HUB_METRIC.fullmatch(entry)]
        if not public["metrics"]:  # a key that Spaces of version 0.1 do not know
            del public["metrics"]
    if public["options"].get("special_tokens") == "text":  # nor this one; results.json says that it is not older
        del public["options"]["special_tokens"]
    return public


def public_results(recipe: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """The results for publishing. They lack what classical learners told of the content of rows, and tables of the
    texts that generated recordings say, beyond as many rows as `hub.examples` allows.

    A word that decides for a class is a piece of somebody's text, so it goes with the rows that `hub.examples` allows.
    Why features were left out may name a file, and that may be the name of a person.
    """
    allowed = allowed_rows(recipe)
    tables = results["test"].get("tables", {})
    hidden = [name for name in results.get("samples", {}).get("rows", []) if name in tables]
    if hidden:
        shown = {name: rows[:allowed] if name in hidden else rows for name, rows in tables.items()}
        tables = {name: rows for name, rows in shown.items() if rows or name not in hidden}
        results = {**results, "test": {**results["test"], "tables": tables}}
    found = results.get("baselines")
    if not found:
        return results
    public = {**found, "skipped": [{"name": one["name"]} for one in found["skipped"]]}
    why = found.get("explanation")
    if why and why["content"] and allowed == 0:
        public["explanation"] = None
    return {**results, "baselines": public}


_LOCAL = re.compile(r"(?:~[^/\\]*|\.{1,2})?[/\\]|[A-Za-z]:[/\\]|\w+://")


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    if isinstance(value, str) and _LOCAL.match(value):  # the query of a URL may contain a token
        return PureWindowsPath(re.split(r"[?#]", value)[0] if "://" in value else value).name
    return value


def refuse_local_paths(name: str, text: str, run: Path, recipe: dict[str, Any]) -> None:
    """Raise RunError if a text for publishing names a path on this machine."""
    places = {str(run.resolve()), str(Path.home()), str(Path.cwd())}
    places |= {str(value) for value in (recipe["model"]["id"], recipe["data"]["id"]) if value and _LOCAL.match(value)}
    for place in sorted(places - {"/", "."}):
        if re.search(rf"(?<![\w.-]){re.escape(place)}(?![\w-])", text):
            raise RunError(f"{run / 'model' / name}: not written, it would publish the local path {place}")
