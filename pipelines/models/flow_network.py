"""A small network that learns to speak from recordings and their texts alone, in the line of Matcha-TTS.

Characters -> a mean log-mel frame for each -> frames by conditional flow matching (Mehta et al. 2024,
arXiv:2309.03199). Which frames belong to which character is found while it learns, by monotonic alignment search (Kim
et al. 2020, arXiv:2005.11129). All layers are convolutions, so a sentence may be longer than those of the training.

The code uses torch and huggingface_hub only: a model card shows it, so that a model speaks without Graft.
"""

import math
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as f

SIGMA_MIN = 1e-4  # what is left of the noise at the end of the path
SPREAD = 0.4  # deviation of recordings from their mean frames, as multiples of `mel_deviation`
TIMES = 64  # sines and cosines that stand for the time
LONGEST = 8192  # frames of a recording, about a minute; more is a mistake of the durations
MOST_FRAMES = 500  # of one token: more is a mistake of the durations


def present(lengths: Tensor, most: int) -> Tensor:
    """Lengths [n] -> float32 [n, most, 1], 1 within the length and 0 in the padding."""
    return (torch.arange(most, device=lengths.device) < lengths[:, None]).float()[..., None]


def align(scores: Tensor, tokens: Tensor, frames: Tensor) -> Tensor:
    """Monotonic alignment search: the durations [n, most tokens], in frames, whose sum of scores is the largest.

    `scores` [n, most tokens, most frames] says how well a token fits a frame; `tokens` and `frames` [n] are lengths.
    Every token has at least one frame. Where a row has fewer frames than tokens, some tokens have none.
    """
    rows, most, length = scores.shape
    best = scores.new_full((rows, most), -math.inf)
    best[:, 0] = scores[:, 0, 0]
    moved = torch.zeros(length, rows, most, dtype=torch.bool, device=scores.device)
    for frame in range(1, length):
        before = f.pad(best[:, :-1], (1, 0), value=-math.inf)
        moved[frame] = before > best
        best = torch.maximum(best, before) + scores[:, :, frame]
    durations = torch.zeros(rows, most, dtype=torch.long, device=scores.device)
    place, row = tokens - 1, torch.arange(rows, device=scores.device)
    for frame in reversed(range(length)):
        real = frame < frames
        durations[row, place] += real
        place = place - (moved[frame, row, place] & real).long()
    return durations


def repeated(x: Tensor, durations: Tensor, length: int) -> Tensor:
    """Each of the tokens [n, tokens, size] for as many frames as its duration [n, tokens]: [n, length, size].

    Frames after the last token repeat it; they are padding.
    """
    ends = durations.cumsum(1)
    frame = torch.arange(length, device=x.device).expand(len(x), -1).contiguous()
    owner = torch.searchsorted(ends, frame, right=True).clamp(max=x.shape[1] - 1)
    return x.gather(1, owner[..., None].expand(-1, -1, x.shape[2]))


class Block(nn.Module):
    """A residual convolution over time. Conditions [n, conditions] scale and shift its input (FiLM)."""

    def __init__(self, size: int, kernel: int, dilation: int, conditions: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size, elementwise_affine=False)
        self.film = nn.Linear(conditions, 2 * size)
        self.conv = nn.Conv1d(size, size, kernel, padding=dilation * (kernel - 1) // 2, dilation=dilation)
        self.out = nn.Linear(size, size)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, conditions: Tensor, there: Tensor) -> Tensor:
        scale, shift = self.film(conditions)[:, None].chunk(2, -1)
        y = (self.norm(x) * (1 + scale) + shift) * there  # the padding is zeros, as beyond the ends of the longest row
        y = self.conv(y.transpose(1, 2)).transpose(1, 2)
        found: Tensor = (x + self.dropout(self.out(f.silu(y)))) * there
        return found


class Decoder(nn.Module):
    """What noisy spectrograms [n, frames, bins] lack, by dilated convolutions."""

    def __init__(self, bins: int, encoder: int, size: int, layers: int, conditions: int) -> None:
        super().__init__()
        self.stem = nn.Linear(2 * bins + encoder, size)
        self.blocks = nn.ModuleList(Block(size, 3, 2 ** (n % 4), conditions, 0.0) for n in range(layers))
        self.norm = nn.LayerNorm(size)
        self.out = nn.Linear(size, bins)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, mean: Tensor, states: Tensor, conditions: Tensor, there: Tensor) -> Tensor:
        y = self.stem(torch.cat([x, mean, states], -1)) * there
        for block in self.blocks:
            y = block(y, conditions, there)
        velocity: Tensor = self.out(self.norm(y)) * there
        return velocity


class FlowSpeechForTextToSpeech(nn.Module, PyTorchModelHubMixin):
    """Token ids -> log-mel spectrograms. Token 0 stands between characters, token n for the n-th of `symbols`."""

    def __init__(
        self,
        symbols: str,
        speakers: list[str],
        mel: dict[str, Any],
        hidden_size: int = 128,
        encoder_layers: int = 4,
        duration_layers: int = 2,
        decoder_size: int = 128,
        decoder_layers: int = 8,
        dropout: float = 0.1,
        mel_mean: float = -5.5,
        mel_deviation: float = 2.0,
    ) -> None:
        super().__init__()
        bins, size = mel["num_mel_bins"], hidden_size
        self.mel_mean, self.mel_deviation = mel_mean, mel_deviation
        self.embedding = nn.Embedding(len(symbols) + 1, size)
        self.voices = nn.Embedding(max(1, len(speakers)), size)
        self.encoder = nn.ModuleList(Block(size, 5, 1, size, dropout) for _ in range(encoder_layers))
        self.norm = nn.LayerNorm(size)
        self.mean = nn.Linear(size, bins)
        self.durations = nn.ModuleList(Block(size, 3, 1, size, dropout) for _ in range(duration_layers))
        self.duration = nn.Linear(size, 1)
        nn.init.constant_(self.duration.bias, 1.0)  # of about three frames
        self.time = nn.Sequential(nn.Linear(TIMES, size), nn.SiLU(), nn.Linear(size, size))
        self.decoder = Decoder(bins, size, decoder_size, decoder_layers, size)

    def encode(self, tokens: Tensor, voices: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [n, tokens] and speakers [n, size] -> states [n, tokens, size], mean frames [n, tokens, bins], and the
        logarithms of durations [n, tokens].
        """
        x = self.embedding(tokens) * there
        for block in self.encoder:
            x = block(x, voices, there)
        x = self.norm(x) * there
        y = x.detach()  # durations are learned from the states, but do not shape them
        for block in self.durations:
            y = block(y, voices, there)
        return x, self.mean(x) * there, self.duration(y).squeeze(-1)

    def velocity(self, x: Tensor, mean: Tensor, states: Tensor, time: Tensor, voices: Tensor, there: Tensor) -> Tensor:
        """The velocity [n, frames, bins] of spectrograms `x` at times [n] from 0 (noise) to 1.

        The decoder adds to the best linear guess, that for recordings that deviate from `mean` by Gaussian noise of
        SPREAD. Its inputs and outputs then have the same size at all times (Karras et al. 2022, arXiv:2206.00364).
        """
        speed = torch.exp(torch.arange(TIMES // 2, device=x.device) * (-math.log(10_000) / (TIMES // 2 - 1)))
        angles = 1000 * time[:, None] * speed
        conditions = f.silu(self.time(torch.cat([angles.sin(), angles.cos()], -1)) + voices)
        at = time[:, None, None]
        apart, variance = x - at * mean, (1 - at) ** 2 + (at * SPREAD) ** 2
        guess = mean + (at * SPREAD**2 - (1 - at)) / variance * apart
        more: Tensor = self.decoder(apart / variance.sqrt(), mean, states, conditions, there)
        return (guess + SPREAD / variance.sqrt() * more) * there

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        mels: Tensor,
        frames: Tensor,
        voices: Tensor,
        times: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The sums of the losses of each row: durations [n], mean frames [n], and velocities [times, n].

        `tokens` [n, tokens] and `mels` [n, frames, bins] have padding after `lengths` [n] and `frames` [n]. `voices`
        [n] are numbers of speakers, `times` [times, n] and `noise` [times, n, frames, bins] are random.
        """
        there, sounding = present(lengths, tokens.shape[1]), present(frames, mels.shape[1])
        target = (mels - self.mel_mean) / self.mel_deviation * sounding
        speaker = self.voices(voices)
        states, means, logarithms = self.encode(tokens, speaker, there)
        with torch.no_grad(), torch.autocast(mels.device.type, enabled=False):
            ours = means.float()
            scores = ours @ target.transpose(1, 2) - 0.5 * ours.square().sum(-1, keepdim=True)  # of unit variance
            durations = align(scores, lengths, frames)
        # The deviance of a gamma distribution: its best answer is the mean of durations. That of the squared error of
        # logarithms is shorter, and speech would be too fast.
        wanted, logarithms = durations.clamp(min=1).float(), logarithms.float()
        duration = ((wanted * (-logarithms).exp() + logarithms - 1 - wanted.log()) * there[..., 0]).sum(1)
        mean = repeated(means, durations, mels.shape[1]) * sounding
        states = repeated(states, durations, mels.shape[1])
        prior = 0.5 * (target - mean.float()).square().sum((1, 2))
        flows = []
        for time, start in zip(times, noise, strict=True):
            at = time[:, None, None]
            x = ((1 - (1 - SIGMA_MIN) * at) * start + at * target) * sounding
            velocity = self.velocity(x, mean, states, time, speaker, sounding)
            flows.append(((velocity.float() - target + (1 - SIGMA_MIN) * start).square() * sounding).sum((1, 2)))
        return duration, prior, torch.stack(flows)

    @torch.no_grad()
    def speak(
        self,
        tokens: list[int],
        voice: int = 0,
        seed: int = 0,
        speed: float = 1.0,
        temperature: float = 0.7,
        steps: int = 10,
    ) -> Tensor:
        """A log-mel spectrogram [frames, bins] of one text, in `steps` of Euler's method from noise of this seed."""
        device = self.mean.weight.device
        ids = torch.tensor([tokens], device=device)
        speaker = self.voices(torch.tensor([voice], device=device))
        states, means, logarithms = self.encode(ids, speaker, torch.ones(1, len(tokens), 1, device=device))
        # Ends of tokens are rounded, not durations: errors of many short tokens would add up.
        durations = logarithms.float().exp().div(speed).nan_to_num(1.0).clamp(1e-3, MOST_FRAMES)
        ends = durations.cumsum(1).round().long().clamp(2, LONGEST)  # two frames are the shortest sound
        durations = ends.diff(dim=1, prepend=ends.new_zeros(1, 1))
        length = int(ends[0, -1])
        mean, states = repeated(means, durations, length), repeated(states, durations, length)
        noise = torch.randn(length, mean.shape[2], generator=torch.Generator().manual_seed(seed))
        x, sounding = temperature * noise.to(device)[None], torch.ones(1, length, 1, device=device)
        for step in range(steps):
            time = torch.full((1,), step / steps, device=device)
            x = x + self.velocity(x, mean, states, time, speaker, sounding) / steps
        found: Tensor = x[0].float() * self.mel_deviation + self.mel_mean
        return found
