"""The layers of a model."""

import numpy as np
import torch

from pipelines.models.layers import in_own_memory


def test_weights_leave_the_file_that_they_were_read_from() -> None:
    file = np.arange(1, 8, dtype=np.float32)
    model = torch.nn.BatchNorm1d(3)
    model.weight.data = torch.from_numpy(file[1:4])
    model.running_mean = torch.from_numpy(file[4:7])
    assert in_own_memory(model) is model
    file[:] = 0
    assert model.weight.tolist() == [2, 3, 4]
    assert model.running_mean.tolist() == [5, 6, 7]
    assert model.weight.requires_grad
    assert model.num_batches_tracked is not None
    assert model.num_batches_tracked.dtype == torch.int64, "counts stay whole numbers"
