"""The command line inside this process, what it printed, and what every error must look like.

done = graft("train", recipe, "--data", folder); refused(done, 2, "nowhere.csv")
"""

import contextlib
import io
import signal
import sys
from dataclasses import dataclass
from typing import Any
from unittest import mock

RECIPE = """task: image-classification
model: {id: nowhere}
data: {id: nowhere, workers: 0}
train: {max_steps: 2, batch_size: 8, learning_rate: 1.0e-3, warmup: 0, precision: fp32, log_every: 1}
"""


@dataclass
class Done:
    code: int
    out: str
    err: str


def graft(*arguments: Any) -> Done:
    """Run `graft` as its own process would, `main` included."""
    from pipelines.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    handlers, code = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}, 0
    try:
        with (
            mock.patch.object(sys, "argv", ["graft", *map(str, arguments)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Done(code, out.getvalue(), err.getvalue())


def refused(done: Done, code: int, *words: str) -> str:
    """The error that ended a command: one or two lines, no traceback, with all these words. Returns it."""
    shown = f"exit {done.code}\n{done.out}\n{done.err}"
    assert done.code == code, shown
    before, mark, error = f"\n{done.err}".partition("\nerror: ")
    assert mark, f"no line begins with `error: `\n{shown}"
    assert len(error.strip().splitlines()) <= 2, shown
    for bad in ("Traceback", "This is a bug"):
        assert bad not in done.err, shown
    missing = [word for word in words if word not in error]
    assert not missing, f"the error does not say {missing}\n{shown}"
    assert "Warning" not in before, shown
    return error.strip()
