"""A WaveNet vocoder beside Griffin-Lim: how far the sound that each makes of a spectrogram is from the real one.

    python -m tests.benchmarks.vocoders RUN

RUN is a finished run of audio-generation-wavenet with `options.condition: mel`. Its samples are compared with the real
recordings of their rows, and with what Griffin-Lim makes of the same spectrograms, frame by frame, in two kinds of
spectrograms: the model's own, which Griffin-Lim is made to fit, and those of pipelines.generation.sounds.
"""

import sys
from pathlib import Path

import numpy as np

from pipelines.config.recipe import load_recipe
from pipelines.data.audio.mel import MelSettings, griffin_lim, log_mel
from pipelines.data.audio.reading import read_audio
from pipelines.data.loading import load_splits
from pipelines.generation import sounds
from pipelines.inference.loading import load
from tests.benchmarks import machine

DRAWS = 10_000


def distance(made: np.ndarray, real: np.ndarray, settings: MelSettings) -> float:
    """The mean absolute difference of two log-mel spectrograms in nats; recordings are cut to the shorter one."""
    size = min(len(made), len(real))
    return float(np.abs(log_mel(made[:size], settings) - log_mel(real[:size], settings)).mean())


def interval(values: np.ndarray) -> str:
    """The mean of paired differences with its 95 % interval, by resampling rows."""
    rows = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.percentile(values[rows].mean(1), (2.5, 97.5))
    return f"{values.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def main(run: Path) -> None:
    loaded = load(run, device="cpu")
    recipe = load_recipe(run / "recipe.yaml")
    task, files = loaded.task, sorted((run / "samples").glob("*.wav"))
    spec = task.generation
    assert spec is not None
    asked = spec.requests(load_splits(recipe.data, task.data).test, len(files))
    mel: MelSettings = task.mel  # type: ignore[attr-defined]
    rate = mel.sampling_rate
    real = [read_audio(request["audio"], rate) for request in asked]
    ours = [read_audio(str(path), rate) for path in files]
    theirs = [griffin_lim(log_mel(one, mel), mel) for one in real]
    print(machine("one thread"))
    print(f"{run.name}: {len(files)} test rows\n")
    print("| spectrograms | Griffin-Lim | WaveNet | difference (95 % interval) |\n| --- | ---: | ---: | ---: |")
    for name, settings in (("those of the model", mel), ("those of the report", sounds.settings(rate))):
        first, second = (
            np.array([distance(one, truth, settings) for one, truth in zip(made, real, strict=True)])
            for made in (theirs, ours)
        )
        print(f"| {name} | {first.mean():.3f} | {second.mean():.3f} | {interval(second - first)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
