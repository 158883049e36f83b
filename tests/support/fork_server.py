"""Imports all of Graft once, then forks a child for each command.

A command is a line of JSON. The server answers the child's pid, then its exit code. It computes nothing before a fork,
so a child has its own threads and random states, like a fresh process.
"""

import gc
import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any

WARM = (
    "torch",
    "torchvision.transforms.v2",
    "transformers",
    "timm",
    "datasets",
    "accelerate",
    "peft",
    "matplotlib.figure",
    "sklearn.metrics",
    "safetensors.torch",
    "pipelines.cli",
    "pipelines.training.run",
    "pipelines.publishing.card",
    "pipelines.reporting.report",
    "pipelines.tasks.image_classification",
    "transformers.models.vit.modeling_vit",
    "torch.distributed.tensor",
)


def child(order: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes its background jobs ignore it
    os.environ.update(order["environment"])
    out = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if "DIE_AT_WRITE" in os.environ:
        die_at_write(int(os.environ["DIE_AT_WRITE"]))
    from pipelines.__main__ import main

    sys.argv = ["graft", *order["arguments"]]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def die_at_write(number: int) -> None:
    """Send SIGKILL to this process just before its file operation of that number. A timer seldom hits these moments."""
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        name = str(arguments[0]) if arguments else ""
        writes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
        if event == "open" and isinstance(arguments[2], int):
            writes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and os.environ["DIE_IN"] in name:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def main() -> None:
    for name in WARM:
        importlib.import_module(name)
    gc.freeze()  # otherwise every garbage collection in a child visits, and so copies, all imported objects
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(order)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # run no destructors: those of some libraries print warnings
