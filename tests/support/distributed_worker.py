"""Runs in several processes, one after another; started by torchrun with a JSON file of orders.

An order is {"run", "recipe", "stop": step or null, "fsdp": bool}. With "most" (rows), the first process has no memory
for more rows in its first evaluation. With "evaluate" (a run folder), the order scores that run instead, as the
command line does with --json. With "scale", fp16 begins with that scale of the loss. With "die" (a number), the
second process is killed after it wrote that many parts of sharded checkpoints. The results go into facts.json in the
folder of the orders.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate import PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor

from pipelines.config.recipe import validate
from pipelines.errors import GraftError
from pipelines.tasks.image_classification import ImageClassification
from pipelines.training import loop, loss_scale
from pipelines.training.run import train
from pipelines.training.trainer import Trainer
from pipelines.utils.distributed import processes
from tests.support.command import graft
from tests.support.runs import ROOT, without_pictures


def fsdp_settings() -> dict[str, str]:
    """The settings that `accelerate launch --config_file recipes/launch/fsdp2.yaml` gives its processes."""
    arguments = ["--config_file", str(ROOT / "recipes" / "launch" / "fsdp2.yaml"), "-m", "pipelines"]
    with mock.patch("torch.cuda.is_available", return_value=False):
        parsed, *_ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    environment = prepare_multi_gpu_env(parsed)
    found = {
        key: value for key, value in environment.items() if key.startswith("FSDP_") or key == "ACCELERATE_USE_FSDP"
    }
    assert found["FSDP_VERSION"] == "2"
    return found


@contextlib.contextmanager
def shim(fsdp: bool) -> Iterator[None]:
    """On a CPU, Accelerate silently replaces FSDP by plain DDP. If it believes that these are GPUs, it shards."""
    AcceleratorState._reset_state(True)
    state = processes()
    assert state.device.type == "cpu"
    if not fsdp:
        yield
        return
    with mock.patch.dict(os.environ, fsdp_settings()):
        state.distributed_type = DistributedType.MULTI_GPU
        yield


def follow(order: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"sharded": False, "steps": 0}
    if "evaluate" in order:
        with shim(fsdp=False):
            done = graft("evaluate", order["evaluate"], "--json")
        return {**facts, "ended": done.code, "printed": done.out, "told": done.err}
    real = loop.step

    def step(run: loop.Stage, *rest: Any) -> dict[str, Any]:
        report = real(run, *rest)
        facts["steps"] += 1
        facts["processes"] = torch.distributed.get_world_size()
        facts["kind"] = str(run.accelerator.distributed_type)
        facts["wrapper"] = type(run.model).__name__
        if "scale" in order:
            facts["weights"] = float(sum(p.detach().double().abs().sum() for p in run.model.parameters()))
        facts["sharded"] = all(isinstance(p, DTensor) for p in run.model.parameters())
        # only one process gets the signal to stop: all must agree
        if run.state.previous_steps + run.state.step + 2 == order["stop"] and run.accelerator.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    predict, evaluated = ImageClassification.predict, Trainer.predict

    def small(task: Any, model: Any, batch: Any) -> Any:
        if (
            order.get("most")
            and not facts.get("evaluations")
            and processes().process_index == 0
            and len(batch["id"]) > order["most"]
        ):
            facts["refused"] = len(batch["id"])
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict(task, model, batch)

    def scored(trainer: Trainer, *rest: Any) -> list[dict]:
        records = evaluated(trainer, *rest)
        facts.setdefault("evaluations", []).append([r["id"] for r in records])
        return records

    write, parts = HuggingFaceStorageWriter.write_data, 0

    def write_part(*rest: Any) -> Any:
        nonlocal parts
        done = write(*rest)
        parts += 1
        if parts == order.get("die") and torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    patched = mock.patch.object(ImageClassification, "predict", small), mock.patch.object(Trainer, "predict", scored)
    deadly = mock.patch.object(HuggingFaceStorageWriter, "write_data", write_part)
    scale = mock.patch.object(loss_scale, "FIRST", order.get("scale", loss_scale.FIRST))
    changed = mock.patch.object(loop, "step", step)
    with shim(order["fsdp"]), without_pictures(), changed, scale, patched[0], patched[1], deadly:
        try:
            results = train(validate(order["recipe"]), Path(order["run"]), name="small")
            facts["ended"] = "stopped" if results is None else "finished"
        except GraftError as error:
            facts["ended"] = f"{type(error).__name__}: {error}"
    return facts


def main() -> None:
    torch.set_num_threads(1)
    path = Path(sys.argv[1])
    with mock.patch.object(PartialState, "destroy_process_group"):  # the next run needs it
        found = [follow(order) for order in json.loads(path.read_text())]
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, found)
    if torch.distributed.get_rank() == 0:
        path.with_name("facts.json").write_text(json.dumps(everyone))
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads sometimes abort a process when another process destroys its group first


if __name__ == "__main__":
    main()
