"""How often a step waits: no message between processes before the forward pass, and one after the backward pass."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.data.batching import Micro
from pipelines.training.checkpoint import State
from pipelines.training.stage import Stage, agreed, ready

STEPS = 3


class Accelerator:
    """Two processes with the same values, and what they send each other."""

    device = torch.device("cpu")

    def __init__(self, processes: int) -> None:
        self.num_processes = processes
        self.sent: list[int] = []

    def reduce(self, values: torch.Tensor, how: str) -> torch.Tensor:
        assert how == "sum"
        self.sent.append(len(values))
        return values * self.num_processes


def stage_of(processes: int) -> Stage:
    task: Any = SimpleNamespace(counts=lambda batch: {"rows": float(len(batch["id"])), "tokens": 7.0})
    plan: Any = SimpleNamespace(micro_batches=lambda number: 2, total_steps=STEPS)
    anything: Any = None
    accelerator = Accelerator(processes)
    return Stage(task, None, [], None, plan, anything, accelerator, State(), 0)


@pytest.mark.parametrize("processes", [1, 2])
def test_counts_are_known_before_the_step(processes: int) -> None:
    stage = stage_of(processes)
    batches = iter([Micro({"id": ["a"] * (place + 1)}, place != 5, []) for place in range(2 * STEPS)])
    found, stops = [], []
    for number in range(STEPS):
        stage.state.step = number
        micros, counts = ready(stage, batches)
        found.append(counts)
        assert [len(micro.batch["id"]) for micro in micros] == [2 * number + 1, 2 * number + 2]
        sent = len(stage.accelerator.sent)
        loss, norm, stop = agreed(stage, batches, torch.tensor(0.5), torch.tensor(3.0), stop=number == 1)
        stops.append(stop)
        assert (loss, norm) == (0.5 * processes, 3.0)
        assert len(stage.accelerator.sent) - sent == (processes > 1)
    rows = [3.0, 7.0, 5.0]  # the last micro-batch is a placeholder
    tokens = [14.0, 14.0, 7.0]
    assert found == [{"rows": r * processes, "tokens": t * processes} for r, t in zip(rows, tokens, strict=True)]
    assert stops == [False, True, False]
    assert len(stage.accelerator.sent) == (0 if processes == 1 else 1 + STEPS)
    assert next(batches, None) is None
