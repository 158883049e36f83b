"""The group of processes."""

from pathlib import Path

import torch.distributed

from pipelines.utils import distributed


def test_a_command_that_went_well_leaves_the_group(tmp_path: Path) -> None:
    distributed.leave()  # without a group nothing is done
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    assert torch.distributed.is_initialized()
    distributed.leave()
    assert not torch.distributed.is_initialized()
