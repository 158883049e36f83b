"""Training steps of torchvision's Faster R-CNN: Graft's family against a plain loop as in torchvision's reference.

    python -m tests.benchmarks.torchvision_detection [--seconds 60] [--size 320] [--threads 1]

Both sides have the same network, images, batches, threads, float32 and contiguous memory, and take turns. The loop is
that of torchvision's references/detection: PIL to tensor, the model's own resizing, its losses added, SGD. Data loading
is part of both. The network starts from the same random weights. The number of proposals is torchvision's.
"""

import argparse
import copy
import statistics
import time
from typing import Any

import numpy as np


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


def main() -> None:
    import torch
    from torchvision.models.detection import fasterrcnn_resnet50_fpn
    from torchvision.transforms.functional import to_tensor

    from pipelines.models import detection
    from pipelines.models.source import Weights

    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    config = {"model_type": "torchvision", "architecture": "fasterrcnn_resnet50_fpn", "image_size": given.size}
    ours, family = detection.build(Weights(None, config, True), ["a", "b", "c"])
    size = given.size
    theirs = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=size, max_size=size, box_detections_per_img=100
    )
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    data = rows(16)

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

    sides = {}
    for name, model, loss in (("graft", ours, mine), ("torchvision", theirs, plain)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0001, momentum=0.9, weight_decay=1e-4)
        sides[name] = (model.train(), loss, optimizer, [])
    stop, step = time.perf_counter() + given.seconds, 0
    while time.perf_counter() < stop or step < 4:
        examples = [data[(step * given.batch + index) % len(data)] for index in range(given.batch)]
        for model, loss, optimizer, times in sides.values():
            torch.manual_seed(step)
            begin = time.perf_counter()
            optimizer.zero_grad()
            value = loss(examples)
            value.backward()
            optimizer.step()
            assert torch.isfinite(value)
            if step:
                times.append(time.perf_counter() - begin)
            del model
        step += 1
    middle = {name: statistics.median(side[3]) for name, side in sides.items()}
    for name, seconds in middle.items():
        print(f"{name:12} {given.batch / seconds:6.2f} images/s ({len(sides[name][3])} steps)")
    print(f"ratio        {middle['torchvision'] / middle['graft']:6.2f}")


if __name__ == "__main__":
    main()
