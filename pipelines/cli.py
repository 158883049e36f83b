"""The commands of `graft`. Settings are keys of recipes; the command line has only commands and key=value overrides."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.errors import RecipeError, RunError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune pretrained models of the hub on your own data. Measure, document, publish and serve them.",
    epilog="A recipe is a YAML file or a name that `graft recipes` prints. Errors show a traceback with --debug.",
)

Source = Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="Run folder, model folder or hub id.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout, nothing else.")]
Data = Annotated[str | None, typer.Option("--data", help="Use other data: a hub id, file or folder.")]
Model = Annotated[str | None, typer.Option("--model", help="Use another model: a hub id, model folder or run folder.")]


# typer contains a copy of click, and exports only subclasses of this class
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command line. A wrong command or option raises RecipeError."""
    try:
        code = app(standalone_mode=False)
    except _UsageError as error:
        if len(sys.argv) < 2:  # `graft` without arguments: the message is the help
            error.show()
            sys.exit(error.exit_code)
        command = error.ctx.command_path if error.ctx else "graft"
        raise RecipeError(f"{error.format_message().rstrip('.')}. See: {command} --help") from None
    sys.exit(code or 0)


def _print_json(value: Any) -> None:
    from pipelines.utils.files import to_json

    sys.stdout.write(to_json(value, indent=2) + "\n")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe, so that you can copy it.")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that Graft ships, or print one."""
    from pipelines.config.catalog import catalog, catalog_table, find_recipe

    if name is not None:
        sys.stdout.write(find_recipe(name).read_text(encoding="utf-8"))
    elif as_json:
        _print_json(catalog())
    else:
        catalog_table()


@app.command()
def check(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]")] = None,
    data: Data = None,
    model: Model = None,
) -> None:
    """Validate a recipe and check its data, model and first batch. Trains nothing."""
    from pipelines.config.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [], data=data, model=model)
    from pipelines.diagnostics.check import check as look

    for line in look(loaded):
        print(line)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]")] = None,
    data: Data = None,
    model: Model = None,
    run: Annotated[Path | None, typer.Option("--run", help="Run folder. Default: runs/TASK/RECIPE.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Test the run with 2 steps on 8 rows per split.")] = False,
) -> None:
    """Train, evaluate and document a model. The same command resumes a stopped run."""
    from pipelines.config.catalog import find_recipe
    from pipelines.config.recipe import load_recipe

    overrides = [*(overrides or []), *(["train.max_steps=2", "train.head_epochs=0"] if smoke else [])]
    try:
        loaded = load_recipe(recipe, overrides, data=data, model=model, exists=True)
    except RecipeError:
        load_recipe(recipe, overrides, data=data, model=model)  # raises an error that lists all problems
        raise
    name = find_recipe(recipe).stem
    folder = run or Path("runs") / loaded.task / (f"{name}-smoke" if smoke else name)
    from pipelines.training.run import train as start
    from pipelines.training.run_folder import goes_on

    if not goes_on(folder, loaded):  # a run may go on with settings that a new run would not accept
        loaded = load_recipe(recipe, overrides, data=data, model=model)
    results = start(loaded, folder, name=name, smoke=smoke)
    if results is None:
        raise typer.Exit(130)
    if results:
        print(_headline(results))
        print(f"report: {folder / 'report.html'}\nmodel:  {folder / 'model'}\nnext:   graft demo {folder}")
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
    source: Annotated[str, typer.Argument(metavar="RUN_OR_MODEL_OR_RECIPE")],
    data: Data = None,
    split: Annotated[str | None, typer.Option("--split", help="Name of the split. Default: test.")] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Also score rows of --data that the model was trained on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score a model on its test split, or on other data."""
    from pipelines.config.catalog import find_recipe
    from pipelines.config.recipe import load_recipe

    try:
        path = find_recipe(source)
    except RecipeError:
        path = None
    if path and allow_overlap:
        raise RecipeError(
            f"--allow-overlap goes with --data and a run folder, model folder or hub id, and {source} is a recipe: "
            "leave it out, or name a model"
        )
    from pipelines.evaluation import evaluate
    from pipelines.utils import distributed

    if path:
        result = evaluate.evaluate_recipe(load_recipe(path, data=data, exists=True), split)
    else:
        result = evaluate.evaluate(source, data=data, split=split, allow_overlap=allow_overlap)
    if not distributed.processes().is_main_process:  # only the main process prints
        return
    if as_json:
        _print_json(result)
        return
    print(f"{result['model']} on {result['n']} {result['split']} rows")
    from pipelines.utils.formatting import interval, resampled, score_in_words

    for name, value in result["metrics"].items():
        known = result["ci95"].get(name)
        bounds = f"   95 % interval {interval(known)}" if known else ""
        print(f"  {name:20} {score_in_words(value, known):>8}{bounds}")
    print(resampled(result))


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN ...", help="Run folders; each is compared with the first.")
    ],
    as_json: Json = False,
) -> None:
    """Compare finished runs on the same test rows: differences with paired intervals.

    For each metric it shows both scores and their difference with a 95 % interval. The intervals resample the same rows
    of both runs. If rows belong together (one speaker, one article), they resample these groups. For accuracies it
    also shows which rows flipped, with McNemar's exact test. It lists the settings that differ between the runs. With
    --json it names all rows that flipped.

    The runs need the same test rows, so the same data and the same data.seed.
    """
    from pipelines.evaluation.compare import compare as compare_runs
    from pipelines.evaluation.compare import table

    result = compare_runs(runs)
    if as_json:
        _print_json(result)
    else:
        print(table(result))


@app.command()
def predict(
    source: Source, inputs: Annotated[list[str], typer.Argument(metavar="INPUT...")], as_json: Json = False
) -> None:
    """Predict for files (images, audio, text), folders, tables (jsonl, csv), text or column=value."""
    from pipelines.inference.predict import predict as answer
    from pipelines.utils import distributed

    answers = answer(source, inputs)
    if not distributed.processes().is_main_process:
        return
    if as_json:
        _print_json(answers)
        return
    for one in answers:
        print(f"{one['input']}: {_short(one['output'])}")


def _short(output: Any) -> str:
    if isinstance(output, list) and output and isinstance(output[0], dict) and {"label", "score"} <= set(output[0]):
        return ", ".join(f"{o['label']} {o['score']:.3f}" for o in output)
    from pipelines.utils.files import to_json

    return output if isinstance(output, str) else to_json(output)


@app.command()
def card(run: RunFolder) -> None:
    """Write the model card of a run again."""
    from pipelines.publishing.card import write_card

    print(write_card(run))


@app.command()
def report(run: RunFolder) -> None:
    """Write the report of a run again."""
    from pipelines.reporting.report import write_report

    print(write_report(run))


@app.command()
def publish(
    run: RunFolder,
    repo_id: Annotated[str, typer.Argument(metavar="OWNER/NAME")],
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

    push(run, repo_id, private=private, space=space, dry_run=dry_run)


@app.command()
def demo(
    source: Source,
    port: Annotated[int | None, typer.Option("--port", help="Port. Default: the first free one from 7860.")] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. 127.0.0.1 is reachable only from this machine.")
    ] = "127.0.0.1",
) -> None:
    """Serve the demo on this machine."""
    from pipelines.apps.launch import launch

    launch(source, port=port, host=host)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from pipelines.config.recipe import recipe_schema

    _print_json(recipe_schema())
