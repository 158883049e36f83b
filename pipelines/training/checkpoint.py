"""Checkpoints: folders such as `checkpoints/step_000500/`. They are written to a temporary name, synced, then renamed.

So every folder with the name of a checkpoint is complete, whenever the process was killed. A checkpoint holds what a
run cannot rebuild: trainable weights and buffers, optimisers by phase, the moving average, the step and the scores so
far. It holds no random state, because batching.py derives every seed from the step.

Tensors are stored in safetensors: `model.safetensors` and so on. Under FSDP each of these is a folder (`model/`), into
which every process writes its share through torch.distributed.checkpoint. Any number of processes, sharded or not, can
resume from either.
"""

import contextlib
import dataclasses
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import RunError
from pipelines.utils import distributed
from pipelines.utils.distributed import own_rows, whole
from pipelines.utils.files import sync, to_json

if TYPE_CHECKING:
    import torch
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
    """Name of the part -> its tensors; `optimizers` by phase. Sharded tensors stay so, and are not copied."""
    import torch

    parts: dict[str, dict[str, Tensor]] = {"model": trainable_state(model)}
    names = {id(p): n for n, p in model.named_parameters()}
    for phase, optimizer in optimizers.items():
        state = optimizer.state.items()
        values = {
            f"{names[id(p)]}|{key}": v for p, entry in state for key, v in entry.items() if isinstance(v, torch.Tensor)
        }
        parts[f"optimizer_{phase}"] = {name: _kept(v) for name, v in values.items()}
    if average is not None:
        parts["ema"] = {name: _kept(v) for name, v in average.values.items()}
    return parts


def trainable_state(model: "nn.Module") -> dict[str, "Tensor"]:
    """Trainable parameters and all buffers. Frozen weights are left out: the run reads them from their source."""
    parameters = {n: _kept(p) for n, p in model.named_parameters() if p.requires_grad}
    return parameters | {n: whole(b) for n, b in model.named_buffers()}  # buffers may share memory


def _kept(tensor: "Tensor") -> "Tensor":
    """A tensor as it is written: on the CPU, or this process's share of it. It is not copied without need."""
    from torch.distributed.tensor import DTensor

    return tensor.detach() if isinstance(tensor, DTensor) else tensor.detach().cpu().contiguous()


def restore(folder: Path, model: "nn.Module", optimizers: Mapping[str, Any], average: Any = None) -> None:
    """Load the tensors of a checkpoint. Raises RunError for a damaged checkpoint."""
    with _readable(folder):
        load_weights(model, folder)
        for phase, optimizer in optimizers.items():
            _load_optimizer(model, optimizer, folder / f"optimizer_{phase}")
        if average is not None:
            load(folder / "ema", average.values)


def load_weights(model: "nn.Module", folder: Path, *, average: bool = False) -> None:
    """Load the weights of a checkpoint, or their moving average where there is one (`average`).

    Raises RunError for a damaged checkpoint.
    """
    targets = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with _readable(folder):
        load(folder / "model", targets)
        if average and (_is_sharded(folder / "ema") or (folder / "ema.safetensors").is_file()):
            load(folder / "ema", targets)


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError, CheckpointException) as error:
        raise _damaged(folder, _cause(error)) from None


def _cause(error: BaseException) -> BaseException:
    """The error of the first process that failed, of those that torch.distributed.checkpoint collects."""
    failures = getattr(error, "failures", None)
    return next(iter(failures.values()))[0] if failures else error


def _load_optimizer(model: "nn.Module", optimizer: Any, part: Path) -> None:
    import torch

    parameters = dict(model.named_parameters())
    targets: dict[str, Tensor] = {}
    for key, shape, dtype in _held(part):
        name, _, field = key.partition("|")
        parameter = parameters[name]
        if shape == tuple(parameter.shape) and shape:
            # The parameter's memory layout: fused kernels assume it.
            value = torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
        else:
            value = torch.zeros(shape, dtype=dtype, device=parameter.device if _fused(optimizer) else "cpu")
        optimizer.state[parameter][field] = targets[key] = value
    load(part, targets)


def _fused(optimizer: Any) -> bool:
    return bool(optimizer.param_groups[0].get("fused"))


# ---- parts: a file, or a folder with the shares of several processes ----


def load(part: Path, targets: Mapping[str, "Tensor"]) -> None:
    """Copy the tensors of a part into these. Of a sharded tensor, a process reads its own rows only."""
    import torch
    from safetensors import safe_open
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load as load_shares
    from torch.distributed.tensor import DTensor

    names = [name for name, _, _ in _held(part)]
    with torch.no_grad():
        if _is_sharded(part):
            wanted = {name: targets[name].detach() for name in names if _local(targets[name]).numel()}
            # Every process reads what it needs; none waits for another one.
            with _alone_without_a_word():
                load_shares(wanted, storage_reader=HuggingFaceStorageReader(str(part)), no_dist=True)
            return
        with safe_open(_file(part), "pt", backend="pread") as file:
            for name in names:
                target = targets[name]
                if not isinstance(target, DTensor):
                    target.copy_(file.get_tensor(name))
                elif (local := target.to_local()).numel():
                    start, count = own_rows(target)
                    local.copy_(file.get_slice(name)[start : start + count])


@contextlib.contextmanager
def _alone_without_a_word() -> Iterator[None]:
    """Inside the block, torch does not warn that one process reads or writes alone. Here this is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _held(part: Path) -> "list[tuple[str, tuple[int, ...], torch.dtype]]":
    """Name, shape and dtype of the tensors of a part."""
    from safetensors import safe_open
    from safetensors.torch import _getdtype
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    if _is_sharded(part):
        found: dict[str, Any] = dict(HuggingFaceStorageReader(str(part)).read_metadata().state_dict_metadata)
        return [(name, tuple(of.size), of.properties.dtype) for name, of in found.items()]
    with safe_open(_file(part), "pt") as file:
        views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        return [(name, tuple(view.get_shape()), _getdtype(view.get_dtype())) for name, view in views.items()]


def _file(part: Path) -> Path:
    return part.with_name(f"{part.name}.safetensors")


def _is_sharded(part: Path) -> bool:
    return part.is_dir()


def _local(tensor: "Tensor") -> "Tensor":
    """This process's share of a tensor."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


# ---- files ----


def write_shares(root: Path, step: int, parts: dict[str, dict[str, "Tensor"]]) -> None:
    """Write the tensors of a checkpoint, each process its share, for `write` to finish. Every process must call this.

    Raises RunError on every process if the disk refuses one of them.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    final, temporary = _places(root, step)

    def prepare() -> None:
        with _written(final, temporary):
            shutil.rmtree(temporary, ignore_errors=True)
            for name in parts:
                (temporary / name).mkdir(parents=True)

    distributed.decided(prepare)
    with _written(final, temporary):
        for name, unsorted in parts.items():
            tensors = dict(sorted(unsorted.items()))  # a resumed run has its moments in another order
            mine = {key: value for key, value in tensors.items() if _local(value).numel()}
            writer = HuggingFaceStorageWriter(
                str(temporary / name), fqn_to_index_mapping=_in_files(tensors), save_distributed=True
            )
            with _alone_without_a_word():
                save(mine, storage_writer=writer)


FILE_SIZE = 2**26  # bytes of one process in one file of shares, all of which are copied before they are written


def _in_files(tensors: Mapping[str, "Tensor"]) -> dict[str, int]:
    """Tensor -> number of its file, from 1. It is the same on all processes."""
    numbers: dict[str, int] = {}
    number, size = 1, 0
    for name, tensor in tensors.items():
        own = tensor.numel() * tensor.element_size() // distributed.processes().num_processes
        if size and size + own > FILE_SIZE:
            number, size = number + 1, 0
        numbers[name], size = number, size + own
    return numbers


def _places(root: Path, step: int) -> tuple[Path, Path]:
    """The folder of a checkpoint, and the one in which it is written."""
    final = root / f"step_{step:06d}"
    return final, root / f".writing_{final.name}"


@contextlib.contextmanager
def _written(final: Path, temporary: Path) -> Iterator[None]:
    """Raise a RunError in place of an error of the disk, and remove what was written so far."""
    from safetensors import SafetensorError
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except (OSError, SafetensorError, CheckpointException) as error:
        cause = _cause(error)
        if not isinstance(cause, Exception):  # Ctrl-C
            raise cause from None
        shutil.rmtree(temporary, ignore_errors=True)
        why = cause.strerror if isinstance(cause, OSError) and cause.strerror else cause
        raise RunError(
            f"{final}: cannot be written: {why}; earlier checkpoints are whole. Free some room and run again"
        ) from None


SHARES: dict[str, dict[str, Any]] = {}  # for `write`: the tensors are those that `write_shares` wrote


def write(root: Path, step: int, files: dict[str, dict[str, "Tensor"]], state: State, *, best: bool = False) -> Path:
    """Write one checkpoint folder, complete or not at all, then update the files `best` and `last`.

    Raises RunError if the disk refuses.
    """
    from safetensors.torch import save_file

    final, temporary = _places(root, step)
    with _written(final, temporary):
        if files is not SHARES:
            shutil.rmtree(temporary, ignore_errors=True)
        if final.is_dir():  # the step was saved before its evaluation: the tensors are the same
            shutil.rmtree(temporary, ignore_errors=True)
            _replace(final / "state.json", to_json(vars(state)))
        else:
            temporary.mkdir(parents=True, exist_ok=True)
            for name, tensors in files.items():
                save_file(tensors, temporary / f"{name}.safetensors")
            (temporary / "state.json").write_text(to_json(vars(state)))
            for path in temporary.rglob("*"):
                sync(path)
            sync(temporary)
            temporary.rename(final)
        if best:
            _replace(root / "best", final.name + "\n")
        _replace(root / "last", final.name + "\n")
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


def _damaged(folder: Path, error: BaseException) -> RunError:
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
