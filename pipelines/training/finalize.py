"""After the last step: export the best checkpoint, score the exported model, and write results, report and card."""

import gc
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from pipelines.config.recipe import task_class
from pipelines.data import batching, trained_rows
from pipelines.data.schema import SPLITS, Splits
from pipelines.evaluation import extra_metrics, row_statistics, scoring
from pipelines.generation import sampling
from pipelines.inference.loading import load
from pipelines.models import layers
from pipelines.models.adapters import format_of
from pipelines.reporting import mistakes, results, settling
from pipelines.reporting.mistakes import Mistakes
from pipelines.reporting.results import summary
from pipelines.task import Record, Task
from pipelines.training import run_folder
from pipelines.training.checkpoint import State
from pipelines.training.export import export_best
from pipelines.training.trainer import Trainer
from pipelines.utils import distributed, files, shares


def finish(trainer: Trainer, state: State) -> dict[str, Any]:
    """Export the best checkpoint, score it and write the results. Returns results.json's content on the main process.

    The scores are those of the exported model after it is read back from disk, so the published model is the measured
    one.
    """
    from pipelines.models import cpu_kernels

    accelerator = trainer.accelerator
    trainer.free()
    export_best(trainer)
    gc.collect()  # pipelines of diffusers hold references to themselves
    accelerator.wait_for_everyone()
    name, options = trainer.recipe.task, trainer.recipe.options
    # Each process generates samples alone, so it needs the complete model.
    sharded = trainer.sharded and task_class(name)(options).generation is None
    # An adapter is merged into the values of its base model when it is read.
    with shares.placeholders(sharded and format_of(trainer.folder / "model") is None):
        loaded = load(trainer.folder / "model", device="cpu", task=name, options=options)
    # before it moves to the device: in float32 the model may not fit
    layers.keep_in_half(loaded.model, (), accelerator.mixed_precision)
    cpu_kernels.install(loaded.model, accelerator.device)
    if sharded:
        loaded.model.requires_grad_(False)  # FSDP shards weights of two dtypes only if those that train have one
        distributed.shard(loaded.model, layers.of_model(loaded.task, loaded.model)[1:-1], accelerator)
    loaded.model.to(accelerator.device)
    layers.freeze_on(loaded.task.frozen, accelerator.device)
    trainer.task = loaded.task
    records = {}
    for split in ("validation", "test"):
        examples = batching.Examples(loaded.task, loaded.task.encode(trainer.splits[split]))
        records[split] = trainer.predict(loaded.model, examples, split, split)
    generated = sampling.finish_samples(trainer, loaded.task, loaded.model)
    if accelerator.is_main_process:  # only this process has the records
        chosen = loaded.task.calibrate(
            loaded.task.merge(records["validation"], trainer.splits.validation), trainer.splits.validation
        )
        records = {split: loaded.task.merge(found, trainer.splits[split]) for split, found in records.items()}
        if chosen:
            _configure(trainer.folder / "model" / "config.json", chosen)
    wrong = None
    if sharded:  # all processes together explain its mistakes
        wrong = _mistakes(trainer, distributed.decided(lambda: records["test"]), loaded.model)
    elif accelerator.is_main_process:
        wrong = _mistakes(trainer, records["test"], loaded.model)
    outcome = write(trainer, state, records, generated, wrong) if accelerator.is_main_process else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return outcome


def _mistakes(trainer: Trainer, records: list[Record], model: Any) -> Mistakes | None:
    with trainer.accelerator.autocast():
        found = mistakes.choose(
            trainer.task, records, trainer.splits.test, "test", source=trainer.recipe.data.id, model=model
        )
    distributed.sharded_again(model)
    return found


def _configure(path: Path, values: dict[str, Any]) -> None:
    """Add values to a model's config.json; transformers keeps keys that it does not know."""
    files.write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **values})


def write(
    trainer: Trainer,
    state: State,
    records: dict[str, list[Record]],
    generated: dict[str, Any] | None = None,
    wrong: Mistakes | None = None,
) -> dict[str, Any]:
    """Write predictions/, results.json, figures/, examples/, mistakes/, report.html and the card; return results.json's
    content.

    `generated` is what sampling.finish_samples returned: scores, figures and settings of generated samples. `wrong`
    are the mistakes that the report shows.
    """
    from pipelines.publishing.card import write_card
    from pipelines.reporting.report import save_figures, write_report

    task, splits, folder = trainer.task, trainer.splits, trainer.folder
    for split, found in records.items():
        files.write_records(folder / "predictions" / f"{split}.jsonl", found)
    with trainer.progress.item("scoring", 2) as shown:
        scores = {}
        for split in ("test", "validation"):
            keep = folder / "predictions" / row_statistics.FILE if split == "test" else None
            scores[split] = scoring.score_split(
                task, records[split], splits[split], split, group=splits.group, keep=keep
            )
            for line in results.undefined(split, scores[split]["n"], scores[split]["metrics"]):
                trainer.progress.say(line)
            shown.advance()
    for part in ("metrics", "ci95", "tables") if generated else ():
        scores["test"][part] |= generated[part]  # type: ignore[index]
    outcome = summary(trainer, state, scores) | ({"samples": generated["samples"]} if generated else {})
    outcome["train"]["unsettled"] = _unsettled(trainer, state, task, records["validation"])
    extra_metrics.add(outcome, trainer.modules, records, trainer.progress.say)
    figures = {
        **(generated["figures"] if generated else {}),
        **task.figures(records["test"], splits.test),
        **_balance(task, splits),
    }
    save_figures(figures, folder / "figures")
    # an unreadable row has no answer, so it is no example
    answered = {record["id"]: record for record in records["test"]}
    readable = splits.test.select([i for i, id_ in enumerate(splits.test["id"]) if id_ in answered])
    examples(task, readable, answered, folder, trainer.recipe.hub.examples)
    files.write_json(folder / "results.json", outcome)
    if splits.contents:
        trained = trained_rows.text(outcome["name"], splits.contents["train"], trained_rows.of(trainer.weights))
        files.write_text(folder / "model" / trained_rows.FILE, trained)
    mistakes.save(wrong, folder / mistakes.FOLDER)
    write_report(folder)  # first: the report draws the curves that the card shows
    trainer.live.close()
    write_card(folder)  # last: the copy of results.json that the card step writes marks the run as finished
    run_folder.finished(folder)
    return outcome


def _unsettled(trainer: Trainer, state: State, task: Task, validation: list[Record]) -> str | None:
    """Why the run ended far from settled, and what to do; None if it did not. The terminal says it, too."""
    from pipelines.reporting.report import read_log

    if state.stopped == "early":  # the validation score ended it
        return None
    best = state.best_step / max(1, state.previous_steps + state.step)
    why = settling.unsettled(read_log(trainer.folder), task.statistics(validation, trainer.splits.validation), best)
    if why is None:
        return None
    longer = f"max_steps={2 * state.step}"
    if trainer.recipe.train.epochs is not None:
        longer = f"epochs={math.ceil(2 * state.step / trainer.per_epoch)}"
    text = f"The run ended far from settled: {why}. Train longer, for example with train.{longer}"
    trainer.progress.say(text)
    return text


def _balance(task: Task, splits: Splits) -> dict[str, Any]:
    """A figure of how many rows of each class each split holds; empty if the data have no classes."""
    from pipelines.plots.classification import class_balance_figure

    if splits.labels is None:
        return {}
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        classes = task.data.strata(splits[split]) or []
        found = Counter(part for label in classes for part in (label if isinstance(label, list) else [label]))
        counts[split] = {label: found[label] for label in task.data.labels}
    return {"class_balance": class_balance_figure(counts)}


def examples(task: Task, rows: Any, answered: dict[str, Record], folder: Path, published: int) -> None:
    """Save a few test rows as sample rows for the card and the demo, of as many classes as possible.

    Each sample row also gets the fields of its record in `answered` (by id) that the task lists in `record_fields`.
    `examples/` in the run folder holds at least 6; `model/examples/`, which is published, holds only `published`.
    """
    from pipelines.data.examples import save_example
    from pipelines.data.schema import spread

    spec = task.data
    for target, count in ((folder / "examples", max(published, 6)), (folder / "model" / "examples", published)):
        shutil.rmtree(target, ignore_errors=True)
        if count:
            target.mkdir(parents=True)
            chosen = [rows[i] for i in spread(rows, count)]
            found = [
                save_example(spec, row, target, str(place))
                | {key: answered[row["id"]][key] for key in spec.record_fields}
                for place, row in enumerate(chosen)
            ]
            files.write_json(target / "examples.json", found)
