"""Checkpoints: folders such as `checkpoints/step_000500/`. They are written to a temporary name, synced, then renamed.

So every folder with the name of a checkpoint is complete, whenever the process was killed. A checkpoint holds what a
run cannot rebuild: trainable weights and buffers, optimisers by phase, the moving average, the step and the scores so
far. It holds no random state, because batching.py derives every seed from the step. Tensors are stored unsharded in
safetensors, so one process can resume a run that several processes started.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import RunError
from pipelines.utils.distributed import load_into, whole
from pipelines.utils.files import sync, to_json

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMER_NAMES = {  # names in checkpoints of versions up to 0.1
    "before": "previous_steps",
    "first": "baseline_scores",
    "owed": "evaluation_due",
    "waited": "evals_since_best",
    "eval_tokens": "eval_budget",
}


@dataclass
class State:
    """The plain values of a checkpoint, next to its tensors."""

    stage: str = "train"
    step: int = 0  # of this stage
    previous_steps: int = 0  # steps of earlier stages
    seconds: float = 0.0  # time of steps and of recording features, without evaluation and saving
    started: str | None = None  # when the first command of the run began, in UTC; None in older checkpoints
    wall_seconds: float | None = None  # wall time of all commands of the run; None in older checkpoints
    best: float | None = None
    best_step: int = 0
    stage_best: float | None = None  # best score of this stage, which early stopping compares with
    evals_since_best: int = 0  # evaluations since the best score of the stage
    stopped: str | None = None
    baseline_scores: dict[str, Any] | None = None  # test scores before the first step
    evaluation_due: bool = False  # this step still needs its evaluation, because a signal came first
    peak_memory_mb: float = 0.0  # the maximum over all processes that trained so far
    loss_scale: float | None = None  # factor of the loss in fp16 (see training.loss_scale)
    steps_since_skip: int = 0  # since the scale changed
    skips_in_a_row: int = 0
    skipped_steps: int = 0  # steps of fp16 that were left out because their gradients overflowed
    micro_batch: int | None = None  # the size that fitted, after memory ran out
    eval_batch: int | None = None  # rows per evaluation batch that fitted, after memory ran out
    eval_budget: int | None = None  # the budget of such a batch, for examples that have lengths
    task: dict[str, Any] = field(default_factory=dict)  # what the task learned that is not a weight (Task.state)
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)  # split -> unreadable row -> reason
    data: dict[str, str] = field(default_factory=dict)  # split -> fingerprint

    def next_stage(self) -> "State":
        """The state at the start of the next stage. It keeps everything but the count of steps and the patience."""
        previous = self.previous_steps + self.step
        return dataclasses.replace(
            self, stage="train", step=0, previous_steps=previous, stage_best=None, evals_since_best=0, stopped=None
        )


def collect(model: "nn.Module", optimizers: Mapping[str, Any], average: Any = None) -> dict[str, dict[str, "Tensor"]]:
    """File name -> tensors; `optimizers` by phase.

    Under FSDP every process must call this, because it gathers shards.
    """
    import torch

    files: dict[str, dict[str, Tensor]] = {"model": trainable_state(model)}
    names = {id(p): n for n, p in model.named_parameters()}
    for phase, optimizer in optimizers.items():
        state = optimizer.state.items()
        values = {
            f"{names[id(p)]}|{key}": v for p, entry in state for key, v in entry.items() if isinstance(v, torch.Tensor)
        }
        files[f"optimizer_{phase}"] = {name: whole(v) for name, v in values.items()}
    if average is not None:
        files["ema"] = {name: whole(v) for name, v in average.values.items()}
    return files


def trainable_state(model: "nn.Module") -> dict[str, "Tensor"]:
    """Trainable parameters and all buffers. Frozen weights are left out: the run reads them from their source."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return {name: whole(v) for name, v in {**parameters, **dict(model.named_buffers())}.items()}


def restore(folder: Path, model: "nn.Module", optimizers: Mapping[str, Any], average: Any = None) -> None:
    """Load the tensors of a checkpoint. Raises RunError for a damaged checkpoint."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        load_weights(model, load_file(folder / "model.safetensors"))
        for phase, optimizer in optimizers.items():
            _load_optimizer(model, optimizer, load_file(folder / f"optimizer_{phase}.safetensors"))
        if average is not None:
            for name, value in load_file(folder / "ema.safetensors").items():
                load_into(average.values[name], value)
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise _damaged(folder, error) from None


def load_weights(model: "nn.Module", values: "dict[str, Tensor]") -> None:
    targets = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in values.items():
        load_into(targets[name], value)


def _load_optimizer(model: "nn.Module", optimizer: Any, values: "dict[str, Tensor]") -> None:
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    parameters = dict(model.named_parameters())
    for key, value in values.items():
        name, _, field = key.partition("|")
        parameter = parameters[name]
        if value.shape == parameter.shape and isinstance(parameter, DTensor):
            value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
        if value.shape == parameter.shape and value.ndim:
            # A copy with the parameter's memory layout: fused kernels assume it, and the mapped file is not aligned.
            optimizer.state[parameter][field] = torch.empty_like(
                parameter, dtype=value.dtype, requires_grad=False
            ).copy_(value)
        else:
            optimizer.state[parameter][field] = value.to(parameter.device if _fused(optimizer) else "cpu", copy=True)


def _fused(optimizer: Any) -> bool:
    return bool(optimizer.param_groups[0].get("fused"))


# ---- files ----


def write(root: Path, step: int, files: dict[str, dict[str, "Tensor"]], state: State, *, best: bool = False) -> Path:
    """Write one checkpoint folder, complete or not at all, then update the files `best` and `last`.

    Raises RunError if the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    final = root / f"step_{step:06d}"
    temporary = root / f".writing_{final.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        if final.is_dir():  # the step was saved before its evaluation: the tensors are the same
            _replace(final / "state.json", to_json(vars(state)))
        else:
            temporary.mkdir(parents=True)
            for name, tensors in files.items():
                save_file(tensors, temporary / f"{name}.safetensors")
            (temporary / "state.json").write_text(to_json(vars(state)))
            for path in temporary.iterdir():
                sync(path)
            sync(temporary)
            temporary.rename(final)
        if best:
            _replace(root / "best", final.name + "\n")
        _replace(root / "last", final.name + "\n")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(
            f"{final}: cannot be written: {why}; earlier checkpoints are whole. Free some room and run again"
        ) from None
    return final


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def marked(root: Path, name: str) -> Path | None:
    """The checkpoint that the file `last` or `best` names; None if the file or the checkpoint does not exist."""
    try:
        folder = root / (root / name).read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    return folder if (folder / "state.json").is_file() else None


def latest(root: Path) -> Path | None:
    """The checkpoint to resume from: the one that `last` names, or the newest one if that was removed."""
    return marked(root, "last") or next(reversed(_steps(root)), None)


def read_state(folder: Path) -> State:
    try:
        found = json.loads((folder / "state.json").read_text())
        found = {FORMER_NAMES.get(name, name): value for name, value in found.items()}
        return State(**{"stage_best": found["best"], **found})  # older checkpoints hold only one best score
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, error) from None


def _damaged(folder: Path, error: Exception) -> RunError:
    return RunError(
        f"{folder}: the checkpoint cannot be read ({error}); remove it, and the run goes on from an earlier one, if any"
    )


def tidy(root: Path, keep: int) -> None:
    """Clean up after a kill, before a run resumes: remove half-written checkpoints and those that are newer than
    `last`.

    The run repeats those steps, maybe with a longer schedule. The file `best` is set to what the last checkpoint
    states.
    """
    last = latest(root)
    for half in [*root.glob(".writing_*"), *root.glob(".removing_*")]:
        shutil.rmtree(half, ignore_errors=True)
    for name in ("last", "best"):
        with contextlib.suppress(OSError):  # it is in nobody's way
            root.joinpath(f".{name}").unlink(missing_ok=True)
    if last is not None:
        state = read_state(last)
        for folder in _steps(root):
            if _number(folder) > _number(last):
                _remove(folder)
        if state.best_step:
            _replace(root / "best", f"step_{state.best_step:06d}\n")
        prune(root, keep)


def prune(root: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and the best one."""
    kept = {marked(root, "best"), marked(root, "last"), *_steps(root)[-keep:]}
    for folder in _steps(root):
        if folder not in kept:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Rename the folder first, so that every folder with the name of a checkpoint is complete. Errors are ignored."""
    temporary = folder.with_name(f".removing_{folder.name}")
    with contextlib.suppress(OSError):
        folder.rename(temporary)
        shutil.rmtree(temporary)


def _steps(root: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(root.glob("step_*"), key=_number)


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))
