"""The loss in parts gives every process of DDP and FSDP2 the gradients of one process."""

import json
import os
import socket
import subprocess
import sys

from tests.support.runs import ROOT


def test_parts_work_in_several_processes() -> None:
    with socket.socket() as place:
        place.bind(("localhost", 0))
        port = str(place.getsockname()[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    done = subprocess.run(
        [*command, "-m", "tests.support.vocabulary_worker"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    compared = json.loads(done.stdout)  # equal gradients that are not zero
    assert compared.keys() == {f"{kind} {way}" for kind in ("untied", "tied", "lora") for way in ("ddp", "fsdp")}
    assert all(compared[f"{kind} ddp"] == compared[f"{kind} fsdp"] > 3 for kind in ("untied", "tied", "lora"))
