"""After the last step: export the best checkpoint, score what was exported, and write all that a reader may ask for."""

import gc
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from pipelines import batching, checkpoint, evaluation, layers, making, outgoing, results
from pipelines.data import SPLITS, trained_rows
from pipelines.errors import RunError
from pipelines.recipe import Recipe, task_class
from pipelines.stages import Job, build
from pipelines.weights import Weights, load
from pipelines.yamlfile import parse


def finish(job: Job, state: Any) -> dict[str, Any]:
    """Scores are those of the exported model, read back from disk: what is published is what was measured, in the run's precision."""
    from pipelines import kernels

    accelerator = job.accelerator
    job.release()
    if accelerator.is_main_process:
        _export_best(job)
    gc.collect()  # pipelines hold each other in circles
    accelerator.wait_for_everyone()
    loaded = load(job.folder / "model", device="cpu", task=job.recipe.task, options=job.recipe.options)
    if accelerator.mixed_precision == "bf16":  # before it is moved: what was trained in half the memory may not fit whole
        layers.keep_in_bf16(loaded.model, ())
    loaded.model.to(accelerator.device)
    loaded.task.place(accelerator.device)
    job.task = loaded.task
    kernels.install(loaded.model, accelerator.device)
    records = {}
    for split in ("validation", "test"):
        examples = batching.Examples(loaded.task, loaded.task.encode(job.splits[split]))
        records[split] = job.predict(loaded.model, examples, split, split)
    chosen = loaded.task.settle(loaded.task.merge(records["validation"], job.splits.validation), job.splits.validation)
    made = making.make(job, loaded.task, loaded.model)
    records = {split: loaded.task.merge(found, job.splits[split]) for split, found in records.items()}
    outcome: dict[str, Any] = {}
    if accelerator.is_main_process:
        if chosen:
            _configure(job.folder / "model" / "config.json", chosen)
        outcome = write(job, state, records, made)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return outcome


def _export_best(job: Job) -> None:
    fresh = task_class(job.recipe.task)(job.recipe.options)
    export(fresh, build(job.recipe, fresh, job.weights, job.splits), job.root, job.folder, job.recipe, job.weights)


def export(task: Any, model: Any, checkpoints: Path, folder: Path, recipe: Recipe, weights: Weights) -> None:
    """Source weights + best checkpoint -> `model/`, written beside and renamed. LoRA is merged unless the recipe keeps it apart."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    best = checkpoint.marked(checkpoints, "best") or checkpoint.marked(checkpoints, "last")
    if best is None:
        raise RunError(f"{folder}: no whole checkpoint to export")
    try:
        values = load_file(best / "model.safetensors")
        if recipe.train.ema and (best / "ema.safetensors").is_file():
            values |= load_file(best / "ema.safetensors")
    except (OSError, SafetensorError) as error:
        raise RunError(f"{best}: the checkpoint cannot be read ({error}); remove the folder to go on from an earlier one") from None
    checkpoint.load_weights(model, values)
    target, beside = folder / "model", folder / ".model.new"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        if recipe.model.adapter is not None and recipe.hub.adapter:
            task.save_adapter(model, beside, weights.name, weights.revision)
        else:
            task.save(model.merge_and_unload() if recipe.model.adapter is not None else model, beside)
        shutil.rmtree(target, ignore_errors=True)
        outgoing.list_export(folder, beside)
        beside.rename(target)
    except (OSError, SafetensorError) as error:  # safetensors wraps what the disk says
        shutil.rmtree(beside, ignore_errors=True)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(f"{target}: cannot be written: {why}; the checkpoints are whole: free some room and run again") from None


def _configure(path: Path, values: dict[str, Any]) -> None:
    """Add to a model's configuration: transformers keeps what it does not know."""
    results.write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **values})


def write(job: Job, state: Any, records: dict[str, list[dict]], made: dict[str, Any] | None = None) -> dict[str, Any]:
    """predictions/, results.json, figures/, examples/, report.html and the card. `made` is what making.make found."""
    from pipelines.card import write_card
    from pipelines.report import save_figures, write_report

    task, splits, folder = job.task, job.splits, job.folder
    for split, found in records.items():
        results.write_records(folder / "predictions" / f"{split}.jsonl", found)
    with job.progress.task("scoring", 2) as shown:
        scores = {}
        for split in ("test", "validation"):
            scores[split] = evaluation.score_split(task, records[split], splits[split], split)
            for line in results.undefined(split, scores[split]["n"], scores[split]["metrics"]):
                job.progress.say(line)
            shown.advance()
    for part in ("metrics", "ci95", "tables") if made else ():
        scores["test"][part] |= made[part]  # type: ignore[index]
    outcome = summary(job, state, scores) | ({"samples": made["samples"]} if made else {})
    figures = {**(made["figures"] if made else {}), **task.figures(records["test"], splits.test), **_balance(task, splits)}
    save_figures(figures, folder / "figures")
    answered = {record["id"]: record for record in records["test"]}  # a row that cannot be read is no example
    readable = splits.test.select([i for i, id_ in enumerate(splits.test["id"]) if id_ in answered])
    examples(task, readable, answered, folder, job.recipe.hub.examples)
    results.write_json(folder / "results.json", outcome)
    if splits.contents:
        trained = trained_rows.text(job.name, splits.contents["train"], trained_rows.of(job.weights))
        results.write_text(folder / "model" / trained_rows.FILE, trained)
    write_report(folder)  # first: it draws the curves that the card shows
    write_card(folder)  # last, and its copy of results.json the last of it: that says that the run is finished
    return outcome


def _balance(task: Any, splits: Any) -> dict[str, Any]:
    """How many rows of each class each split holds, for data that have classes."""
    from pipelines.figures import class_balance_figure

    if splits.labels is None:
        return {}
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        found = Counter(part for label in splits[split]["label"] for part in (label if isinstance(label, list) else [label]))
        counts[split] = {label: found[label] for label in task.labels}
    return {"class_balance": class_balance_figure(counts)}


def summary(job: Job, state: Any, scores: dict[str, Any]) -> dict[str, Any]:
    """results.json."""
    splits, weights, recipe = job.splits, job.weights, job.recipe
    metric = job.task.metric
    steps = state.before + state.step
    seen = len(job.encoded["train"])
    epochs = steps / job.per_epoch
    seconds = round(state.seconds, 3)
    shown = round(epochs * seen)
    return {
        "schema": results.SCHEMA,
        "task": recipe.task,
        "recipe": job.name,
        "metric": {"name": metric.name, "direction": metric.direction},
        "test": scores["test"],
        "validation": scores["validation"],
        "before": state.first,
        "train": {
            "steps": steps,
            "epochs": round(epochs, 4),
            "examples": shown,
            "seconds": seconds,
            "examples_per_second": round(shown / max(seconds, 1e-9), 3),
            "peak_memory_mb": round(state.peak_memory_mb, 1),  # of training: what follows loads a second model and draws
            "stopped": state.stopped,
            "best_step": state.best_step,
        },
        "data": {
            "name": splits.name,
            "hub_id": splits.hub_id,
            "revision": splits.revision,
            "license": splits.license,
            **{
                s: {
                    "rows": len(splits[s]),
                    "skipped": len(job.skips.found.get(s, {})),
                    "fingerprint": splits.fingerprint[s],
                    "source": splits.source[s],
                    "overlap": splits.overlap.get(s, 0),
                    "trained_before": splits.trained_before.get(s, 0),
                }
                for s in SPLITS
            },
        },
        "model": {
            "id": weights.name,
            "base_model": weights.base_model,
            "revision": weights.revision,
            "license": weights.license,
            "parameters": job.parameters[0],
            "trainable_parameters": job.parameters[1],
            "random_weights": weights.random,
            "adapter": bool(recipe.model.adapter and recipe.hub.adapter),
        },
        "labels": getattr(job.task, "labels", None) or None,
        "environment": results.environment(job.accelerator.num_processes, recipe.train.precision, job.accelerator.device.type),
    }


def examples(task: Any, rows: Any, answered: dict[str, dict], folder: Path, published: int) -> None:
    """A few test rows for card and demo, of as many classes as possible, with what `answered` (by id) says of them where the task tells it.

    Into `model/` only as many as the recipe allows.
    """
    from pipelines.data import spread

    for target, count in ((folder / "examples", max(published, 6)), (folder / "model" / "examples", published)):
        shutil.rmtree(target, ignore_errors=True)
        if count:
            target.mkdir(parents=True)
            chosen = [rows[i] for i in spread(rows, count)]
            found = [task.sample(row, target, str(place)) | task.told(answered[row["id"]]) for place, row in enumerate(chosen)]
            results.write_json(target / "examples.json", found)


def publish_as(folder: Path, recipe: Recipe) -> None:
    """Another `hub` section for a finished run: recipe.yaml, the published examples and the card follow it. Raises RunError."""
    from pipelines.card import write_card
    from pipelines.recipe import dump_recipe, validate

    path = folder / "recipe.yaml"
    old = validate(parse(path.read_text(encoding="utf-8"), str(path))[0], exists=True)
    if old.hub.adapter != recipe.hub.adapter:
        raise RunError(f"{folder}: hub.adapter decides what is exported, and this run is finished; choose another folder with --run")
    kept = folder / "examples" / "examples.json"
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []
    if recipe.hub.examples > len(rows):
        raise RunError(f"{folder}: hub.examples: the run kept {len(rows)} examples, you ask for {recipe.hub.examples}")
    target = folder / "model" / "examples"
    shutil.rmtree(target, ignore_errors=True)
    if recipe.hub.examples:
        target.mkdir()
        chosen = rows[: recipe.hub.examples]
        files = {path.name for path in kept.parent.iterdir() if path.is_file() and not path.is_symlink()}
        for value in (value for row in chosen for value in row.values() if isinstance(value, str)):
            if value in files:  # a text may be a path too
                shutil.copyfile(kept.parent / value, target / value)
        results.write_json(target / "examples.json", chosen)
    results.write_text(folder / "recipe.yaml", dump_recipe(old.model_copy(update={"hub": recipe.hub})))
    write_card(folder)
