"""Training steps of torchvision's Faster R-CNN: Graft's family against a plain loop as in torchvision's reference.

    python -m tests.benchmarks.torchvision_detection [--seconds 60] [--size 320] [--threads 1]

Both sides have the same network, images, batches, threads, float32 and contiguous memory, and take turns. The loop is
that of torchvision's references/detection: PIL to tensor, the model's own resizing, its losses added, SGD. Data loading
is part of both. The network starts from the same random weights. The number of proposals is torchvision's.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

NAMES = ("graft", "torchvision")
Loss = Callable[[list[dict[str, Any]]], "Tensor"]


def rows(count: int) -> list[dict[str, Any]]:
    """Made-up photos of 640 x 480 with one to eight boxes."""
    from PIL import Image

    found = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        corner = random.uniform(0, 300, (random.integers(1, 9), 2))
        pixels = random.integers(0, 255, (480, 640, 3), dtype=np.uint8)
        boxes = np.hstack([corner, corner + random.uniform(20, 170, corner.shape)]).astype(np.float32)
        found.append(
            {
                "image": Image.fromarray(pixels),
                "boxes": boxes,
                "classes": random.integers(0, 3, len(boxes)),
                "crowd": np.zeros(len(boxes), bool),
                "size": (480, 640),
            }
        )
    return found


def sides(size: int, names: Sequence[str]) -> dict[str, tuple["nn.Module", Loss]]:
    """The networks, both with the same weights, and how each of them gets from examples to its loss."""
    import torch
    from torchvision.models.detection import fasterrcnn_resnet50_fpn
    from torchvision.transforms.functional import to_tensor

    from pipelines.models import detection
    from pipelines.models.source import Weights

    torch.manual_seed(0)
    config = {"model_type": "torchvision", "architecture": "fasterrcnn_resnet50_fpn", "image_size": size}
    ours, family = detection.build(Weights(None, config, True), ["a", "b", "c"])
    theirs: Any = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=size, max_size=size, box_detections_per_img=100
    )
    theirs.load_state_dict(ours.state_dict())

    def mine(examples: list[dict[str, Any]]) -> torch.Tensor:
        batch = family.collate([family.example(one) for one in examples])
        return family.loss(ours, batch, family.counts(batch))

    def plain(examples: list[dict[str, Any]]) -> torch.Tensor:
        images = [to_tensor(one["image"]) for one in examples]
        targets = [
            {"boxes": torch.from_numpy(one["boxes"]), "labels": torch.from_numpy(one["classes"] + 1)}
            for one in examples
        ]
        losses: torch.Tensor = sum(theirs(images, targets).values())
        return losses

    found = {"graft": (ours, mine), "torchvision": (theirs, plain)}
    return {name: found[name] for name in names}


def times(given: argparse.Namespace, names: Sequence[str]) -> dict[str, list[float]]:
    """Seconds of each step of each side, the first one left out."""
    import torch

    torch.set_num_threads(given.threads)
    clock = time.process_time if given.processor_time else time.perf_counter
    data = rows(16)
    running = []
    for name, (model, loss) in sides(given.size, names).items():
        optimizer = torch.optim.SGD(model.train().parameters(), lr=0.0001, momentum=0.9, weight_decay=1e-4)
        running.append((name, loss, optimizer))
    found: dict[str, list[float]] = {name: [] for name in names}
    stop, step = time.perf_counter() + given.seconds, 0
    while time.perf_counter() < stop or step < 4:
        examples = [data[(step * given.batch + index) % len(data)] for index in range(given.batch)]
        for name, loss, optimizer in running if step % 2 else reversed(running):
            torch.manual_seed(step)
            begin = clock()
            optimizer.zero_grad()
            value = loss(examples)
            value.backward()
            optimizer.step()
            assert torch.isfinite(value)
            if step:
                found[name].append(clock() - begin)
        step += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processor-time", action="store_true", help="for a machine that others use too")
    parser.add_argument("--memory", choices=NAMES, help="only the peak memory of this side, after a few steps")
    given = parser.parse_args()
    if given.memory:
        given.seconds = 0
        times(given, [given.memory])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    peaks = {}
    for name in NAMES:  # in processes of their own, and first: a process inherits the peak of the one that starts it
        command = [sys.executable, "-m", "tests.benchmarks.torchvision_detection", *sys.argv[1:], "--memory", name]
        peaks[name] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    seconds = {name: statistics.median(taken) for name, taken in times(given, NAMES).items()}
    for name in NAMES:
        print(f"{name:12} {given.batch / seconds[name]:6.2f} images/s, peak memory {peaks[name]:,} MB")
    print(f"ratio        {seconds['torchvision'] / seconds['graft']:6.2f}")


if __name__ == "__main__":
    main()
