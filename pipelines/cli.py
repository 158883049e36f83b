"""The commands of `graft`. Settings are keys of recipes; the command line has only commands and key=value overrides."""

import contextlib
import gc
import itertools
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pipelines.errors import HubError, HubUnreachable, ModelError, RecipeError, RunError

if TYPE_CHECKING:
    from pipelines.config.recipe import Recipe

Item = TypeVar("Item")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune pretrained models of the hub on your own data. Measure, document, publish and serve them.",
    epilog="A recipe is a YAML file or a name that `graft recipes` prints. Errors show a traceback with --debug.",
)

Source = Annotated[
    str | None,
    typer.Argument(metavar="RUN_OR_MODEL", help="Run (its name, folder, or `last`), model folder or hub id."),
]
RunFolder = Annotated[
    str | None, typer.Argument(metavar="RUN", help="Run: its name, its folder, or `last` for the newest.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout, nothing else.")]
RecipeOrData = Annotated[
    str | None,
    typer.Argument(metavar="RECIPE_OR_DATA", help="A recipe, or a folder or file with your data."),
]
Data = Annotated[str | None, typer.Option("--data", help="Use other data: a hub id, file or folder.")]
Model = Annotated[str | None, typer.Option("--model", help="Use another model: a hub id, a model folder or a run.")]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Most rows at a time. Default: as many as are fast on the device."),
]
Device = Annotated[
    str | None, typer.Option("--device", help="Device: cpu, cuda, cuda:1, mps. Default: the best of this machine.")
]


# typer contains a copy of click, and exports only subclasses of this class
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command line. A wrong command or option raises RecipeError."""
    words = sys.argv[1:]
    if len(words) > 1 and words[0] in ("-h", "--help"):  # `graft --help train`
        sys.argv[1:] = [*words[1:], words[0]]
    try:
        code = app(standalone_mode=False)
    except _UsageError as error:
        if not words:  # `graft` without arguments: the message is the help
            error.show()
            sys.exit(error.exit_code)
        from pipelines.usage import explained

        raise RecipeError(explained(error, words)) from None
    except HubUnreachable as error:
        from pipelines.usage import offline

        raise HubUnreachable(f"{error}\n{offline(words[0])}") from None
    sys.exit(code or 0)


def _version(asked: bool) -> None:
    if not asked:
        return
    import platform
    from importlib.metadata import version

    libraries = [f"{name} {version(name)}" for name in ("torch", "transformers")]
    print(f"graft {version('graft-pipelines')} ({', '.join(libraries)}, Python {platform.python_version()})")
    raise typer.Exit


@app.callback()
def _graft(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None:
    """Fine-tune pretrained models of the hub on your own data. Measure, document, publish and serve them."""


def _find_sources(recipe: "Recipe") -> None:
    """Raise an error if the data or the model of a recipe do not exist, before anything is written or downloaded.

    Of several processes the first one looks. If it fails, the launcher ends the others.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    from pipelines.config.recipe import format_declares
    from pipelines.hub import places

    data, model = recipe.data, recipe.model
    if not format_declares(data.format, "BUILT_IN"):
        local = data.format not in (None, "hub")
        places.check(data.id, "data", local=local, advice="; --data takes a hub id, a file or a folder")
    if model.id is not None:
        places.check(model.id, "model", advice="; --model takes a hub id, a model folder or a run folder")


def _find_model(source: str) -> None:
    """Raise an error if a model does not exist, before anything heavy is imported."""
    from pipelines.config.catalog import recipe_paths
    from pipelines.hub import places
    from pipelines.models.source import local_model

    if source in recipe_paths() and not Path(source).exists():
        raise ModelError(f"{source} is a recipe, and not a model: train it first, with `graft train {source}`")
    if local_model(source) is None:
        places.check(source, "model", advice="; a model is a run folder, a model folder or a hub id (owner/name)")


def _say(line: str) -> None:
    """Print a line to stderr; a terminal gets it broken between words."""
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else len(line) + 1
    print(textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False), file=sys.stderr)


def _print_json(value: Any) -> None:
    from pipelines.utils.files import to_json

    sys.stdout.write(to_json(value, indent=2) + "\n")


def _needed(source: str | None, name: str = "RUN") -> str:
    """The argument that names a run; without it, the error comes after the list of runs."""
    if source is not None:
        return source
    from pipelines.reporting import runs
    from pipelines.usage import needed

    if found := runs.runs():
        print(runs.table(found), file=sys.stderr)
    raise RecipeError(needed(sys.argv[1], name))


def _run(name: str | None) -> Path:
    from pipelines.reporting.runs import find

    return find(_needed(name))


@contextlib.contextmanager
def _model(name: str | None) -> Iterator[str]:
    """What a run's short name stands for; other names stay as they are. Errors about them name similar runs.

    A model that does not exist is an error before anything heavy is imported.
    """
    from pipelines.reporting import runs

    name = _needed(name, "RUN_OR_MODEL")
    try:
        found = runs.source(name)
        _find_model(found)
        yield found
    except (HubError, ModelError) as error:
        raise runs.hint(name, error) from None


def _start(model: str | None) -> str | None:
    """--model, where a run may be given by its name."""
    from pipelines.reporting.runs import source

    return None if model is None else source(model)


@app.command()
def runs(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="WORD ...", help="List only the runs that hold all these words.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs below runs/, the newest first: date, score with its 95 % interval, data, and what differs."""
    from pipelines.reporting import runs as listing

    found = listing.runs(*(words or []))
    if as_json:
        _print_json(found)
    elif found:
        print(listing.table(found))
        print("\n`graft demo NAME` serves one; `last` is the newest.")
    elif words:
        print(f"no run below runs/ holds {' and '.join(map(repr, words))}")
    else:
        print("there is no run below runs/ here; `graft train RECIPE` makes one")


@app.command()
def recipes(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME_OR_WORD ...", help="Print the recipe NAME, or list those that hold every WORD."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that Graft ships, or print one, so that you can copy it."""
    from pipelines.config.catalog import catalog_table, find_recipe, is_name, matching

    if words and len(words) == 1 and is_name(words[0]):
        sys.stdout.write(find_recipe(words[0]).read_text(encoding="utf-8"))
    elif as_json:
        _print_json(matching(words or []))
    else:
        catalog_table(matching(words or []))


@app.command()
def check(
    recipe: RecipeOrData = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE ...")] = None,
    data: Data = None,
    model: Model = None,
) -> None:
    """Validate a recipe and check its data, model and first batch. Trains nothing. Without a recipe: see `train`."""
    from pipelines.config.recipe import load_recipe
    from pipelines.diagnostics.guess import choose

    chosen = choose("check", recipe, overrides or [], data, _start(model))
    loaded = load_recipe(chosen.recipe, chosen.overrides, data=chosen.data, model=_start(model))
    for line in chosen.lines:
        print(line)
    _find_sources(loaded)
    from pipelines.diagnostics.check import check as look

    for line in look(loaded):
        print(line)


@app.command()
def train(
    recipe: RecipeOrData = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE ...")] = None,
    data: Data = None,
    model: Model = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Run folder. Default: runs/TASK/RECIPE, or a new name for other settings."),
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Test the run with 2 steps on 8 rows per split.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print bars, warnings and the result only.")] = False,
) -> None:
    """Train, evaluate and document a model. The same command resumes a stopped run; other settings make a new one.

    If you give your data instead of a recipe (graft train photos/), Graft says which task takes them, and which recipe
    it uses. If several tasks do, it lists the commands to choose from.
    """
    began = time.time()
    from pipelines.config.catalog import recipe_name
    from pipelines.config.recipe import load_recipe
    from pipelines.diagnostics.guess import choose

    model = _start(model)
    chosen = choose("train", recipe, overrides or [], data, model)
    recipe, data = chosen.recipe, chosen.data
    overrides = [*chosen.overrides, *(["train.max_steps=2", "train.head_epochs=0"] if smoke else [])]
    try:
        loaded = load_recipe(recipe, overrides, data=data, model=model, exists=True)
    except RecipeError:
        load_recipe(recipe, overrides, data=data, model=model)  # raises an error that lists all problems
        raise
    if os.environ.get("RANK", "0") == "0":
        for line in chosen.lines:
            _say(line)
    begun = run.exists() if run else any(Path("runs", loaded.task).glob(f"{chosen.base}*"))
    if not begun:  # a run that was begun may go on without the places that its recipe names
        _find_sources(loaded)
    from pipelines.training import run_folder, run_name
    from pipelines.utils import distributed

    main = distributed.processes().is_main_process

    while True:
        folder, why = (run, "") if run else run_name.choose(chosen.base, loaded, smoke=smoke)
        if not run_folder.goes_on(folder, loaded):  # a run may go on with settings that a new run would not accept
            loaded = load_recipe(recipe, overrides, data=data, model=model)
            if begun:
                _find_sources(loaded)
        from pipelines.training.run import train as start

        if why and main:
            _say(why)
        try:
            results = start(loaded, folder, name=recipe_name(recipe), smoke=smoke, quiet=quiet, began=began)
            break
        except run_folder.Taken:  # another command took the folder a moment ago
            if run:
                raise
    if results is None:
        raise typer.Exit(130)
    if results:
        print(_headline(results))
        from pipelines.reporting.runs import short_name

        print(f"report: {folder / 'report.html'}\nmodel:  {folder / 'model'}\nnext:   graft demo {short_name(folder)}")
        from pipelines.evaluation.extra_metrics import failed

        if names := failed(results):
            raise RunError(
                f"metrics: {', '.join(names)} failed, for the reason above, and the scores are missing; all else is "
                "finished: correct the file, and type the same command again"
            )


def _headline(results: dict[str, Any]) -> str:
    from pipelines.utils.formatting import interval, score_in_words

    name = results["metric"]["name"]
    test, before = results["test"], results["baseline"]
    bounds = test["ci95"].get(name)
    about = [f"95 % interval {interval(bounds)}"] if bounds else []
    about += [f"{score_in_words(before['metrics'][name], bounds)} before"] if before else []
    evaluate = score_in_words(test["metrics"][name], bounds)
    return f"{name} on {test['n']} {test['split']} rows: {evaluate}" + (f" ({', '.join(about)})" if about else "")


@app.command()
def evaluate(
    source: Annotated[str | None, typer.Argument(metavar="RUN_OR_MODEL_OR_RECIPE")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE ...", help="Keys of data and options: data.columns.text=NAME."),
    ] = None,
    data: Data = None,
    split: Annotated[str | None, typer.Option("--split", help="Name of the split. Default: test.")] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Also score rows of --data that the model was trained on.")
    ] = False,
    batch_size: BatchSize = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Score a model on its test split, or on other data."""
    from pipelines.config.catalog import find_recipe
    from pipelines.config.recipe import load_recipe
    from pipelines.hub import places
    from pipelines.reporting import runs as listing

    source = _needed(source, "RUN_OR_MODEL_OR_RECIPE")
    try:  # a run often has the name of its recipe
        path = find_recipe(source) if listing.source(source) == source else None
    except RecipeError:
        path = None
    if path and allow_overlap:
        raise RecipeError(
            f"--allow-overlap goes with --data and a run folder, model folder or hub id, and {source} is a recipe: "
            "leave it out, or name a model"
        )
    if path:
        loaded = load_recipe(path, overrides or [], data=data, exists=True)
        _find_sources(loaded)
        from pipelines.evaluation import evaluate

        result = evaluate.evaluate_recipe(loaded, split, device=device, batch_size=batch_size)
    else:
        if data is not None:
            places.check(data, "data", advice="; --data takes a hub id, a file or a folder")
        with _model(source) as model:
            from pipelines.evaluation import evaluate

            result = evaluate.evaluate(
                model,
                data=data,
                split=split,
                device=device,
                allow_overlap=allow_overlap,
                batch_size=batch_size,
                overrides=overrides or [],
            )
    from pipelines.utils import distributed

    if not distributed.processes().is_main_process:  # only the main process prints
        return
    if as_json:
        _print_json(result)
        return
    rows = f"all {result['n']:,} rows" if result["split"] == "all" else f"{result['n']:,} {result['split']} rows"
    print(f"{result['model']} on {rows}")
    from pipelines.utils.formatting import interval, resampled, score_in_words

    for name, value in result["metrics"].items():
        known = result["ci95"].get(name)
        bounds = f"   95 % interval {interval(known)}" if known else ""
        print(f"  {name:20} {score_in_words(value, known):>8}{bounds}")
    print(resampled(result))
    if result.get("protocol"):
        print(f"Scored: {result['protocol']}.")


@app.command()
def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN RUN ...", help="Runs; each is compared with the first.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File of the page. Default: runs/compare/FIRST--SECOND.html.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare finished runs on the same test rows: differences with paired intervals.

    For each metric it shows both scores and their difference with a 95 % interval. The intervals resample the same rows
    of both runs. If rows belong together (one speaker, one article), they resample these groups. For accuracies it
    also shows which rows flipped, with McNemar's exact test. It lists the settings that differ between the runs.

    The same is written as a page, with the curves of the runs and the rows that flipped. With --json the command names
    all rows that flipped, and writes a page only to --out.

    The runs need the same test rows, so the same data and the same data.seed.
    """
    from pipelines.evaluation.compare import compare as compare_runs
    from pipelines.evaluation.compare import table
    from pipelines.evaluation.compare_page import page_name, write_page
    from pipelines.utils.library_logging import quiet_libraries
    from pipelines.utils.progress import Progress

    quiet_libraries(Progress(True))

    folders = [_run(name) for name in runs or [_needed(None, "RUN RUN ...")]]
    result = compare_runs(folders)
    if as_json:
        _print_json(result)
    else:
        print(table(result))
    if out is not None or not as_json:
        page = write_page(result, out or Path("runs") / "compare" / page_name(folders))
        if not as_json:
            print(f"\npage: {page}")


@app.command()
def baseline(run: RunFolder = None, as_json: Json = False) -> None:
    """Fit classical learners on the rows of a finished run, and show what its network is worth next to them.

    Hand-made features (colours, edges and words of images; words of texts; the sound of recordings) with classical
    learners are fitted on the run's training rows. Their settings are chosen on its validation rows, and its test rows
    are scored once. For each learner it shows the score, and how much better the network is on the same rows, both with
    95 % intervals.

    The numbers are added to results.json, and the report and the card are written again. Images and
    videos need scikit-image: pip install 'graft-pipelines[baseline]'.
    """
    folder = _run(run)
    from pipelines.baselines.baseline import baseline as compare_learners
    from pipelines.baselines.baseline import table

    found = compare_learners(folder)
    if as_json:
        _print_json(found)
    else:
        print(table(found))
        print(f"\nreport: {folder / 'report.html'}")


@app.command()
def predict(
    source: Source = None,
    inputs: Annotated[list[str] | None, typer.Argument(metavar="INPUT...")] = None,
    out: Annotated[
        str | None,  # a Path would lose the `/` at the end of a folder's name
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write the answers to a .csv or .jsonl file; boxes and masks also to COCO's .json, masks also to a "
            "folder of PNG files.",
        ),
    ] = None,
    batch_size: BatchSize = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Predict for files (images, audio, videos, features, text), folders, tables (jsonl, csv), URLs (images, audio,
    videos), text or column=value. If it is stopped, the same command with --out goes on.

    Settings of a model that generates are given in the same way: n=4 for four results, seed=7. If the columns of a
    table have other names, name them: data.columns.text=review.
    """
    from collections import Counter

    from pipelines.usage import needed
    from pipelines.utils import distributed

    # Only the main process predicts. Asking takes time, and there is one process unless a launcher says how many.
    if "WORLD_SIZE" in os.environ and not distributed.processes().is_main_process:
        return
    if source is not None and not inputs:
        raise RecipeError(needed("predict", "INPUT"))
    found: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    number, folder = 0, None
    plain = sys.stdout  # a progress bar on stderr redirects `sys.stdout` to itself, also if that is a file
    with _model(source) as model, contextlib.ExitStack() as stack:
        from pipelines.inference.answers import line, totals
        from pipelines.inference.predict import answers

        # an interrupt leaves a file of complete answers
        given = stack.enter_context(
            contextlib.closing(answers(model, inputs or [], out=out, device=device, batch_size=batch_size))
        )
        for answer in _soon(given):
            number += 1
            counts.update(answer.labels)
            folder = answer.file.parent if answer.file else None
            if as_json:
                found.append({"input": answer.name, "output": answer.output})
            elif out is None:
                print(line(answer.name, answer.columns, answer.output), file=plain, flush=True)
    if as_json:
        _print_json(found)
        return
    if counts and number > 1:
        print(totals(counts))
    if folder is not None:
        print(f"folder: {folder}")
    if out is not None:
        print(f"{number:,} {'answer' if number == 1 else 'answers'}: {out}")


def _soon(items: Iterator[Item]) -> Iterator[Item]:
    """The items, of which the first comes sooner.

    Python's garbage collector takes a fifth of the time in which torch and transformers are imported, and finds
    nothing.
    """
    gc.disable()
    try:
        first = list(itertools.islice(items, 1))
    finally:
        gc.enable()
    yield from first
    yield from items


@app.command()
def card(run: RunFolder = None) -> None:
    """Write the model card of a run again."""
    from pipelines.publishing.card import write_card

    print(write_card(_run(run)))


@app.command()
def report(
    run: RunFolder = None,
    heat_maps: Annotated[
        bool,
        typer.Option(
            "--heat-maps",
            help="Of a classifier: show what decided its wrong answers, and test whether these maps depend on what it "
            "learned. Takes minutes.",
        ),
    ] = False,
) -> None:
    """Write the report of a run again."""
    from pipelines.reporting.report import write_report

    folder = _run(run)
    if heat_maps:
        from pipelines.evaluation.explanation import explain

        explain(folder)
        print(folder / "report.html")
        return
    print(write_report(folder))


@app.command()
def publish(
    run: RunFolder = None,
    repo_id: Annotated[str | None, typer.Argument(metavar="OWNER/NAME")] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    space: Annotated[
        str | None, typer.Option("--space", metavar="OWNER/NAME", help="Also publish a demo as a Space.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded, and upload nothing.")
    ] = False,
) -> None:
    """Publish the model with its card and, with --space, a demo. One commit per repository."""
    from pipelines.publishing.publish import publish as push
    from pipelines.usage import needed

    if run is not None and repo_id is None:
        raise RecipeError(needed("publish", "OWNER/NAME"))
    folder = _run(run)
    assert repo_id is not None  # without a run, the line above raised an error
    push(folder, repo_id, private=private, space=space, dry_run=dry_run)


@app.command()
def demo(
    source: Source = None,
    port: Annotated[
        int | None,
        typer.Option("--port", help="Port. Default: GRADIO_SERVER_PORT, or the first free one from 7860."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host", help="Address to listen on. Default: GRADIO_SERVER_NAME, or 127.0.0.1, for this machine only."
        ),
    ] = None,
) -> None:
    """Serve the demo on this machine."""
    with _model(source) as model:
        from pipelines.apps.launch import launch

        launch(model, port=port, host=host)


@app.command()
def watch(
    run: RunFolder = None,
    port: Annotated[int | None, typer.Option("--port", help="Port. Default: the first free one from 7860.")] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. 127.0.0.1 is reachable only from this machine.")
    ] = "127.0.0.1",
) -> None:
    """Serve the page of a run on this machine. Its curves grow while the run goes on."""
    from pipelines.apps.watch import watch as serve

    serve(_run(run), port=port, host=host)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from pipelines.config.recipe import recipe_schema

    _print_json(recipe_schema())
