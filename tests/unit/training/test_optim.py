"""Parameter groups, schedules and the moving average."""

import pytest
import torch
from torch import nn

from pipelines.training.optim import Average, make_optimizer, parameter_groups, rate, set_rate


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def rates(layer_decay: float | None, head: float | None) -> dict[str, float]:
    net = model()
    layers = [nn.ModuleList(), net[0], net[1], net[3]]
    optimizer = make_optimizer("adamw", parameter_groups(net, layers, 1e-3, head, 0.1, layer_decay))
    set_rate(optimizer, 1e-3, 0.5)
    names = {id(p): n for n, p in net.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def test_layer_decay_falls_from_the_head_to_the_input() -> None:
    found = rates(0.5, None)
    assert [found[f"{i}.weight"] for i in (3, 1, 0)] == pytest.approx([5e-4, 2.5e-4, 1.25e-4])
    assert found["2.weight"] == found["1.weight"], "a norm between blocks goes with the block before it"


def test_the_head_learns_at_its_own_rate() -> None:
    found = rates(None, 1e-2)
    assert found["3.weight"] == found["3.bias"] == pytest.approx(5e-3)
    assert found["0.weight"] == pytest.approx(5e-4)


def test_the_rate_of_all_but_the_head_is_what_is_logged() -> None:
    net = model()
    layers = [nn.ModuleList(), net[0], net[1], net[3]]
    for only, logged in ((None, 1e-4), ({"3.weight", "3.bias"}, 1e-3)):
        optimizer = make_optimizer("sgd", parameter_groups(net, layers, 1e-3, 1e-2, 0.0, None, only))
        assert set_rate(optimizer, 1e-3, 0.1) == pytest.approx(logged)


def test_vectors_are_not_decayed() -> None:
    net = model()
    groups = parameter_groups(net, [nn.ModuleList(), net[0], net[1], net[3]], 1e-3, None, 0.1, None)
    assert {p.ndim > 1 for g in groups if g["weight_decay"] for p in g["params"]} == {True}
    assert {p.ndim > 1 for g in groups if not g["weight_decay"] for p in g["params"]} == {False}


def test_frozen_parameters_are_in_no_group() -> None:
    net = model()
    net[0].requires_grad_(False)
    groups = parameter_groups(net, [nn.ModuleList(), net[0], net[1], net[3]], 1e-3, None, 0.1, 0.5)
    assert sum(len(g["params"]) for g in groups) == 6


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 0.1, 25])
def test_a_schedule_warms_up_then_never_rises(schedule: str, warmup: float) -> None:
    total = 100
    values = [rate(step, total, schedule, warmup) for step in range(total)]
    warm = round(warmup * total) if warmup < 1 else int(warmup)
    assert all(0 < v <= 1 for v in values)
    assert max(values) == pytest.approx(1.0, abs=0.02)
    assert values[:warm] == sorted(values[:warm])
    assert values[warm:] == sorted(values[warm:], reverse=True)
    assert schedule == "constant" or values[-1] < 0.03


def test_the_average_is_an_average_and_leaves_the_weights_alone() -> None:
    torch.manual_seed(0)
    net = model()
    average = Average(net, 0.9)
    by_hand = net[0].weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            net[0].weight.add_(torch.randn(4, 4))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * net[0].weight.detach()
    own = net[0].weight.detach().clone()
    with average.applied():
        assert torch.allclose(net[0].weight, by_hand, atol=1e-6)
    assert torch.equal(net[0].weight, own)
