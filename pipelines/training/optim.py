"""Parameter groups, optimiser, learning-rate schedule and moving average of the weights."""

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.errors import ModelError
from pipelines.models.layers import depth_of_parameters

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.config.recipe import TrainSection
    from pipelines.task import Phase


def parameter_groups(
    model: "nn.Module",
    layers: "Sequence[nn.Module]",
    learning_rate: float,
    head_learning_rate: float | None,
    weight_decay: float,
    layer_decay: float | None,
    only: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Group the trainable parameters (or `only` those with these names) by `scale` and `weight_decay`.

    `scale` multiplies the learning rate. Vectors (biases, norms) have no weight decay. Layer decay follows Clark et al.
    2020 (ELECTRA): rate * decay ** distance from the head.
    """
    last = len(layers) - 1
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    depth = depth_of_parameters(model, layers)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or (only is not None and name not in only):
            continue
        scale = (layer_decay or 1.0) ** (last - depth[name])
        if depth[name] == last and head_learning_rate is not None:
            scale = head_learning_rate / learning_rate
        decay = weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault(
            (scale, decay), {"params": [], "scale": scale, "weight_decay": decay, "lr": learning_rate * scale}
        )
        group["params"].append(parameter)
    return list(groups.values())


def make_optimizer(
    name: str, groups: list[dict[str, Any]], betas: tuple[float, float] | None = None, *, sharded: bool = False
) -> "torch.optim.Optimizer":
    """AdamW with `betas` (default 0.9, 0.999), or SGD with momentum 0.9. Both are fused, but SGD not under FSDP."""
    import torch

    if name == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, fused=not sharded)
    return torch.optim.AdamW(groups, betas=betas or (0.9, 0.999), eps=1e-8, fused=True)


def phase_names(model: "nn.Module", phases: "Sequence[Phase]") -> list[list[str]]:
    """The names of the parameters that each phase trains.

    Raises ModelError for a trainable parameter of no phase.
    """
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    names = [[name for name in trainable if phase.trains(name)] for phase in phases]
    lost = next((name for name in trainable if not any(phase.trains(name) for phase in phases)), None)
    if lost is not None:
        raise ModelError(
            f"no phase of the task trains {lost!r} (phases: {', '.join(p.name for p in phases)}): freeze it, or name "
            "it in one"
        )
    return names


def rate(step: int, total: int, schedule: str, warmup: float) -> float:
    """Factor of the learning rate at `step` (from 0) of `total`. A warm-up below 1 is a fraction of the steps."""
    warm = warm_up(total, warmup)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, total - warm)
    if schedule == "constant":
        return 1.0
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def warm_up(total: int, warmup: float) -> int:
    """Number of steps in which the learning rate rises."""
    return round(total * warmup) if warmup < 1 else round(warmup)


def without_effect(train: "TrainSection", total: int, per_epoch: int) -> list[str]:
    """Settings of the schedule that cannot work as meant in `total` steps, one line each."""
    found = []
    if (warm := warm_up(total, train.warmup)) >= total > 1:
        found.append(
            f"train.warmup={train.warmup:g}: the warm-up has {warm:,} steps, the training {total:,}: the learning "
            "rate only rises"
        )
    for key, what in (("eval_every", "validation is scored"), ("save_every", "a checkpoint is saved")):
        if isinstance(every := getattr(train, key), int) and every > total:
            found.append(f"train.{key}={every}: the training has {total:,} steps: {what} once, after the last of them")
    every = per_epoch if train.eval_every == "epoch" else train.eval_every
    if train.early_stopping and (evaluations := math.ceil(total / every)) <= train.early_stopping + 1:
        found.append(
            f"train.early_stopping={train.early_stopping}: the training has {evaluations} evaluations: it cannot end "
            "before its last step"
        )
    return found


def set_rate(optimizer: Any, learning_rate: float, share: float) -> float:
    """Set the learning rate of each group to `share` * `learning_rate` * its scale.

    Returns the highest rate, but that of a head with a higher rate of its own only if nothing else trains.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * share * group["scale"]
    rates = {float(group["lr"]): group["scale"] for group in optimizer.param_groups}
    return max((rate for rate, scale in rates.items() if scale <= 1), default=max(rates))


class Average:
    """Exponential moving average of the trainable weights, with decay min(decay, (1 + step) / (10 + step)).

    With `phases`, only of the parameters that these phases train. The warm-up of the decay is that of TensorFlow's
    ExponentialMovingAverage(num_updates): it keeps the average from staying near the first weights.
    """

    def __init__(self, model: "nn.Module", decay: float, phases: "Sequence[Phase]" = ()) -> None:
        self.decay = decay
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.parameters = {n: p for n, p in named if not phases or any(phase.trains(n) for phase in phases)}
        self.values = {n: p.detach().clone() for n, p in self.parameters.items()}

    def update(self, step: int) -> None:
        import torch

        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.values.values()), [p.detach() for p in self.parameters.values()], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the model has the averaged weights; afterwards it has its own weights again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self.parameters.items():
                own = parameter.detach().clone()
                parameter.copy_(self.values[name])
                self.values[name].copy_(own)
