"""Label maps in records."""

import numpy as np
import pytest

from pipelines.data.image.label_maps import IGNORE, packed, unpacked


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 33)])
def test_a_packed_map_comes_back(size: tuple[int, int]) -> None:
    made = np.random.default_rng(0).integers(IGNORE, 847, size).astype(np.int16)
    found = unpacked(packed(made))
    assert found.dtype == np.int16
    assert np.array_equal(found, made)
    found[0, 0] = 3  # it can be written


def test_a_map_of_few_regions_is_small() -> None:
    made = np.zeros((512, 512), np.int16)
    made[100:300, 50:400] = 7
    assert len(packed(made)) < 6000
