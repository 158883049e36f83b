"""`graft check`: what can be known about a run without training."""

import time
from collections.abc import Iterator

from pipelines.config.recipe import Recipe, task_class
from pipelines.data import batching, trained_rows
from pipelines.data.loading import load_splits
from pipelines.data.media import file_columns
from pipelines.data.schema import SPLITS
from pipelines.data.video import feature_sets
from pipelines.evaluation import extra_metrics
from pipelines.metrics import modules
from pipelines.models import build, layers
from pipelines.models.source import resolve
from pipelines.training import duration, run_log, trainer
from pipelines.utils import hardware, library_logging
from pipelines.utils.formatting import printable, short
from pipelines.utils.progress import Progress


def check(recipe: Recipe) -> Iterator[str]:
    """Lines that state what a run of this recipe would do. Raises the GraftError that the run would raise."""
    import torch

    library_logging.quiet_libraries(Progress(True))
    yield f"recipe   valid: {recipe.task}"
    run_log.trackers(recipe)
    task = task_class(recipe.task)(recipe.options)
    metrics = modules.load(recipe.metrics)
    extra_metrics.refuse_if_generating(metrics, task)
    weights = resolve(recipe.model)
    splits = load_splits(recipe.data, task.data, trained_rows.of(weights))
    for split in SPLITS:
        rows, skipped = splits[split], splits.skipped[split]
        yield f"{split:10} {len(rows):,} rows ({splits.source[split]}), {len(skipped)} skipped"
        if "features" in file_columns(rows):
            yield f"{'':10} {feature_sets.described(rows)}"
    for kind, count in splits.ignored.items():
        yield f"left out   {kind} ({count:,})"
    for line in splits.overlaps():
        yield f"overlap    {line}"
    if splits.labels:
        shown = [short(printable(label), 40) for label in splits.labels[:10]]
        rest = " ..." if len(splits.labels) > 10 else ""
        yield f"classes    {len(splits.labels)}: {', '.join(shown)}{rest}"
    model = build.build(recipe, task, weights, splits)
    total, trains = (sum(p.numel() for p in model.parameters() if p.requires_grad or whole) for whole in (True, False))
    yield f"model      {weights.title}: {total:,} parameters, {trains:,} train"
    if about := getattr(model, "about_head", ""):
        yield f"head       {about}"
    encoded, taken, skips = trainer.usable_of(recipe, splits, trainer.encode(task, splits))
    for split in SPLITS:
        if (more := len(skips.found[split]) - len(splits.skipped[split])) > 0:
            yield f"skipped    {more} more of {split}, which cannot be used"
    for kind, count in taken.ignored.items():
        if kind not in splits.ignored:
            yield f"left out   {kind} ({count:,})"
    if task.generation is not None:
        task.generation.prepare("cpu")
    rows = len(encoded["train"])
    least = trainer.least_examples(model, rows, recipe.train.batch_size)
    examples = batching.Examples(task, encoded["train"], recipe.train.seed, task.augmentation.enabled, least)
    taken_at_once = min(4, len(examples))
    began = time.perf_counter()
    micro = examples[[(0, i) for i in range(taken_at_once)]]
    reading = time.perf_counter() - began
    skips.add("train", [(str(index), why) for index, why in micro.skipped])
    batch = micro.batch
    # images of several sizes are a list
    first = {key: value[0] if isinstance(value, list) and value else value for key, value in batch.items()}
    shapes = ", ".join(
        f"{len(batch[key])} x {key} {tuple(of.shape)}" if isinstance(batch[key], list) else f"{key} {tuple(of.shape)}"
        for key, of in first.items()
        if hasattr(of, "shape")
    )
    precision = recipe.train.precision if recipe.train.precision != "auto" else hardware.best_precision(model)
    with torch.no_grad():
        loss = float(task.loss(model, batch, task.counts(batch), task.phases[0].name, 0))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            began = time.perf_counter()  # of a second pass: the first one is slow
            task.loss(model, batch, task.counts(batch), task.phases[0].name, 0)
            forward = (reading + time.perf_counter() - began) / taken_at_once
    yield f"batch      {shapes}; loss {loss:.4g}"
    for name, value in extra_metrics.try_out(metrics, task, model, splits.validation, "cpu").items():
        tried = min(extra_metrics.TRIED, len(splits.validation))
        yield f"metric     {name} {value:.4g} on {tried} validation rows, untrained"
    steps, per_epoch = trainer.length(recipe, rows, least)
    if least > 1:  # the smallest batch that a training step can have
        fewest = min(batching.epoch_steps(rows, recipe.train.batch_size, recipe.train.seed, 0, least=least), key=len)
        layers.train_mode(model)
        with torch.no_grad():
            batch = examples[[(0, int(i)) for i in fewest[:4]]].batch
            task.loss(model, batch, task.counts(batch), task.phases[0].name, 0)
    only_head = layers.only_head_trains(task, model)
    expected = trainer.expected_seconds(recipe, task, forward, encoded, steps, per_epoch, only_head)
    for line in trainer.without_effect(recipe, steps, per_epoch, only_head):
        yield f"no effect  {line}"
    if trainer.head_epochs(recipe, task, model):
        trainer.thaw(task, model, {name for name, p in model.named_parameters() if p.requires_grad}, only_head=True)
        steps += trainer.head_steps(recipe, model, rows)
    yield f"training   {steps:,} steps of {recipe.train.batch_size}, precision {precision}"
    if not torch.accelerator.is_available():  # the pass was timed on the CPU, and the run would not train there
        hint = duration.advice(expected, "cpu", only_head=only_head)
        yield f"time       the training takes {duration.in_words(expected)} on this machine{hint}"
