"""WaveNet: seconds for a second of sound, and the share of the machine's matrix rate of a training step.

    python -m tests.benchmarks.audio_generation_wavenet

The network is that of the recipe digits_wavenet_vocoder, on one thread. Sampling is compared with running the network
over what it looks back for every sample. Training counts two operations for each weight and sample forward and four
backward; the matrix rate is that of torch.mm on the shapes of a layer, in the same process. Seconds are those of the
processor, so what else runs on the machine changes them little.
"""

import datetime
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCH, SECONDS, NAIVE = 4, 0.25, 40  # NAIVE: samples that are made without kept activations
TIMES = 5


def best(run: Callable[[], Any], times: int = TIMES) -> float:
    """Processor seconds of the fastest of some runs, after one that does not count."""
    run()
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def network() -> Any:
    from pipelines.config.catalog import recipe_paths
    from pipelines.config.recipe import load_recipe
    from pipelines.data.audio.mel import MelSettings
    from pipelines.models import wavenet

    recipe: Any = load_recipe(recipe_paths()["digits_wavenet_vocoder"])
    mel = MelSettings.read({"sampling_rate": 8000, **recipe.options.mel}, "options.mel").plain()
    return wavenet.create({**recipe.model.config, "condition": "mel", "mel": mel}, "model.config").eval()


def sampling(model: Any) -> tuple[float, float]:
    """Processor seconds for a second of sound: by the sampler, and over the receptive field for each sample."""
    import torch

    from pipelines.models import wavenet
    from pipelines.models.wavenet_network import margins, mu_law

    hop = model.mel["hop_length"]
    mel = np.random.default_rng(0).normal(-6, 2, (1 + model.sampling_rate // hop, 64)).astype(np.float32)
    ours = best(lambda: wavenet.vocode(model, [mel], [0]), 2)
    codes = torch.from_numpy(mu_law(np.zeros((1, model.receptive_field), np.float32)))
    frames = torch.from_numpy(margins(mel[: 2 + model.receptive_field // hop], model.mel)[None])

    def naive() -> None:
        with torch.inference_mode():
            for _ in range(NAIVE):
                torch.multinomial(model(codes, frames)[0, -1].softmax(-1), 1)

    return ours, best(naive, 2) / NAIVE * model.sampling_rate


def training(model: Any) -> tuple[float, float, float]:
    """Operations a second of a training step, those of torch.mm, and samples a second."""
    import torch

    from pipelines.losses import waveforms

    time_ = round(SECONDS * model.sampling_rate) // 64 * 64
    codes = torch.randint(0, 256, (BATCH, time_ + 1))
    frames = torch.randn(BATCH, time_ // 64 + 6, 64) - 6
    valid = torch.ones(BATCH, time_, dtype=torch.bool)

    def step() -> None:
        model.zero_grad()
        waveforms.nats(model(codes[:, :-1], frames), codes[:, 1:], valid, "mulaw").sum().backward()

    dense = [one for one in model.modules() if isinstance(one, torch.nn.Linear) and one is not model.frames]
    weights = sum(one.weight.numel() for one in dense)
    seconds = best(step)
    width = model.layers[0].taps.in_features
    left, right = torch.randn(BATCH * time_, width), torch.randn(width, width)
    product = best(lambda: torch.mm(left, right), 20)
    samples = BATCH * time_
    return 6 * weights * samples / seconds, 2 * samples * width * width / product, samples / seconds


def main() -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = network()
    ours, naive = sampling(model)
    rate, peak, samples = training(model.train())
    print(
        f"{datetime.date.today()}, {platform.machine()}, torch {torch.__version__}, NumPy {np.__version__}, one thread"
    )
    print("| what | value |\n| --- | ---: |")
    print(f"| processor seconds for 1 s at 8 kHz, kept activations | {ours:.2f} |")
    print(f"| the same over the receptive field ({model.receptive_field} samples) for each | {naive:.1f} |")
    print(f"| ratio | {naive / ours:.1f} |")
    print(f"| training, samples a second | {samples:,.0f} |")
    print(f"| training, GFLOP/s | {rate / 1e9:.1f} |")
    print(f"| torch.mm of a layer's shape, GFLOP/s | {peak / 1e9:.1f} |")
    print(f"| share of the matrix rate | {rate / peak:.0%} |")


if __name__ == "__main__":
    main()
