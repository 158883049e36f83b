"""Random parts of clips: equal for all frames, and as sharp as the frames of an evaluation."""

from random import Random

import numpy as np
import torch

from pipelines.data.video.augment import crop_flip
from tests.support.tiny_video_models import tiny


def clip(height: int, width: int) -> np.ndarray:
    """Two frames that say where each pixel was: red is the column, green the row, blue the number of the frame."""
    frames = np.zeros((2, height, width, 3), np.uint8)
    frames[..., 0] = np.linspace(0, 255, width).round()
    frames[..., 1] = np.linspace(0, 255, height).round()[:, None]
    frames[1, ..., 2] = 200
    return frames


def test_all_frames_have_the_same_part() -> None:
    frames = clip(120, 160)
    mirrored, widths = 0, []
    for seed in range(40):
        out = crop_flip(frames, Random(seed))
        assert 0.34 < out[0, ..., 0].size / (120 * 160) <= 1
        assert 0.74 < out.shape[2] / out.shape[1] < 1.35
        np.testing.assert_array_equal(out[0, ..., :2], out[1, ..., :2])
        assert (out[0, ..., 2] == 0).all()
        assert (out[1, ..., 2] == 200).all()
        np.testing.assert_array_equal(out, crop_flip(frames, Random(seed)))
        columns = out[0, 16, :, 0].astype(int)
        assert (np.diff(columns) >= 0).all() or (np.diff(columns) <= 0).all()
        mirrored += columns[0] > columns[-1]
        widths.append(abs(columns[-1] - columns[0]))
        plain = crop_flip(frames, Random(seed), mirror=False)
        expected = plain[:, :, ::-1] if columns[0] > columns[-1] else plain
        np.testing.assert_array_equal(out, expected)
    assert 10 < mirrored < 30
    assert max(widths) - min(widths) > 60


def test_narrow_and_tiny_frames() -> None:
    for height, width in ((1, 1), (1, 300), (300, 2), (5, 7)):
        for seed in range(20):
            _, high, wide, _ = crop_flip(clip(height, width), Random(seed)).shape
            assert 1 <= high <= height
            assert 1 <= wide <= width


def test_parts_are_as_sharp_as_complete_frames() -> None:
    """torchvision's preset reads frames without smoothing: the noise of a part is that of a complete frame."""
    _, family = tiny("r2plus1d")
    noise = np.random.default_rng(0).integers(0, 256, (4, 133, 187, 3), dtype=np.uint8)
    expected = family.pixels(noise).std()
    found = [family.scaled(crop_flip(noise, Random(seed))) for seed in range(12)]
    assert all(part.shape == (4, 3, 32, 32) for part in found)
    np.testing.assert_allclose(np.mean([part.std() for part in found]), expected, rtol=0.05)


def test_parts_are_resized_by_the_processor() -> None:
    _, family = tiny("videomae")
    part = crop_flip(np.random.default_rng(0).integers(0, 256, (2, 90, 120, 3), dtype=np.uint8), Random(1))
    size = {"height": 32, "width": 32}
    (expected,) = family.processor(list(part), size=size, do_center_crop=False, return_tensors="pt").values()
    torch.testing.assert_close(family.scaled(part), expected[0], rtol=0, atol=1e-6)
