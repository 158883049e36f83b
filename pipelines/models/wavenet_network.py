"""The network of WaveNet (van den Oord et al. 2016, arXiv:1609.03499), and its sampler in NumPy.

A model card quotes this module as it is, so it uses nothing of Graft. pipelines.models.wavenet reads configurations.

The network predicts each sample from the samples before it. `outputs[:, t]` are the parameters of the distribution of
sample t; its input at t is sample t - 1, and silence before the first.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as f

LEVELS = 256  # of mu-law (ITU-T G.711), the paper's quantisation
STEPS = 65_535  # between the 16-bit levels of the mixture of logistics
NARROWEST = -9.0  # smallest logarithm of a scale; 16 bits have steps of 3e-5, exp(-10.4)
AROUND = 2  # frames on each side that a frame's condition sees
AFTER = AROUND + 1  # frames after the last one: the last samples lie between two frames


def mu_law(samples: np.ndarray) -> np.ndarray:
    """Samples from -1 to 1 -> int64 codes from 0 to 255."""
    most = LEVELS - 1
    squeezed = np.sign(samples) * np.log1p(most * np.minimum(np.abs(samples), 1)) / np.log1p(most)
    codes: np.ndarray = np.rint((squeezed + 1) / 2 * most).astype(np.int64)
    return codes


def from_mu_law(codes: np.ndarray) -> np.ndarray:
    """Codes from 0 to 255 -> float32 samples from -1 to 1."""
    most = LEVELS - 1
    squeezed = 2 * np.asarray(codes, np.float64) / most - 1
    samples: np.ndarray = (np.sign(squeezed) * np.expm1(np.abs(squeezed) * np.log1p(most)) / most).astype(np.float32)
    return samples


class Layer(nn.Module):
    """A dilated causal convolution of two taps, whose values are gated; it adds to the residuals and to the skips."""

    def __init__(self, hidden_size: int, skip_size: int, condition_size: int, dilation: int, last: bool) -> None:
        super().__init__()
        self.dilation = dilation
        self.taps = nn.Linear(2 * hidden_size, 2 * hidden_size)
        self.condition = nn.Linear(condition_size, 2 * hidden_size, bias=False) if condition_size else None
        self.residual = None if last else nn.Linear(hidden_size, hidden_size)
        self.skip = nn.Linear(hidden_size, skip_size, bias=last)  # one bias for the sum of all

    def forward(self, values: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """[batch, time, hidden] and [batch, time or 1, condition] -> the next values and the skips.

        Channels are last: a layer is one product of matrices for both taps and both gates.
        """
        before = f.pad(values, (0, 0, self.dilation, 0))[:, : values.shape[1]]
        gates = self.taps(torch.cat([before, values], -1))
        if self.condition is not None:
            gates = gates + self.condition(condition)
        signal, gate = gates.chunk(2, -1)
        gated = torch.tanh(signal) * torch.sigmoid(gate)
        return values if self.residual is None else values + self.residual(gated), self.skip(gated)


class WaveNet(nn.Module, PyTorchModelHubMixin):
    """Parameters of the distribution of every sample, from the samples before it and a condition.

    `output` is `mulaw` (a softmax over 256 levels) or `logistics` (a mixture of discretised logistics on 16 bits,
    Salimans et al. 2017). `condition` is none, label, speaker (`conditions` of them, for the whole recording), or mel:
    log-mel frames of `mel` settings.
    """

    def __init__(
        self,
        hidden_size: int = 64,
        skip_size: int = 128,
        num_layers: int = 8,
        stacks: int = 2,
        output: str = "mulaw",
        mixtures: int = 10,
        condition: str = "none",
        conditions: int = 0,
        condition_size: int = 32,
        sampling_rate: int = 8000,
        mel: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.output, self.condition, self.sampling_rate, self.mel = output, condition, sampling_rate, mel
        self.mixtures = mixtures
        width = 0 if condition == "none" else condition_size
        if mel is not None and condition == "mel":
            # A layer over 5 frames. Decibels are scaled to about -1 to 1.
            self.frames: nn.Module | None = nn.Linear((2 * AROUND + 1) * mel["num_mel_bins"], condition_size)
        else:
            self.frames = nn.Embedding(conditions, condition_size) if width else None
        self.first = nn.Embedding(LEVELS, hidden_size) if output == "mulaw" else nn.Linear(1, hidden_size)
        dilations = [2**place for _ in range(stacks) for place in range(num_layers)]
        self.layers = nn.ModuleList(
            Layer(hidden_size, skip_size, width, dilation, number == len(dilations) - 1)
            for number, dilation in enumerate(dilations)
        )
        self.hidden = nn.Linear(skip_size, skip_size)
        self.head = nn.Linear(skip_size, LEVELS if output == "mulaw" else 3 * mixtures)

    @property
    def receptive_field(self) -> int:
        """The number of samples that decide the next one."""
        return 1 + sum(layer.dilation for layer in self.layers)  # type: ignore[misc]

    def forward(self, inputs: Tensor, condition: Tensor | None = None) -> Tensor:
        """Outputs [batch, time, 256 or 3 * mixtures].

        `inputs` [batch, time] are the samples before: int64 codes of mu-law, or float samples. `condition` are numbers
        [batch], or frames [batch, frames + 2 + 3, bins]: frame f + 2 is centred at sample f * hop_length.
        """
        values = self.first(inputs if self.output == "mulaw" else inputs.unsqueeze(-1))
        known = None if self.frames is None else self.spread(self.conditions(condition), inputs.shape[1])
        total: Tensor | None = None
        for layer in self.layers:
            values, skip = layer(values, known)
            total = skip if total is None else total + skip
        assert total is not None
        outputs: Tensor = self.head(torch.relu(self.hidden(torch.relu(total))))
        return outputs

    def conditions(self, condition: Any) -> Tensor:
        """The condition of each frame [batch, frames + 1, condition_size]; of a whole recording there is one."""
        assert self.frames is not None
        if self.mel is None:
            whole: Tensor = self.frames(condition)
            return whole[:, None]
        lowest = math.log(self.mel["floor"]) if self.mel["log"] == "ln" else math.log10(self.mel["floor"])
        around = (1 - condition / (0.5 * lowest)).unfold(1, 2 * AROUND + 1, 1)  # [batch, frames, bins, 5]
        return torch.tanh(self.frames(around.flatten(2)))

    def spread(self, conditions: Tensor, samples: int) -> Tensor:
        """The condition of each sample: between two frames it changes linearly."""
        if self.mel is None:
            return conditions
        hop = self.mel["hop_length"]
        share = torch.arange(hop, device=conditions.device, dtype=conditions.dtype)[:, None] / hop
        here, step = conditions[:, :-1, None], (conditions[:, 1:] - conditions[:, :-1])[:, :, None]
        between: Tensor = here + share * step
        return between.flatten(1, 2)[:, :samples]


class Sampler:
    """Draws samples one after the other with the activations of past samples kept (Le Paine et al. 2016).

    Matrices are tiny, so the time goes into calls: NumPy has less to do for each than torch. A layer is one product for
    both taps and one tanh for both gates (sigmoid(x) = tanh(x / 2) / 2 + 1 / 2, folded into the weights); the products
    of the conditions are computed before, those of the skips together. Every recording of a batch has its own
    products, so a result does not depend on the others.
    """

    def __init__(self, model: WaveNet) -> None:
        def matrix(weights: Tensor) -> np.ndarray:
            return weights.detach().float().cpu().numpy()

        self.model = model
        layers: list[Any] = list(model.layers)
        size = layers[0].taps.weight.shape[0] // 2
        # tanh of half of the gate; the factor 1/2 of the sigmoid goes into what follows
        halved = np.concatenate([np.ones(size), np.full(size, 0.5)]).astype(np.float32)
        self.taps = [np.ascontiguousarray(matrix(layer.taps.weight) * halved[:, None]) for layer in layers]
        self.biases = np.stack([matrix(layer.taps.bias) * halved for layer in layers])
        self.conditions = [
            None if layer.condition is None else matrix(layer.condition.weight) * halved[:, None] for layer in layers
        ]
        self.residuals = [np.ascontiguousarray(matrix(layer.residual.weight) * 0.5) for layer in layers[:-1]]
        self.residual_biases = [matrix(layer.residual.bias)[:, None] for layer in layers[:-1]]
        self.skips = np.concatenate([matrix(layer.skip.weight) * 0.5 for layer in layers], 1)
        self.dilations = [int(layer.dilation) for layer in layers]
        self.size, self.bias = size, matrix(layers[-1].skip.bias)[:, None]
        self.hidden, self.hidden_bias = matrix(model.hidden.weight), matrix(model.hidden.bias)[:, None]
        self.head, self.head_bias = matrix(model.head.weight), matrix(model.head.bias)[:, None]
        first: Any = model.first
        self.first = matrix(first.weight) if model.output == "mulaw" else matrix(first.weight)[:, 0]
        self.first_bias = None if model.output == "mulaw" else matrix(first.bias)

    def begin(self, conditions: list[np.ndarray | None]) -> None:
        """Forget all samples. `conditions` [frames, condition_size] are those of each recording (`condition_of`)."""
        rows, size, count = len(conditions), self.size, len(self.dilations)
        # A place holds what the layer saw at one time; the layer's own dilation says how many are kept.
        self.rings = [np.zeros((dilation, rows, size, 1), np.float32) for dilation in self.dilations]
        self.pair = np.zeros((rows, 2 * size, 1), np.float32)
        self.gates = np.zeros((rows, 2 * size, 1), np.float32)
        self.gated = np.zeros((rows, count * size, 1), np.float32)
        self.added = np.zeros((rows, size, 1), np.float32)
        self.total = np.zeros((rows, len(self.skips), 1), np.float32)
        self.after = np.zeros((rows, len(self.skips), 1), np.float32)
        self.outputs = np.zeros((rows, len(self.head), 1), np.float32)
        self.time = 0
        longest = max(1 if one is None else len(one) for one in conditions)
        self.known = np.zeros((longest, count, rows, 2 * size, 1), np.float32)
        for row, one in enumerate(conditions):
            for number, weights in enumerate(self.conditions):
                if weights is None or one is None:
                    self.known[:, number, row, :, 0] = self.biases[number]
                else:
                    products = one @ weights.T + self.biases[number]
                    self.known[: len(one), number, row, :, 0] = products
                    self.known[len(one) :, number, row, :, 0] = products[-1]
        self.steps = np.diff(self.known, axis=0, append=self.known[-1:])
        self.now = self.known[0].copy()
        self.before = [self.pair[:, :size], self.pair[:, size:]]
        self.halves = [self.gates[:, :size], self.gates[:, size:]]
        self.parts = [self.gated[:, number * size : (number + 1) * size] for number in range(count)]

    def step(self, inputs: np.ndarray) -> np.ndarray:
        """The outputs [recordings, 256 or 3 * mixtures] after one more sample each: codes, or float32 samples."""
        mel = self.model.mel
        past, values = self.before
        signal, gate = self.halves
        if self.first_bias is None:
            values[:, :, 0] = self.first[inputs]
        else:
            values[:, :, 0] = inputs[:, None] * self.first + self.first_bias
        if mel is not None:
            frame, place = divmod(self.time, mel["hop_length"])
            np.multiply(self.steps[frame], np.float32(place / mel["hop_length"]), out=self.now)
            np.add(self.now, self.known[frame], out=self.now)
        last = len(self.parts) - 1
        for number, part in enumerate(self.parts):
            ring = self.rings[number][self.time % self.dilations[number]]
            past[:] = ring
            ring[:] = values
            np.matmul(self.taps[number], self.pair, out=self.gates)
            np.add(self.gates, self.now[number], out=self.gates)
            np.tanh(self.gates, out=self.gates)
            np.multiply(signal, gate, out=part)
            np.add(part, signal, out=part)
            if number < last:
                np.matmul(self.residuals[number], part, out=self.added)
                np.add(values, self.added, out=values)
                np.add(values, self.residual_biases[number], out=values)
        self.time += 1
        np.matmul(self.skips, self.gated, out=self.total)
        np.add(self.total, self.bias, out=self.total)
        np.maximum(self.total, 0, out=self.total)
        np.matmul(self.hidden, self.total, out=self.after)
        np.add(self.after, self.hidden_bias, out=self.after)
        np.maximum(self.after, 0, out=self.after)
        np.matmul(self.head, self.after, out=self.outputs)
        np.add(self.outputs, self.head_bias, out=self.outputs)
        found: np.ndarray = self.outputs[:, :, 0]
        return found

    def draw(
        self,
        conditions: list[np.ndarray | None],
        lengths: list[int],
        seeds: list[int],
        temperature: float = 1.0,
    ) -> list[np.ndarray]:
        """Recordings of these lengths: float32 samples from -1 to 1. Each depends on its own seed and condition only.

        A `temperature` below 1 makes likely values more likely; at 0 each sample is the likeliest.
        """
        whole = next(self.pieces(conditions, lengths, seeds, temperature, max(lengths, default=0)), [])
        return [np.ascontiguousarray(one) for one in whole]

    def pieces(
        self,
        conditions: list[np.ndarray | None],
        lengths: list[int],
        seeds: list[int],
        temperature: float,
        every: int,
    ) -> Iterator[list[np.ndarray]]:
        """Yield what there is of the recordings of `draw` after `every` samples, and at last all of them.

        The recordings are equal for any `every`. Each that is yielded stays as it is.
        """
        if not lengths:
            return
        self.begin(conditions)
        # Each sample takes three numbers: which component, and where in it.
        numbers = [np.random.default_rng(seed).random((length, 3)) for seed, length in zip(seeds, lengths, strict=True)]
        longest, rows = max(lengths), len(lengths)
        drawn = np.full((longest, rows, 3), 0.5)
        for row, own in enumerate(numbers):
            drawn[: len(own), row] = own
        coded = self.model.output == "mulaw"
        made = np.zeros((longest, rows), np.int64 if coded else np.float32)
        sound = np.zeros((longest, rows), np.float32)
        inputs = mu_law(np.zeros(rows)) if coded else np.zeros(rows, np.float32)
        pick = self._code if coded else self._sample
        start = 0
        while True:
            stop = min(start + max(every, 1), longest)
            for time in range(start, stop):
                inputs = pick(self.step(inputs), drawn[time], temperature)
                made[time] = inputs
            sound[start:stop] = from_mu_law(made[start:stop]) if coded else made[start:stop]
            yield [sound[: min(length, stop), row] for row, length in enumerate(lengths)]
            if stop == longest:
                return
            start = stop

    def _code(self, outputs: np.ndarray, numbers: np.ndarray, temperature: float) -> np.ndarray:
        """Codes [recordings] from logits [recordings, 256]."""
        if temperature == 0:
            likeliest: np.ndarray = outputs.argmax(1)
            return likeliest
        return _choice(outputs, numbers[:, 0], temperature)

    def _sample(self, outputs: np.ndarray, numbers: np.ndarray, temperature: float) -> np.ndarray:
        """Samples [recordings] from a mixture of logistics, on the levels of 16 bits."""
        weights, means, scales = np.split(outputs, 3, axis=1)
        which = weights.argmax(1) if temperature == 0 else _choice(weights, numbers[:, 0], temperature)
        rows = np.arange(len(outputs))
        scale = np.exp(np.maximum(scales[rows, which], NARROWEST)) * temperature
        place = np.clip(numbers[:, 1], 1e-5, 1 - 1e-5)
        found = np.clip(means[rows, which] + scale * (np.log(place) - np.log1p(-place)), -1, 1)
        levels: np.ndarray = (np.rint((found + 1) / 2 * STEPS) / STEPS * 2 - 1).astype(np.float32)
        return levels


def _choice(logits: np.ndarray, numbers: np.ndarray, temperature: float) -> np.ndarray:
    """A place in each row, drawn with the probabilities of its logits."""
    parts = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
    sums = np.cumsum(parts, 1, dtype=np.float64)
    found: np.ndarray = (sums < (numbers * sums[:, -1])[:, None]).sum(1)
    places: np.ndarray = np.minimum(found, logits.shape[1] - 1)
    return places


def condition_of(model: WaveNet, condition: Any) -> np.ndarray | None:
    """What `Sampler` takes: of a number (class, speaker) or of a log-mel spectrogram [frames, bins]."""
    if model.frames is None:
        return None
    device = next(model.parameters()).device
    with torch.no_grad():
        if model.mel is None:
            found = model.conditions(torch.tensor([int(condition)], device=device))
        else:
            found = model.conditions(torch.from_numpy(margins(condition, model.mel))[None].to(device))
    return found[0].float().cpu().numpy()


def margins(mels: np.ndarray, mel: dict[str, Any]) -> np.ndarray:
    """A spectrogram with silent frames before and after it: float32 [frames + 2 + 3, bins]."""
    silence = math.log(mel["floor"]) if mel["log"] == "ln" else math.log10(mel["floor"])
    return np.pad(mels, ((AROUND, AFTER), (0, 0)), constant_values=silence).astype(np.float32)
