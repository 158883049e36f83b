"""The capabilities of this machine."""

import os

import pytest
import torch

from pipelines.utils.hardware import accelerator, best_precision, cores, set_tf32


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1, "a system that does not tell"


@pytest.mark.parametrize(
    ("bf16", "capability", "wanted"),
    [(True, (8, 0), "bf16"), (False, (7, 5), "fp16"), (False, (7, 0), "fp16"), (False, (6, 1), "fp32")],
)
def test_the_precision_of_a_gpu(
    bf16: bool, capability: tuple[int, int], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A100, T4, V100 and P40: the last one multiplies fp16 at a small part of its speed in fp32."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 or including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert best_precision(torch.nn.Linear(4, 4)) == best_precision(torch.nn.Linear(4, 4), "cuda") == wanted
    assert best_precision(torch.nn.Linear(4, 4), "cpu") == "fp32", "a small model, which gains nothing on a CPU"


@pytest.mark.parametrize(
    ("allowed", "capability", "precision", "says"),
    [
        (True, (8, 0), "fp32", True),
        (True, (8, 0), "bf16", False),
        (False, (8, 0), "fp32", False),
        (True, (7, 5), "fp32", False),
    ],
)
def test_tf32(
    allowed: bool, capability: tuple[int, int], precision: str, says: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        assert set_tf32(allowed, precision) is says
        uses = allowed and capability >= (8, 0)
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (uses, uses)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(("precision", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", None)])
def test_the_accelerator_of_a_precision(precision: str, kind: torch.dtype | None) -> None:
    found = accelerator(precision, cpu=True)
    with found.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (kind or torch.float32)
    loss = torch.ones((), requires_grad=True)
    found.backward(loss * 3)
    assert loss.grad == 3  # the loop scales the loss, not Accelerate
