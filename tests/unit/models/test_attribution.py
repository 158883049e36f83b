"""Heat maps of networks, and the test whether they depend on what a network learned."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.metrics import intervals
from pipelines.models import attribution
from pipelines.models.attribution import METHODS, Map, Parts, heat_map, map_of, of_image, over_time
from pipelines.models.randomisation import LIMIT, check, passes, randomised, rank_correlation, summary

SIDE = 32


class Network(nn.Module):
    """Two convolutions with batch norm, and a head of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.GELU())
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.GELU())
        self.head = nn.Linear(6 * (SIDE // 4) ** 2, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.head(self.block(self.stem(pixels)).flatten(1))
        return found


class Images:
    """What a task offers to heat maps."""

    data = SimpleNamespace(label_kind="class")

    def layers(self, model: Any) -> list[nn.Module]:
        return [model.stem, model.block, model.head]

    def parts(self, model: nn.Module, row: Mapping[str, Any]) -> Parts:
        return of_image(row["pixels"], model)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture
def rows() -> list[dict[str, Tensor]]:
    """Images of noise with a bright edge somewhere."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for place in range(3):
        pixels = 0.3 * torch.randn(3, SIDE, SIDE, generator=generator)
        pixels[:, :, 8 * place + 4 :] += 1.0
        found.append({"pixels": pixels})
    return found


def in_cells(values: Tensor) -> np.ndarray:
    """The sums of [3, SIDE, SIDE] over the cells of a map."""
    size = SIDE // attribution.CELLS
    return values.reshape(3, attribution.CELLS, size, attribution.CELLS, size).sum((0, 2, 4)).numpy()


def test_integrated_gradients_of_a_linear_model_are_weights_times_input() -> None:
    pixels, weights = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    parts = of_image(pixels, lambda inputs: torch.stack([(inputs * weights).sum((1, 2, 3)), 0 * inputs[:, 0, 0, 0]], 1))
    found = map_of(parts, "integrated gradients", "class", number=0)
    np.testing.assert_allclose(found.values, in_cells(weights * pixels), rtol=1e-4, atol=1e-4)
    assert found.score == pytest.approx(float((weights * pixels).sum()), rel=1e-4)


def test_integrated_gradients_add_up_to_the_difference_of_the_scores(network: nn.Module, rows: Any) -> None:
    parts = Images().parts(network, rows[0])
    found = map_of(parts, "integrated gradients", "class")
    with torch.no_grad():
        empty = float(attribution.log_odds(network(parts.empty), found.number, "class"))
    assert found.values.sum() == pytest.approx(found.score - empty, rel=0.01)
    assert abs(found.score - empty) > 0.01


def test_occlusion_marks_the_patch_that_the_model_reads() -> None:
    size = SIDE // attribution.CELLS
    pixels = torch.zeros(3, SIDE, SIDE)
    pixels[:, 2 * size : 3 * size, 5 * size : 6 * size] = 1.0

    def reads_one_patch(inputs: Tensor) -> Tensor:
        seen = inputs[:, :, 2 * size : 3 * size, 5 * size : 6 * size].mean((1, 2, 3))
        return torch.stack([seen, 0 * seen], 1)

    values = map_of(of_image(pixels, reads_one_patch), "occlusion", "class").values
    assert np.unravel_index(values.argmax(), values.shape) == (2, 5)
    assert np.abs(values[5:]).max() < 1e-6
    assert np.abs(values[:, :2]).max() < 1e-6


def test_a_stretch_of_time_is_hidden_and_padding_is_left_out() -> None:
    inputs = torch.ones(1, 80)
    parts = over_time(inputs, lambda x: x[:, 30:35].sum(1, keepdim=True), 1, 0 * inputs, 0 * inputs, 8, share=0.5)
    for method in METHODS:
        found = map_of(parts, method, "number")
        np.testing.assert_allclose(found.values, [0, 0, 0, 0, 0, 0, 5, 0], atol=1e-5)
        assert found.places[6] == (0.75, 0.875)


@pytest.mark.parametrize("kind", ["class", "classes", "number"])
def test_the_score_is_log_odds_or_the_number(kind: str) -> None:
    logits = torch.tensor([[2.0, 1.0, -1.0]])
    found = float(attribution.log_odds(logits, 0, kind)[0])
    one = torch.softmax(logits, 1)[0, 0]
    assert found == pytest.approx(float(torch.logit(one)) if kind == "class" else 2.0, abs=1e-5)


# ---- random weights ----


def test_maps_of_real_methods_change_with_the_weights_and_the_model_does_not(network: nn.Module, rows: Any) -> None:
    before = {name: values.clone() for name, values in network.state_dict().items()}
    ticks: list[None] = []
    found = check(Images(), network, rows, tick=lambda: ticks.append(None))
    for method in METHODS:
        one = found[method]
        assert one["passed"]
        assert one["ci95"][0] <= one["rank_correlation"] <= one["ci95"][1]
        assert one["rank_correlation"] < LIMIT
        assert (one["rows"], one["draws"]) == (3, 3)
        assert set(one["stages"]) == {"head", "upper half"}
    assert len(ticks) == passes(3)
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    assert found == check(Images(), network, rows)  # nothing in it is random


def test_an_edge_detector_fails(network: nn.Module, rows: Any) -> None:
    def edges(parts: Parts, method: str, kind: str, number: int | None = None) -> Map:
        pixels = parts.inputs[0]
        steps = (pixels - pixels.roll(1, 2)).abs()
        return Map(method, in_cells(steps), (), 0, 0.0)

    (found,) = check(Images(), network, rows, methods=["edges"], explain=edges).values()
    assert found["rank_correlation"] == pytest.approx(1)
    assert found["passed"] is False


def test_random_weights_keep_their_scale_and_batch_norms_are_measured_again(network: Any, rows: Any) -> None:
    drawn: Any = randomised(Images(), network, rows)
    for name, values in drawn.named_parameters():
        own = network.get_parameter(name)
        if float(own.detach().std()) > 0:
            assert not torch.equal(values, own)
    assert float(drawn.head.weight.detach().std()) == pytest.approx(float(network.head.weight.detach().std()), rel=0.1)
    assert not drawn.training
    assert not any(module.training for module in drawn.modules())
    with torch.no_grad():
        inside = drawn.stem[:2](torch.stack([row["pixels"] for row in rows]))
    assert inside.mean((0, 2, 3)).numpy() == pytest.approx(drawn.stem[1].bias.detach().numpy(), abs=1e-3)
    only_head: Any = randomised(Images(), network, rows, depth=2)
    assert torch.equal(only_head.stem[0].weight, network.stem[0].weight)
    assert not torch.equal(only_head.head.weight, network.head.weight)


def test_a_map_without_differences_has_no_correlation() -> None:
    assert np.isnan(rank_correlation(np.zeros((2, 2)), np.eye(2)))
    assert np.isnan(rank_correlation(np.array([1.0, np.inf]), np.array([1.0, 2.0])))
    assert rank_correlation(np.array([1.0, -2.0, 3.0]), np.array([-1.0, 4.0, -9.0])) == pytest.approx(1)


def test_the_maps_of_a_network_are_deterministic(network: nn.Module, rows: Any) -> None:
    for method in METHODS:
        first, second = (heat_map(Images(), network, rows[0], method).values for _ in range(2))
        assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("values", "passed"),
    [
        ([0.05, 0.1, -0.1, 0.0, 0.1, 0.05, 0.2, 0.1], True),
        ([0.1, 0.5, 0.2, 0.4, 0.3, 0.2, 0.4, 0.1], None),
        ([0.8, 0.6, 0.7, 0.9, 0.5, 0.7, 0.8, 0.6], False),
        ([0.1], None),
        ([float("nan")] * 3, None),
    ],
)
def test_the_interval_decides(values: list[float], passed: bool | None) -> None:
    found = summary(np.array([values]), 1)
    assert found["passed"] is passed
    known = intervals.of_mean(np.array(values)) if len(values) == 8 else None
    assert found["ci95"] == (known and pytest.approx(known, abs=1e-4))


def test_parameters_without_a_deviation_are_drawn_too() -> None:
    network = nn.Sequential(nn.Linear(3, 1), nn.LayerNorm(1))
    with torch.no_grad():
        network[0].bias.fill_(5.0)
    task: Any = SimpleNamespace(layers=lambda model: list(model))
    drawn: Any = randomised(task, network, [])
    assert abs(drawn[0].bias.item() - 5) > 0.1
    assert drawn[1].weight.item() != 1
    assert drawn[1].bias.item() == 0  # a bias that was never trained
