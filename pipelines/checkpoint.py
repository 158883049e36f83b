"""Checkpoints: `checkpoints/step_000500/`, written beside, synced, then renamed. A kill at any moment leaves a whole one.

What a run cannot rebuild is in it: trainable weights and buffers, optimisers keyed by phase, the moving average, the step and
the scores so far. Nothing random is saved (batching.py). Tensors are whole, in safetensors, whatever the number and kind of
processes, so one process can resume what several began.
"""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor, nn

PHASE = "main"  # one optimiser today; a GAN will have one for each phase


def whole(tensor: "Tensor") -> "Tensor":
    """A tensor's full value on the CPU. Under FSDP every process must call."""
    import torch
    from torch.distributed.tensor import DTensor

    value = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return value.detach().to("cpu", copy=True).contiguous() if isinstance(value, torch.Tensor) else value


def place(target: "Tensor", value: "Tensor") -> None:
    """Copy a whole value into a tensor that may be sharded."""
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    with torch.no_grad():
        if isinstance(target, DTensor):
            value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
        target.copy_(value)


def collect(model: "nn.Module", optimizer: Any = None, average: Any = None) -> dict[str, dict[str, "Tensor"]]:
    """File name -> tensors. A collective under FSDP: every process calls, one writes."""
    import torch

    files: dict[str, dict[str, Tensor]] = {"model": trainable_state(model)}
    if optimizer is not None:
        names = {id(p): n for n, p in model.named_parameters()}
        state = optimizer.state.items()
        values = {f"{names[id(p)]}|{key}": v for p, entry in state for key, v in entry.items() if isinstance(v, torch.Tensor)}
        files[f"optimizer_{PHASE}"] = {name: whole(v) for name, v in values.items()}
    if average is not None:
        files["ema"] = {name: whole(v) for name, v in average.values.items()}
    return files


def trainable_state(model: "nn.Module") -> dict[str, "Tensor"]:
    """Trainable parameters and all buffers; frozen weights come from where the run got them."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return {name: whole(v) for name, v in {**parameters, **dict(model.named_buffers())}.items()}


def restore(folder: Path, model: "nn.Module", optimizer: Any = None, average: Any = None) -> dict[str, Any]:
    """Put a checkpoint's tensors back and return its state (step, scores). Raises RunError for a damaged one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = json.loads((folder / "state.json").read_text())
        load_weights(model, load_file(folder / "model.safetensors"))
        if optimizer is not None:
            _load_optimizer(model, optimizer, load_file(folder / f"optimizer_{PHASE}.safetensors"))
        if average is not None:
            for name, value in load_file(folder / "ema.safetensors").items():
                place(average.values[name], value)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise RunError(f"{folder}: the checkpoint cannot be read ({error}); remove the folder to go on from an earlier one") from None
    return state


def load_weights(model: "nn.Module", values: "dict[str, Tensor]") -> None:
    targets = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in values.items():
        place(targets[name], value)


def _load_optimizer(model: "nn.Module", optimizer: Any, values: "dict[str, Tensor]") -> None:
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    parameters = dict(model.named_parameters())
    for key, value in values.items():
        name, _, field = key.partition("|")
        parameter = parameters[name]
        if value.shape == parameter.shape and isinstance(parameter, DTensor):
            value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
        device = parameter.device if value.ndim or _fused(optimizer) else torch.device("cpu")
        optimizer.state[parameter][field] = value.to(device)


def _fused(optimizer: Any) -> bool:
    return bool(optimizer.param_groups[0].get("fused"))


# ---- files ----


def write(root: Path, step: int, files: dict[str, dict[str, "Tensor"]], state: dict[str, Any]) -> Path:
    """One checkpoint folder, whole or not at all; `last` moves after it. Raises RunError when the disk refuses."""
    from safetensors.torch import save_file

    final = root / f"step_{step:06d}"
    beside = root / f".writing_{final.name}"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, tensors in files.items():
            save_file(tensors, beside / f"{name}.safetensors")
        (beside / "state.json").write_text(json.dumps(state))
        for path in beside.iterdir():
            _sync(path)
        _sync(beside)
        if final.exists():  # the same step again, after a resume: equal by construction, the old one is whole
            shutil.rmtree(beside)
        else:
            beside.rename(final)
        mark(root, "last", final.name)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise RunError(f"{final}: cannot be written: {error.strerror or error}; earlier checkpoints are whole. Free some room and run again") from None
    return final


def mark(root: Path, name: str, value: str) -> None:
    """Write the one-line file `last` or `best`, by renaming."""
    beside = root / f".{name}"
    beside.write_text(value + "\n")
    _sync(beside)
    beside.replace(root / name)
    _sync(root)


def marked(root: Path, name: str) -> Path | None:
    """The checkpoint that `last` or `best` names, if both exist."""
    try:
        folder = root / (root / name).read_text().strip()
    except FileNotFoundError:
        return None
    return folder if (folder / "state.json").is_file() else None


def prune(root: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, the best one and what a kill left half written."""
    for half in root.glob(".writing_*"):
        shutil.rmtree(half, ignore_errors=True)
    best = marked(root, "best")
    for folder in sorted(root.glob("step_*"))[:-keep]:
        if folder != best:
            shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
