"""Random parts of clips: equal for all frames."""

from random import Random

import numpy as np

from pipelines.data.video.augment import crop_flip


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
        out = crop_flip(frames, (32, 48), Random(seed))
        assert out.shape == (2, 32, 48, 3)
        np.testing.assert_array_equal(out[0, ..., :2], out[1, ..., :2])
        assert (out[0, ..., 2] == 0).all()
        assert (out[1, ..., 2] == 200).all()
        np.testing.assert_array_equal(out, crop_flip(frames, (32, 48), Random(seed)))
        columns = out[0, 16, :, 0].astype(int)
        assert (np.diff(columns) >= 0).all() or (np.diff(columns) <= 0).all()
        mirrored += columns[0] > columns[-1]
        widths.append(abs(columns[-1] - columns[0]))
        plain = crop_flip(frames, (32, 48), Random(seed), mirror=False)
        expected = plain[:, :, ::-1] if columns[0] > columns[-1] else plain
        np.testing.assert_array_equal(out, expected)
    assert 10 < mirrored < 30
    assert max(widths) - min(widths) > 60


def test_narrow_and_tiny_frames() -> None:
    for height, width in ((1, 1), (1, 300), (300, 2), (5, 7)):
        for seed in range(20):
            assert crop_flip(clip(height, width), (8, 8), Random(seed)).shape == (2, 8, 8, 3)
