"""The stages of one run: the head alone on the frozen trunk if the recipe asks for it, then everything that trains.

The trainer prepares each stage (trainable parameters, optimisers, order of the examples, cached features, the
checkpoint to resume from). `loop.fit` runs its steps.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from pipelines.config.recipe import Recipe, metric_problem
from pipelines.data import batching, filtering
from pipelines.data.encoding import Encoded
from pipelines.data.filtering import Skips
from pipelines.data.schema import SPLITS, Splits
from pipelines.errors import DataError, RecipeError, RunError
from pipelines.evaluation import extra_metrics, scoring
from pipelines.generation import sampling
from pipelines.metrics.modules import Module
from pipelines.models import layers
from pipelines.models.source import Weights
from pipelines.reporting.live import LiveReport
from pipelines.task import Metric, Phase, Record, Task, headline
from pipelines.training import checkpoint, duration, loop, optim, run_log, unused_parameters
from pipelines.training.checkpoint import State
from pipelines.training.feature_cache import store
from pipelines.training.feature_cache.hooks import Edge
from pipelines.training.stage import PhaseTraining, Stage
from pipelines.utils import distributed, hardware
from pipelines.utils.files import read_json
from pipelines.utils.formatting import large, short, utc
from pipelines.utils.progress import Progress


def encode(task: Task, splits: Splits) -> dict[str, Encoded]:
    found = {split: task.encode(splits[split]) for split in SPLITS}
    return {**found, "train": found["train"].training()}


def usable_of(recipe: Recipe, splits: Splits, encoded: dict[str, Encoded]) -> tuple[dict[str, Encoded], Splits, Skips]:
    """The usable examples of every split, the splits with their ignored rows noted, and the rows that are skipped.

    Raises DataError if too many rows of a split cannot be used. The check comes before training, not in the middle of
    an epoch.
    """
    encoded, skipped, ignored = dict(encoded), dict(splits.skipped), dict(splits.ignored)
    for split in SPLITS:
        encoded[split], known, left_out = filtering.sorted_out(encoded[split], splits[split]["id"], split)
        skipped[split] = [*skipped[split], *known]
        ignored |= left_out
    totals = {split: len(splits[split]) + len(splits.skipped[split]) for split in SPLITS}
    return encoded, dataclasses.replace(splits, ignored=ignored), Skips(recipe.data.max_skipped, skipped, totals)


def least_examples(model: Any, rows: int, batch_size: int) -> int:
    """The smallest number of examples in a forward pass: 2 if a BatchNorm trains, because it compares examples; else 1.

    Raises DataError or RecipeError if the data or the batch size never give two.
    """
    if not layers.has_batch_norm(model):
        return 1
    if rows == 1:
        raise DataError(
            "the train split has one row, and BatchNorm in this model needs two or more: add rows, or set "
            "model.freeze=backbone"
        )
    if batch_size == 1:
        raise RecipeError(
            "train.batch_size=1: BatchNorm in this model needs two or more rows in a step: set train.batch_size=2 or "
            "more"
        )
    return 2


def ranked(phases: Sequence[Phase], metric: Metric, state: State, score: float, total: int) -> tuple[bool, bool, bool]:
    """Enter a validation score into `state`, in a stage of `total` steps.

    Returns whether it is better than all before, whether its checkpoint is now the best, and whether it is better than
    all of this stage. Of two equal scores the later one is the best: the schedule has lowered the rate further.
    """
    known = score if math.isfinite(score) else None
    latest = not all(phase.scored(state.step / total) for phase in phases)
    before = state.best_step - state.previous_steps  # a step of this stage, if it is above 0
    if not latest and before > 0 and not all(phase.scored(before / total) for phase in phases):
        state.best = state.stage_best = None  # scores of a model that did not yet learn what they measure
    improved = latest or metric.better(score, state.best)
    best = improved or score == state.best
    if best:
        state.best, state.best_step = known, state.previous_steps + state.step
    better = latest or metric.better(score, state.stage_best)
    state.stage_best = known if better else state.stage_best
    return improved, best, better


def length(recipe: Recipe, rows: int, least: int) -> tuple[int, int]:
    """Number of steps of the training that follows the head stage, and number of steps in one epoch."""
    train = recipe.train
    per_epoch = batching.steps_per_epoch(rows, train.batch_size, least)
    return train.max_steps or max(train.min_steps or 1, round((train.epochs or 0) * per_epoch)), per_epoch


def expected_seconds(
    recipe: Recipe, task: Task, forward: float, encoded: dict[str, Encoded], steps: int, per_epoch: int, only_head: bool
) -> float:
    """The expected seconds of the training, if a forward pass of one example takes `forward` seconds."""
    train, rows = recipe.train, len(encoded["train"])
    every = per_epoch if train.eval_every == "epoch" else int(train.eval_every)
    stored = only_head and not task.augmentation.enabled and recipe.data.cache_gb > 0
    validation = len(encoded["validation"])
    shown = steps * rows / per_epoch
    found = duration.seconds(
        forward, rows, validation, shown, math.ceil(steps / every), only_head=only_head, stored=stored
    )
    head = 0 if only_head else train.head_epochs
    if head:  # of the head stage, whose features are stored
        found += duration.seconds(forward, rows, validation, head * rows, head, only_head=True, stored=True)
    return found


def head_epochs(recipe: Recipe, task: Task, model: Any) -> int:
    """Epochs of the head stage. It is 0 if the trunk stays frozen afterwards, because then there is only one stage."""
    return 0 if layers.only_head_trains(task, model) else recipe.train.head_epochs


def head_steps(recipe: Recipe, model: Any, rows: int) -> int:
    """Steps of the head stage. `model` must be in the state of that stage: only the head trains (see `thaw`)."""
    least = least_examples(model, rows, recipe.train.batch_size)
    return recipe.train.head_epochs * batching.steps_per_epoch(rows, recipe.train.batch_size, least)


def thaw(task: Task, model: Any, trains: set[str], only_head: bool) -> None:
    """Set which parameters train: those named in `trains`, or of these only the head's parameters."""
    head = {id(p) for p in layers.of_model(task, model)[-1].parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trains and (not only_head or id(parameter) in head))


def without_effect(recipe: Recipe, total: int, per_epoch: int, only_head: bool) -> list[str]:
    """Settings of the recipe that change nothing in this run, one line each. `only_head`: the trunk is frozen."""
    idle = [key for key in ("head_epochs", "layer_decay") if getattr(recipe.train, key)]
    named = ", ".join(f"train.{key}" for key in idle)
    lines = [f"the trunk is frozen, so this changes nothing: {named}"] if idle and only_head else []
    if only_head and recipe.train.head_learning_rate is not None:
        lines.append("only the head trains, by train.head_learning_rate: train.learning_rate changes nothing")
    return [*lines, *optim.without_effect(recipe.train, total, per_epoch)]


@dataclass
class Trainer:
    """What the stages of one run share: recipe, model, data, accelerator and log."""

    recipe: Recipe
    folder: Path
    name: str  # the recipe's
    task: Any
    model: Any
    weights: Weights
    splits: Splits
    accelerator: Any
    progress: Progress
    modules: Sequence[Module] = ()  # metrics that the recipe lists
    began: float = 0.0  # time.time() when this command began

    def __post_init__(self) -> None:
        from pipelines.models import cpu_kernels

        cpu_kernels.install(self.model, self.accelerator.device)
        layers.freeze_on(self.task.frozen, self.accelerator.device)
        with self.accelerator.main_process_first():  # the other processes find the cached encodings
            self.encoded = encode(self.task, self.splits)
        self.encoded, self.splits, self.skips = usable_of(self.recipe, self.splits, self.encoded)
        rows = len(self.encoded["train"])
        self.steps, self.per_epoch = length(
            self.recipe, rows, least_examples(self.model, rows, self.recipe.train.batch_size)
        )
        self.eval_batch: int | None = None  # rows per evaluation batch, after memory ran out
        self.eval_budget: int | None = (
            None  # budget of that batch for examples that have lengths; both numbers are equal on all processes
        )
        if self.encoded["train"].lengths is not None:
            hardware.keep_few_kernels()
        self.sharded = str(self.accelerator.distributed_type).endswith("FSDP")
        spec = self.task.generation
        self.judges = spec.prepare(self.accelerator.device) if spec is not None else None
        self.root = self.folder / "checkpoints"
        self.took: float | None = 0.0
        wanted = self.recipe.train.metric
        if wanted is not None and (problem := metric_problem(self.task, wanted)):
            raise RecipeError(problem)  # the model, or the classes of the data, may rule a score out
        self.metric = metric = headline(self.task, wanted)
        about = {"name": self.folder.resolve().name, "model": self.weights.title, "data": self.splits.name}
        about |= {"metric": metric.name, "direction": metric.direction}
        self.live = LiveReport(self.folder, about, self.progress.say, self.accelerator.is_main_process)
        self.log = run_log.Log(self.folder, self.accelerator, self.progress, self.live.update)
        self.trains = {n for n, p in self.model.named_parameters() if p.requires_grad}
        layers.keep_in_half(self.model, self.trains, self.accelerator.mixed_precision)
        self.introduce()
        if self.sharded:  # before the first forward pass: the model may not fit one device
            if self.accelerator.device.type == "cpu":
                hardware.return_memory()
            distributed.shard(self.model, self._layers()[1:-1], self.accelerator)
        extra_metrics.try_out(
            self.modules,
            self.task,
            self.model,
            self.splits.validation,
            self.accelerator.device,
            self.accelerator.autocast(),
        )
        distributed.sharded_again(self.model)

    def introduce(self) -> None:
        trains = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.parameters = (sum(p.numel() for p in self.model.parameters()), trains)
        rows = ", ".join(f"{len(self.splits[s]):,} {s}" for s in SPLITS)
        size = f"{large(self.parameters[0])} parameters ({large(trains)} train)"
        self.progress.say(f"{self.recipe.task}: {self.weights.title}, {size}; {rows} rows")
        head = head_epochs(self.recipe, self.task, self.model)
        if head:
            self.progress.say(f"{head} epochs of the head alone come first (train.head_epochs)")
        if labels := self.splits.labels:
            some = ", ".join(short(label, 40) for label in labels[:10])
            self.progress.say(f"{len(labels)} classes: {some}{' ...' if len(labels) > 10 else ''}")
        if about := getattr(self.model, "about_head", ""):
            self.progress.say(f"head: {about}")
        for line in without_effect(
            self.recipe, self.steps, self.per_epoch, layers.only_head_trains(self.task, self.model)
        ):
            self.progress.say(line)
        for kind, count in self.splits.ignored.items():
            self.progress.say(f"left out: {kind} ({count:,})")
        for line in self.splits.overlaps():
            self.progress.say(line)
        if self.accelerator.is_main_process:
            self.accelerator.init_trackers("graft", config={"recipe": self.name, "task": self.recipe.task})

    def free(self) -> None:
        """Free the memory of the training model and of the task's frozen modules."""
        self.model = self.task = None
        self.accelerator.free_memory()

    # ---- training ----

    def train(self, stopping: Callable[[], bool]) -> State:
        """Run the stages, from the last checkpoint if there is one.

        `stopping` returns True after a signal. Returns the state at the end; `state.stopped` is why training ended
        early. Raises RunError if the data changed since the run started, or if the run folder cannot be written.
        """
        train = self.recipe.train
        if self.accelerator.is_main_process:
            checkpoint.tidy(self.root, train.keep)
        self.accelerator.wait_for_everyone()
        last = checkpoint.latest(self.root)
        saved = checkpoint.read_state(last) if last else None
        if saved:
            changed = [split for split in SPLITS if saved.data.get(split) != self.splits.fingerprint[split]]
            if changed:
                raise RunError(
                    f"{self.folder}: the data changed since the run began ({', '.join(changed)}); choose another "
                    "folder with --run"
                )
            self.skips.found |= saved.skipped
            self.task.state.update(saved.task)
            self.eval_batch, self.eval_budget = saved.eval_batch, saved.eval_budget
        self.log.truncate(saved)
        stage = saved.stage if saved else "head" if head_epochs(self.recipe, self.task, self._plain()) else "train"
        if self.sharded and stage == "head":
            raise RunError(
                "train.head_epochs does not work under FSDP: train the head in a run of its own, and start from that "
                "run's folder"
            )
        # a run of an older version does not know when it started, nor what it took
        self.took = self.took_before(saved)
        before = self.score_baseline() if saved is None and train.baseline else None
        state = saved or State(stage=stage, started=utc(self.began), baseline_scores=before)
        if stage == "head":
            thaw(self.task, self._plain(), self.trains, only_head=True)
            steps = head_steps(self.recipe, self._plain(), len(self.encoded["train"]))
            state = self.fit(state, steps, None, stopping, last)
            if state.stopped == "signal":
                return state
            state, last = state.next_stage(), None
            plain = self._plain()
            self.accelerator.free_memory()  # free the optimiser and the wrapper of the head stage
            self.model = plain
        thaw(self.task, self._plain(), self.trains, only_head=False)
        return self.fit(state, self.steps, train.ema if isinstance(train.ema, float) else None, stopping, last)

    def took_before(self, saved: State | None) -> float | None:
        """Wall time in seconds of the earlier commands of this run; None if an older version did not record it."""
        if saved is None:
            return 0.0
        finished = read_json(self.folder / "model" / "results.json") or {}
        known = [took for took in (saved.wall_seconds, finished.get("wall_seconds")) if took is not None]
        return max(known, default=None)

    def wall_seconds(self) -> float | None:
        """Wall time in seconds of all commands of this run so far, up to now."""
        return None if self.took is None else self.took + time.time() - self.began

    def _plain(self) -> Any:
        """The model without the wrappers of Accelerate, ready to be prepared for the next stage."""
        plain = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        for left in ("forward", "_is_accelerate_prepared"):  # if they stay, a second `prepare` gives no autocast
            plain.__dict__.pop(left, None)
        return plain

    def _layers(self) -> list[Any]:
        return layers.of_model(self.task, self._plain())

    def score_baseline(self) -> dict[str, Any]:
        """Test scores before the first step: they show what the pretrained model can do already."""
        self.live.begin("baseline")
        model = self.model if self.sharded else self.model.to(self.accelerator.device)
        watch = duration.Stopwatch()
        records = self.predict(model, batching.Examples(self.task, self.encoded["test"]), "test", "before", watch.tick)
        self.announce(watch)
        sampling.save_grid(self, model, 0)
        rows, group = self.splits.test, self.splits.group
        return distributed.decided(
            lambda: scoring.score_split(
                self.task, self.task.merge(records, rows), rows, "test", group=group, tables=False
            )
        )

    def announce(self, watch: duration.Stopwatch) -> None:
        """Say how long the training takes, if that is a minute or more."""
        if (forward := watch.per_example()) is None:
            return
        only_head = layers.only_head_trains(self.task, self._plain())
        expected = expected_seconds(
            self.recipe, self.task, forward, self.encoded, self.steps, self.per_epoch, only_head
        )
        if expected >= 60:
            more = duration.advice(expected, self.accelerator.device.type, only_head=only_head)
            self.progress.say(f"the training takes {duration.in_words(expected)} on this machine{more}")

    def predict(
        self, model: Any, examples: Any, split: str, title: str, tick: Callable[[int], None] = lambda _: None
    ) -> list[Record]:
        train = self.recipe.train
        size = hardware.eval_batch(
            train.eval_batch_size, self.accelerator.device.type, examples.lengths is not None, self._at_once()
        )

        found = {"rows": self.eval_batch, examples.length_unit: self.eval_budget}  # of this process

        def smaller(count: int, unit: str) -> None:
            found[unit] = count
            self.progress.say(
                f"out of memory on {split}: going on with {count} {unit} at a time (the result is the same)"
            )

        with self.progress.item(title, len(examples)) as shown:

            def done(count: int) -> None:
                shown.advance(count * self.accelerator.num_processes)
                tick(count * self.accelerator.num_processes)

            records = scoring.predict_split(
                self.task,
                model,
                examples,
                self.accelerator,
                batch_size=min(size, self.eval_batch or size),
                budget=self.eval_budget,
                workers=self.workers(examples),
                skips=self.skips,
                split=split,
                smaller=smaller,
                tick=done,
            )
        self.eval_batch, self.eval_budget = scoring.agreed(found["rows"], found[examples.length_unit])
        return records

    def _at_once(self) -> int | None:
        """The largest number of results that the task generates at a time, which also limits the evaluation batch."""
        return self.task.generation.at_once if self.task.generation is not None else None

    def workers(self, examples: Any) -> int:
        """Number of loader processes for these examples. Cached examples need none, unless noise for a GPU is drawn."""
        on_gpu = self.accelerator.device.type == "cuda"
        if not isinstance(examples, batching.Examples) and not (examples.draws and on_gpu):
            return 0
        return hardware.workers(self.recipe.data.workers, self.accelerator.num_processes, examples)

    def fit(
        self, state: State, total: int, decay: float | None, stopping: Callable[[], bool], last: Path | None
    ) -> State:
        """Prepare one stage, restore it from the checkpoint `last`, and run its steps.

        `total` is the number of steps of the stage, `decay` that of the moving average (None: no average).
        """
        train, accelerator = self.recipe.train, self.accelerator
        plain = self._plain()
        phases, every = self.task.phases, self._layers()
        of_phases = optim.phase_names(plain, phases)
        optimizers: list[Any] = [
            optim.make_optimizer(
                train.optimizer,
                self._groups(plain, every, phase, names),
                phase.betas or train.betas,
                sharded=self.sharded,
            )
            for phase, names in zip(phases, of_phases, strict=True)
        ]
        if train.compile:
            plain.compile()
        if accelerator.num_processes > 1 and not self.sharded:
            some = batching.Examples(self.task, self.encoded["train"], train.seed)
            unused = unused_parameters.may_exist(self.task, plain, some, accelerator.device, accelerator.autocast())
            # all processes must decide alike, and memory may be short on one of them
            accelerator.ddp_handler.find_unused_parameters = not distributed.all_ended(not unused, accelerator.device)
        if self.sharded:
            optimizers = [accelerator.prepare_optimizer(optimizer) for optimizer in optimizers]
        else:
            self.model, *optimizers = accelerator.prepare(plain, *optimizers)
        plain = accelerator.unwrap_model(self.model)
        average = optim.Average(plain, decay, [phase for phase in phases if phase.ema]) if decay else None
        if last is not None:
            by_phase = {phase.name: each.optimizer for phase, each in zip(phases, optimizers, strict=True)}
            checkpoint.restore(last, plain, by_phase, average)
            self.progress.say(f"going on from step {state.previous_steps + state.step}")
        change = self.task.augmentation
        augmented = change.enabled and (change.always or state.stage != "head")
        least = least_examples(plain, len(self.encoded["train"]), train.batch_size)
        examples = batching.Examples(self.task, self.encoded["train"], train.seed, augmented, least)
        lengths = examples.lengths
        with self._cached(plain, examples, augmented, state) as (fed, validation):
            fed.least = least
            if fed is examples and lengths is None and accelerator.device.type == "cpu" and not self.sharded:
                hardware.keep_memory()  # without this, blocks of many sizes fragment the memory
            ragged = lengths is not None and (fed is examples or fed.ragged)
            most = examples.budget.of(accelerator.device.type, training=True) if ragged else None
            micro, budget = hardware.micro_batch(
                train, accelerator, fed, budget=most, together=layers.has_batch_norm(plain)
            )
            plan = batching.Plan(
                len(examples),
                train.batch_size,
                min(micro, state.micro_batch or micro),
                train.seed,
                state.step,
                total,
                accelerator.process_index,
                accelerator.num_processes,
                lengths,
                budget,
                train.sampling == "length",
                least,
            )
            named = dict(plain.named_parameters())
            parts = [
                PhaseTraining(phase, optimizer, [named[name] for name in names])
                for phase, optimizer, names in zip(phases, optimizers, of_phases, strict=True)
            ]
            stage = Stage(
                self.task,
                self.model,
                parts,
                fed,
                plan,
                train,
                accelerator,
                state,
                self.workers(fed),
                average,
                self.skips,
            )
            later = self.steps if state.stage == "head" else 0
            at = {"step": stage.number, "steps": state.previous_steps + total + later}
            self.live.begin("training", stage=state.stage, **at, baseline=self._baseline(state))
            with self.progress.item("training" if state.stage == "train" else "the head", total, state.step) as shown:
                stage.tick = lambda loss, rate: shown.advance(note=f"loss {loss:.3g}  {large(rate)}/s")
                loop.fit(stage, self._evaluator(stage, validation), self._saver(stage), self.log, stopping)
        return state

    def _baseline(self, state: State) -> float | None:
        """The headline metric before training, if it is defined."""
        value = (state.baseline_scores or {"metrics": {}})["metrics"].get(self.metric.name)
        return value if value is not None and math.isfinite(value) else None

    def _groups(self, plain: Any, every: list[Any], phase: Phase, names: list[str]) -> list[dict[str, Any]]:
        """The parameter groups of one phase, with the phase's own learning rate if it has one."""
        train = self.recipe.train
        rate = train.learning_rate if phase.learning_rate is None else phase.learning_rate
        return optim.parameter_groups(
            plain, every, rate, train.head_learning_rate, train.weight_decay, train.layer_decay, set(names)
        )

    @contextlib.contextmanager
    def _cached(self, plain: Any, examples: Any, augmented: bool, state: State) -> Iterator[tuple[Any, Any]]:
        """Examples for training and validation: cached features if the trunk is frozen and nothing random comes before.

        Without a frozen trunk, or with augmentation, they are the examples themselves.
        """
        validation = batching.Examples(self.task, self.encoded["validation"])
        # The task adds noise after its own frozen modules (a VAE, a text encoder), so the model itself has no edge to
        # record at.
        draws = bool(self.task.random_inputs(Random(0)))
        edge = Edge(plain, examples.lengths is not None, self.task.frozen if draws else None)
        frozen_share = sum(p.numel() for m in edge.frozen.values() for p in m.parameters()) / max(1, self.parameters[0])
        # With an adapter every layer has something that trains, so there is no edge to record at.
        inside = (not draws and (self.recipe.model.adapter or self.sharded)) or len(self.task.phases) > 1
        if frozen_share < 0.1 or inside or self.recipe.data.cache_gb == 0:
            yield examples, validation
            return
        if augmented:
            self.progress.say(
                f"{'a part' if draws else 'the trunk'} is frozen but augmentation is on, so every epoch runs it again: "
                f"{self.task.augmentation.switch} caches its features"
            )
            yield examples, validation
            return
        layers.train_mode(self.model)
        with edge.attached():
            since = time.perf_counter()
            both = ((examples, "train"), (validation, "validation"))
            cached = [self._record(edge, of, split, examples.least) for of, split in both]
            state.seconds += time.perf_counter() - since
            ready = all(c is not None for c in cached)
            yield (cached[0], cached[1]) if ready else (examples, validation)

    def _record(self, edge: Edge, examples: Any, split: str, least: int) -> Any:
        train, device = self.recipe.train, self.accelerator.device.type
        if isinstance(train.eval_batch_size, int):
            size = train.eval_batch_size
        elif examples.lengths is not None:
            size = 256  # for examples with lengths the budget limits the batch
        else:  # on a CPU at most the batch of a training step, on a GPU at most the batch of an evaluation
            size = min(
                8, train.batch_size if device == "cpu" else hardware.eval_batch("auto", device, False, self._at_once())
            )
        if (
            least > 1
            # Recording also runs the part that trains, and BatchNorm cannot run on one row: take the next size that
            # leaves no single row.
        ):
            count, processes = len(examples), self.accelerator.num_processes
            sizes = range(size, count + 1)
            size = next((s for s in sizes if count // (math.ceil(count / (s * processes)) * processes) >= least), size)
        return store.record(
            self.task,
            self.model,
            batching.Examples(self.task, examples.encoded, examples.seed),
            edge,
            self.accelerator,
            split=split,
            fingerprint=self.splits.fingerprint[split]
            + self.splits.files_fingerprint(split)
            + examples.encoded.cache_key,
            batch_size=size,
            budget=examples.budget.of(device, training=True),
            workers=self.workers(examples),
            cache_gb=self.recipe.data.cache_gb,
            say=self.progress.say,
        )

    def _evaluator(self, stage: Stage, validation: Any) -> Any:
        metric = self.metric

        def evaluate(state: State) -> bool:
            with stage.average.applied() if stage.average else contextlib.nullcontext():
                records = self.predict(stage.model, validation, "validation", "validation")
                sampling.save_grid(self, self.accelerator.unwrap_model(stage.model), state.previous_steps + state.step)
            rows = self.splits.validation
            scores = distributed.decided(lambda: scoring.scores(self.task, self.task.merge(records, rows), rows))
            if metric.name not in scores:
                raise RecipeError(
                    f"train.metric: these validation rows have no {metric.name} (they have: {', '.join(scores)}): "
                    "choose another"
                )
            scores = {metric.name: scores[metric.name]} | scores  # lines and charts show the first ones
            score = float(scores[metric.name])
            improved, best, better = ranked(self.task.phases, metric, state, score, stage.plan.total_steps)
            self.log(
                {**loop.where(state, stage.plan), "seconds": state.seconds, "validation": scores},
                best=best,
                news=improved,
            )
            return better

        return evaluate

    def _saver(self, stage: Stage) -> Any:
        saved_at = -1

        def save(state: State) -> None:
            nonlocal saved_at
            at, files = state.previous_steps + state.step, {}
            main = self.accelerator.is_main_process
            # The tensors may be on disk already, and an evaluation does not change them.
            if at != saved_at and (main or self.sharded):
                by_phase = {part.phase.name: part.optimizer.optimizer for part in stage.phases}
                files = checkpoint.collect(self.accelerator.unwrap_model(stage.model), by_phase, stage.average)
            saved_at = at
            state.peak_memory_mb = max(state.peak_memory_mb, hardware.peak_memory_mb())
            if self.sharded and files:
                checkpoint.write_shares(self.root, at, files)

            def write() -> None:
                stopped = state.stopped if state.stopped == "early" else None
                kept = dataclasses.replace(
                    state, stopped=stopped, skipped=self.skips.found, data=self.splits.fingerprint
                )
                kept.task, kept.wall_seconds = dict(self.task.state), self.wall_seconds()
                kept.eval_batch, kept.eval_budget = self.eval_batch, self.eval_budget
                tensors = checkpoint.SHARES if self.sharded else files
                checkpoint.write(self.root, at, tensors, kept, best=state.best_step == at)
                checkpoint.prune(self.root, self.recipe.train.keep)

            distributed.decided(write)

        return save
