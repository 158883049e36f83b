"""What may leave this machine: the files of a finished run's model, complete, and without tokens or local paths in them."""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipelines.errors import ModelError, RunError
from pipelines.pretrained import LORA

TEXT = {".md", ".json", ".jsonl", ".yaml", ".yml", ".txt", ".csv", ".jinja"}
CONFIGS = {"config.json", "adapter_config.json", "model_index.json"}


@dataclass(frozen=True)
class Parcel:
    """What goes into one repo, in one commit."""

    kind: str  # model or space
    repo_id: str
    files: dict[str, Path]  # path in the repo -> file

    def size(self, names: list[str] | None = None) -> str:
        """ "7 files, 343.2 MB", of all files or of the named ones."""
        names = list(self.files) if names is None else names
        return f"{len(names)} file{'s' * (len(names) != 1)}, {_bytes(sum(self.files[n].stat().st_size for n in names))}"

    def listing(self) -> list[str]:
        return [f"{_bytes(path.stat().st_size):>9}  {name}" for name, path in self.files.items()]


def visible_files(folder: Path) -> dict[str, Path]:
    """Path inside the folder -> file; hidden ones stay at home."""
    paths = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: path for name, path in paths.items() if not any(part.startswith(".") for part in name.split("/"))}


def model_files(run: Path) -> dict[str, Path]:
    """The files of a finished run's model. Raises ModelError for no run folder, RunError that says what is missing."""
    model = run / "model"
    if not (run / "recipe.yaml").is_file():
        raise ModelError(f"{run}: no run folder (it has no recipe.yaml): give the folder that `graft train` wrote")
    files = visible_files(model)
    again = "finish the run: type its `graft train` command again"
    if not any(name.endswith(".safetensors") for name in files):
        raise RunError(f"{model}: no weights (*.safetensors): {again}")
    missing = [name for name in ("recipe.yaml", "results.json") if name not in files]
    missing += [] if (CONFIGS | {LORA}) & files.keys() else ["config.json"]
    if missing:
        raise RunError(f"{model}: {', '.join(missing)} missing: {again}")
    if "README.md" not in files:
        raise RunError(f"{model}: the card (README.md) is missing: type `graft card {run}`")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    if not (recipe.get("hub") or {}).get("examples", 0) and any(name.startswith("examples/") for name in files):
        raise RunError(f"{model}: examples/ holds rows of the data, but the recipe says `hub.examples: 0`: delete that folder")
    _refuse_local_sources(model, files)
    return files


def _refuse_local_sources(model: Path, files: dict[str, Path]) -> None:
    """Recipe and configurations name where the weights and rows came from: a hub id or a last path component, no path."""
    published = yaml.safe_load(files["recipe.yaml"].read_text(encoding="utf-8"))
    for section in ("model", "data"):
        source = str((published.get(section) or {}).get("id") or "")
        if source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source:
            raise RunError(f"{model / 'recipe.yaml'}: {section}.id is a local path ({source}): leave only its last part")
    for name in CONFIGS & files.keys():
        config = json.loads(files[name].read_text(encoding="utf-8"))
        for key in ("_name_or_path", "base_model_name_or_path"):
            if not re.fullmatch(r"([\w.-]+(/[\w.-]+)?)?", str(config.get(key) or "")) or str(config.get(key)).startswith("."):
                raise RunError(f"{model / name}: {key} is a local path ({config[key]}): leave only its last part")


def refuse_leaks(files: dict[str, Path], run: Path, token: str | None) -> None:
    """The last look at what goes out: no access token, no absolute path of this machine. Raises RunError with file and line."""
    tokens = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b" + (f"|{re.escape(token)}" if token else ""))
    paths = _local_paths(run)
    for name, file in files.items():
        if file.suffix not in TEXT:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if tokens.search(line):
                raise RunError(f"{name}, line {number}: holds an access token: take it out, and revoke it; nothing was published")
            if found := paths.search(line):
                raise RunError(f"{name}, line {number}: holds a path of this machine ({found[0]}): take it out; nothing was published")


def _local_paths(run: Path) -> re.Pattern[str]:
    """Matches home, current, temporary and run folder, and anybody's home."""
    found = [r"/(?:home|Users)/[\w.-]+/", r"[A-Za-z]:\\+Users\\+[\w.-]+\\"]
    for place in {Path.home(), Path.cwd(), Path(tempfile.gettempdir()), run.absolute(), run.resolve()}:
        # `/tmp` alone may be a word of some vocabulary; `/tmp/x` is a path
        below = {1: None, 2: r"[/\\]+[\w.]"}.get(len(place.parts), r"(?![\w.-])")
        if below:
            found += [re.escape(text) + below for text in {str(place), str(place).replace("\\", "\\\\")}]  # as text, as JSON
    return re.compile(rf"(?:(?<![\w.:/-])|(?<=file://))(?:{'|'.join(found)})")


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
