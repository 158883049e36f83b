"""SegFormer's head for a CPU computes what the library's does."""

import copy

import pytest
import torch

from pipelines.models import cpu_kernels
from pipelines.models.cpu_kernels_segformer import Head
from tests.support.tiny_segmenters import made_up, tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize("half", [False, True])
def test_a_network_has_the_same_loss_gradients_and_weights(half: bool) -> None:
    plain, family = tiny("segformer")
    for part in plain.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    fast = copy.deepcopy(plain)
    cpu_kernels.install(fast, CPU)
    assert type(fast.decode_head) is Head
    assert list(fast.state_dict()) == list(plain.state_dict())
    batch = made_up(3)
    counts, losses = family.counts(batch), []
    for model in (plain, fast):
        model.eval()
        model.decode_head.batch_norm.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = family.loss(model, batch, counts, 0)
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-2 if half else 1e-5, atol=0)
    own, other = (torch.cat([p.grad.flatten() for p in model.parameters()]) for model in (fast, plain))
    assert (own - other).norm() <= (0.1 if half else 1e-4) * other.norm()


def test_a_head_with_other_layers_is_that_of_the_library() -> None:
    class Other(torch.nn.Linear):
        """What an adapter puts in the place of a linear layer."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + 1

    plain, _ = tiny("segformer")
    plain.eval().decode_head.linear_projections[0].proj.__class__ = Other
    pixels = made_up(1)["pixel_values"]
    want = plain(pixels).logits
    cpu_kernels.install(plain, CPU)
    assert torch.equal(plain(pixels).logits, want)


def test_a_model_that_predicts_in_bf16_has_nearly_the_same_scores() -> None:
    """Graft keeps convolutions or linear layers in bf16 then."""
    plain, family = tiny("segformer")
    pixels = made_up(2)["pixel_values"]
    want = family.scores(plain.eval(), pixels)
    cpu_kernels.install(plain, CPU)
    for types in ((torch.nn.Linear,), (torch.nn.Linear, torch.nn.Conv2d)):
        for part in plain.decode_head.modules():
            if isinstance(part, types):
                part.to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(family.scores(plain, pixels), want, atol=0.03, rtol=0)
