"""`graft check`: everything that can be known of a run without training."""

from collections.abc import Iterator

from pipelines import batching, machine
from pipelines.data import SPLITS, load_splits, needs_of, trained_rows, usable
from pipelines.progress import Progress
from pipelines.recipe import Recipe, task_class
from pipelines.skips import Skips
from pipelines.stages import build
from pipelines.weights import resolve


def check(recipe: Recipe) -> Iterator[str]:
    """Lines that say what a run of this recipe would do. Raises the GraftError that the run would raise."""
    import torch

    machine.quiet_libraries(Progress(True))
    yield f"recipe   valid: {recipe.task}"
    machine.trackers(recipe)
    task = task_class(recipe.task)(recipe.options)
    weights = resolve(recipe.model)
    splits = load_splits(recipe.data, needs_of(task), trained_rows.of(weights))
    for split in SPLITS:
        rows, skipped = splits[split], splits.skipped[split]
        yield f"{split:10} {len(rows):,} rows ({splits.source[split]}), {len(skipped)} skipped"
    Skips(recipe.data.max_skipped, splits.skipped, {s: len(splits[s]) + len(splits.skipped[s]) for s in SPLITS})
    for kind, count in splits.ignored.items():
        yield f"left out   {kind} ({count:,})"
    for split in splits.in_train:
        yield f"overlap    {splits.overlap(split)}"
    if splits.labels:
        yield f"classes    {len(splits.labels)}: {', '.join(splits.labels[:10])}{' ...' if len(splits.labels) > 10 else ''}"
    model = build(recipe, task, weights, splits)
    total, trains = (sum(p.numel() for p in model.parameters() if p.requires_grad or whole) for whole in (True, False))
    yield f"model      {weights.name}: {total:,} parameters, {trains:,} train"
    encoded, known, left_out = usable.sorted_out(task.encode(splits.train), splits.train["id"], "train")
    Skips(recipe.data.max_skipped, {"train": [*splits.skipped["train"], *known]}, {"train": len(splits.train)})
    for kind, count in left_out.items():
        yield f"left out   {kind} ({count:,})"
    examples = batching.Examples(task, encoded, recipe.train.seed, task.augments())
    batch = examples[[(0, i) for i in range(min(4, len(examples)))]].batch
    shapes = ", ".join(f"{k} {tuple(v.shape)}" for k, v in batch.items() if hasattr(v, "shape"))
    with torch.no_grad():
        loss = float(task.loss(model, batch, task.counts(batch)))
    yield f"batch      {shapes}; loss {loss:.4g}"
    steps = recipe.train.max_steps or round((recipe.train.epochs or 0) * -(-len(examples) // recipe.train.batch_size))
    if recipe.train.head_epochs and recipe.model.freeze != "backbone":
        steps += recipe.train.head_epochs * -(-len(examples) // recipe.train.batch_size)
    precision = recipe.train.precision if recipe.train.precision != "auto" else machine.best_precision(model)
    yield f"training   {steps:,} steps of {recipe.train.batch_size}, precision {precision}"
