"""The model card: write model/README.md of a run, with recipe.yaml and results.json next to it, ready to publish.

    write_card(Path("runs/image-classification/pets_vit_base"), "owner/pets-vit")

The text is hub_cards/<task>.md.j2, which extends base.md.j2; huggingface_hub writes the front matter. The card states
only what was measured. It shows no row of the data unless examples/ is published, and no path of this machine.
"""

import html
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import Recipe, task_class
from pipelines.config.yaml_io import dump, parse, read_file
from pipelines.data.audio import tags
from pipelines.errors import DataError, ModelError, RunError
from pipelines.models.adapters import FORMATS
from pipelines.models.classic_kinds import code
from pipelines.models.source import library, read_json_object
from pipelines.plots.baselines import BESIDE
from pipelines.plots.style import AGGREGATE
from pipelines.publishing.privacy import (
    allowed_rows,
    public_mistakes,
    public_recipe,
    public_results,
    refuse_local_paths,
)
from pipelines.reporting import mistakes
from pipelines.reporting.mistakes import Mistakes, Piece
from pipelines.reporting.pages import FILTERS
from pipelines.reporting.results import check_run_folder, read_results
from pipelines.task import Task
from pipelines.utils.files import to_json, write_text
from pipelines.utils.formatting import readable_name

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

PLACEHOLDER = "OWNER/NAME"  # shown while the repository is not known
CURVES = (
    "learning_curves",
    "validation_metric",
)  # these are shown with the training procedure, all other figures with the results


def write_card(run: Path, repo_id: str | None = None) -> Path:
    """Write model/README.md, model/recipe.yaml, model/results.json, model/figures/, model/samples/ with recordings that
    the model made and, if hub.examples allows it, model/mistakes/. Returns the path of the card.

    Title and snippet show `repo_id`, else hub.repo_id of the recipe, else a placeholder. Raises ModelError if there is
    no finished run, RunError if a text to publish contains a local path.
    """
    check_run_folder(run)
    model = run / "model"
    _read(run / "results.json")
    results, recipe = read_results(run), parse(_read(run / "recipe.yaml"), str(run / "recipe.yaml")).value
    public = public_recipe(recipe, results)
    results = public_results(recipe, results)
    repo_id = repo_id or recipe["hub"]["repo_id"]
    wrong = public_mistakes(run, recipe)
    files = _write_mistakes(model / mistakes.FOLDER, wrong)
    players = _copy_sounds(run, results, allowed_rows(recipe))
    written = {
        "README.md": _render(run, public, results, repo_id, wrong, files, players),
        "recipe.yaml": recipe_text(public, results),
        "results.json": to_json(results, indent=2) + "\n",
    }
    for name, content in written.items():
        refuse_local_paths(name, content, run, recipe)
    _copy_figures(run, results)
    for name, content in written.items():
        write_text(model / name, content)
    return model / "README.md"


# ---- what may be published ----


def recipe_text(public: dict[str, Any], results: dict[str, Any]) -> str:
    local = [results["data"]["name"]] if results["data"]["hub_id"] is None else []
    if results["model"]["id"] != results["model"]["base_model"] and public["model"]["id"] is not None:
        local.append(results["model"]["id"])
    if (encoder := results["model"].get("encoder")) and encoder != results["model"]["base_model"]:
        local.append(f"the encoder's weights, {encoder}")
    note = f"# {' and '.join(local)}: not on the hub; put a path of your own there to train again.\n" if local else ""
    return note + dump(public)


def _copy_figures(run: Path, results: Mapping[str, Any]) -> None:
    """Copy the figures that show no row of the data into model/figures/."""
    target = run / "model" / "figures"
    try:
        shutil.rmtree(target, ignore_errors=True)
        for figure in _figures(run, results):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / "figures" / figure["file"], target / figure["file"])
    except OSError as error:
        raise RunError(f"{target}: cannot be written: {error.strerror or error}") from error


def _write_mistakes(target: Path, wrong: Mistakes | None) -> list[dict[str, str | None]]:
    """Write the files of the wrong rows that the card shows. Returns the names of each row's files."""
    try:
        shutil.rmtree(target, ignore_errors=True)
        if wrong is None or not any(one.picture or one.recording for one in wrong.shown):
            return [{"picture": None, "recording": None} for _ in (wrong.shown if wrong else ())]
        target.mkdir(parents=True)
        return [mistakes.write_files(one, target, str(place)) for place, one in enumerate(wrong.shown)]
    except OSError as error:
        raise RunError(f"{target}: cannot be written: {error.strerror or error}") from error


def _copy_sounds(run: Path, results: Mapping[str, Any], rows: int) -> list[dict[str, str]]:
    """Copy the generated recordings that results.json names into model/samples/: the file of each, and what it is.

    Copies of training recordings are not among them. Their tags hold no text, speaker or class of the data, but for as
    many of them as rows may be published. Samples that say texts of rows, and those of a vocoder, are like rows: only
    so many are copied. Raises RunError.
    """
    import soundfile

    target, found = run / "model" / "samples", []
    made = results.get("samples", {})
    # a sample that says the text of a row, or makes its recording anew, is published like a row
    of_rows = made.get("resynthesised") or made.get("rows")
    published = made.get("published", [])[: rows if of_rows else None]
    try:
        shutil.rmtree(target, ignore_errors=True)
        for place, number in enumerate(published):
            name = f"{int(number):05}.wav"
            path = run / "samples" / name
            if not path.is_file() or path.is_symlink():
                continue
            target.mkdir(parents=True, exist_ok=True)
            about = tags.read_settings(path, name)
            public = {key: value for key, value in about.items() if key not in OF_ROWS or place < rows}
            samples, rate = soundfile.read(path, dtype="int16")
            tags.write(target / name, samples, rate, public)
            parts = [f"{key} {value}" for key, value in public.items() if key in ("speaker", "label", "seed")]
            text = f'"{public["text"]}", ' if "text" in public else ""
            found.append({"file": name, "about": text + ", ".join(parts)})
    except (OSError, soundfile.LibsndfileError, DataError) as error:
        raise RunError(f"{target}: recordings cannot be copied there: {error}") from error
    return found


OF_ROWS = ("text", "speaker", "label", "parameters")  # settings of a recording that come from rows of the data


def _figures(run: Path, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures that show no row, without those of classical learners that results.json no longer names."""
    from PIL import Image

    found = []
    for path in sorted((run / "figures").glob("*.png")):
        with Image.open(path) as image:
            stale = path.stem in BESIDE and not results.get("baselines")
            if image.info.get("Comment") == AGGREGATE and not stale:
                alt = html.escape(image.info["Description"])
                found.append(
                    {"name": path.stem, "file": path.name, "alt": alt, "width": min(round(image.width * 0.51), 760)}
                )
    return found


# ---- front matter ----


def card_data(
    recipe: dict[str, Any],
    results: dict[str, Any],
    name: str,
    adapter: bool = False,
    config: Mapping[str, Any] | None = None,
) -> "ModelCardData":
    """Front matter with a model-index; huggingface_hub reads it back into the numbers of `results`.

    `recipe` is the public one, `config` the model's config.json.
    """
    from huggingface_hub import EvalResult, ModelCardData

    task, test, data, hub = task_class(recipe["task"]), results["test"], results["data"], recipe["hub"]
    made = results.get("samples", {"metrics": []})  # images that the model generated have their own number
    modules = {name: module["source"] for module in results.get("extra_metrics", []) for name in module["metrics"]}
    measured = {
        key: float(value) for key, value in test["metrics"].items() if value is not None and math.isfinite(value)
    }
    evaluated = [
        EvalResult(
            task_type=task.hub.pipeline_tag,
            task_name=task.hub.pipeline_tag.replace("-", " ").capitalize(),
            dataset_type=data["hub_id"] or data["name"],
            dataset_name=data["name"],
            dataset_config=recipe["data"]["config"],
            dataset_split=data[of["split"]]["source"],  # a name such as "cut from train" is not a split of the data set
            dataset_revision=data.get("revision") if data["hub_id"] else None,
            metric_type=key,
            metric_name=readable_name(key),
            metric_value=value,
            metric_args={
                **of["args"],
                **({"module": modules[key]} if key in modules else {}),
                **({"ci95": [float(v) for v in test["ci95"][key]]} if key in test["ci95"] else {}),
            },
        )
        for key, value in measured.items()
        for of in [
            _of_made(made, key) if key in made["metrics"] else {"split": test["split"], "args": {"n": test["n"]}}
        ]
    ]
    base = results["model"]["base_model"] if recipe["model"]["weights"] == "pretrained" else None
    return ModelCardData(
        license=hub["license"],
        language=hub["language"],
        library_name=FORMATS[task.hub.adapter_format].library if adapter else _library(task, config or {}),
        pipeline_tag=task.hub.pipeline_tag,
        base_model=base,
        datasets=[data["hub_id"]] if data["hub_id"] else None,
        tags=["graft", *hub["tags"]],
        metrics=list(measured),
        model_name=name,
        eval_results=evaluated,
        base_model_relation=("adapter" if adapter else "finetune") if base else None,
    )


def _library(task: type[Task], config: Mapping[str, Any]) -> str:
    """The hub's library_name of a model with this config.json."""
    return library(config) or task.hub.library_name


def _of_made(made: dict[str, Any], key: str) -> dict[str, Any]:
    """The data of a metric of generated images or recordings: the number of those that have this figure, and the number
    and split of the real ones.
    """
    n = made.get("measured", {}).get(key, made["n"] - made.get("flagged", 0))
    return {"split": made["reference"], "args": {"n": n, "compared": made["compared"], "reference": made["reference"]}}


# ---- the text ----


def _render(
    run: Path,
    recipe: dict[str, Any],
    results: dict[str, Any],
    repo_id: str | None,
    wrong: Mistakes | None,
    files: list[dict[str, str | None]],
    players: list[dict[str, str]],
) -> str:
    from huggingface_hub import ModelCard

    name = repo_id.split("/")[-1] if repo_id else run.resolve().name
    kind = task_class(recipe["task"])
    adapter = (run / "model" / FORMATS[kind.hub.adapter_format].file).is_file()
    examples = run / "model" / "examples" / "examples.json"
    rows = json.loads(_read(examples)) if examples.is_file() else []
    figures = _figures(run, results)
    config = read_json_object(run / "model" / "config.json") or {}
    template = template_environment().get_template(f"{recipe['task'].replace('-', '_')}.md.j2")
    body = template.render(
        name=name,
        repo_id=repo_id or PLACEHOLDER,
        placeholder=PLACEHOLDER if repo_id is None else None,
        recipe=recipe,
        config=config,
        code=code(config),  # of a network that no library has
        columns=kind(kind.Options.model_validate(recipe["options"], context={"exists": True})).data.input_columns,
        recipe_text=recipe_text(recipe, results),
        results=results,
        metric=results["metric"]["name"],
        test=results["test"],
        apart=results.get("samples", {}).get("metrics", []),  # metrics of other things than test rows
        before=results["baseline"],
        splits={split: of for split, of in results["data"].items() if isinstance(of, dict)},
        tables={title: rows for title, rows in results["test"]["tables"].items() if len(rows) > 1},
        figures=[figure for figure in figures if figure["name"] not in (*CURVES, *BESIDE)],
        beside_figures=[figure for figure in figures if figure["name"] in BESIDE],
        curves=[figure for figure in figures if figure["name"] in CURVES],
        examples=rows[: allowed_rows(recipe)],
        adapter=adapter,
        mistakes=wrong,
        mistake_files=files,
        players=players,
    )
    front = card_data(recipe, results, name, adapter, config).to_yaml()
    return str(ModelCard(f"---\n{front}\n---\n\n{body}"))


def template_environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(str(resources.files("pipelines.hub_cards"))),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # the output is Markdown; text from outside is escaped by `md`
    )
    found.filters |= {**FILTERS, "marked": _marked, "md": markdown}
    found.filters |= {"model_link": _model_link, "data_link": _data_link}
    return found


def markdown(text: Any) -> str:
    """Escape a text for Markdown prose and tables, so that nothing in it acts as markup."""
    line = " ".join(str(text).split())
    line = re.sub(r"([\\`*\[\]<>|~$])", r"\\\1", line)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line).replace("&", "&amp;")


def _marked(pieces: Sequence[Piece]) -> str:
    """The parts of a text as Markdown, with the marked ones in bold; words against an answer are not."""
    found = []
    for piece in pieces:
        text, before, after = markdown(piece.text), piece.text[:1].isspace(), piece.text[-1:].isspace()
        bold = piece.mark in ("true", "predicted", "both", "for") and text
        found.append(" " * before + (f"<b>{text}</b>" if bold else text) + " " * after)
    return " ".join("".join(found).split())


def _model_link(hub_id: str) -> str:
    return f"[{hub_id}](https://huggingface.co/{hub_id})"


def _data_link(hub_id: str) -> str:
    return f"[{hub_id}](https://huggingface.co/datasets/{hub_id})"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        kind = RunError if (path.parent / "recipe.yaml").is_file() else ModelError
        raise kind(f"{path.parent}: no {path.name} here: a card is written for a finished run folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def publish_as(folder: Path, recipe: Recipe) -> None:
    """Apply a new `hub` section to a finished run: to recipe.yaml, the published examples and the card.

    Raises RunError.
    """
    from pipelines.config.recipe import dump_recipe, validate, with_older_meanings
    from pipelines.utils import files

    path = folder / "recipe.yaml"
    old = validate(with_older_meanings(read_file(path).value, folder), exists=True)
    if old.hub.adapter != recipe.hub.adapter:
        raise RunError(
            f"{folder}: hub.adapter decides what is exported, and this run is finished; choose another folder with "
            "--run"
        )
    kept = folder / "examples" / "examples.json"
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []
    if recipe.hub.examples > len(rows):
        raise RunError(f"{folder}: hub.examples: the run kept {len(rows)} examples, you ask for {recipe.hub.examples}")
    target = folder / "model" / "examples"
    shutil.rmtree(target, ignore_errors=True)
    if recipe.hub.examples:
        target.mkdir()
        chosen = rows[: recipe.hub.examples]
        names = {path.name for path in kept.parent.iterdir() if path.is_file() and not path.is_symlink()}
        for value in (value for row in chosen for value in row.values() if isinstance(value, str)):
            if value in names:  # a text may also be a path
                shutil.copyfile(kept.parent / value, target / value)
        files.write_json(target / "examples.json", chosen)
    files.write_text(folder / "recipe.yaml", dump_recipe(old.model_copy(update={"hub": recipe.hub})))
    write_card(folder)
