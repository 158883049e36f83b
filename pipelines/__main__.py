"""`graft` and `python -m pipelines`: the command line. Errors are shown as one or two lines."""

import os
import signal
import sys
from typing import NoReturn

asked: list[int] = []  # signals that asked this command to stop


def main() -> None:
    from pipelines.errors import GraftError

    debug = "--debug" in sys.argv
    sys.argv = [a for a in sys.argv if a != "--debug"]
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Waiting threads must sleep soon, because a spinning thread keeps its core from others. With two busy programs on
    # the same
    # machine, MobileNetV2 trains 9.6 images/s with this setting, 5.2 to 8.5 if threads sleep at once, and 2.0 to 8.0
    # with
    # OpenMP's default. Without other programs there is no difference.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    asked.clear()
    signal.signal(signal.SIGTERM, _stop)
    # a background process of a shell starts with SIGINT ignored
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    try:
        from pipelines import cli

        cli.main()
    except GraftError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `graft recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if asked:  # compiled code may turn the interrupt into another error
            print("stopped", file=sys.stderr)
            sys.exit(130)
        if debug:
            raise
        print(
            f"error: unexpected {type(error).__name__}: {error}\nThis is a bug; run again with --debug to see where.",
            file=sys.stderr,
        )
        sys.exit(1)


def run() -> None:
    """The installed command.

    After `graft predict` the process ends at once: to take apart what torch and transformers made needs half a second,
    and nothing of it must be saved. All other commands end in the usual way.
    """
    code: str | int | None = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    if sys.argv[1:2] == ["predict"] and not isinstance(code, str):
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # nobody reads the answers any more
            code = code or 1
        os._exit(code or 0)
    if not code and "torch.distributed" in sys.modules:
        from pipelines.utils import distributed

        distributed.leave()
    sys.exit(code)


def _stop(number: int, frame: object) -> NoReturn:
    """SIGTERM ends a command as Ctrl-C does.

    While a run trains, another handler saves first (signals.stop_on_signals).
    """
    asked.append(number)
    raise KeyboardInterrupt


if __name__ == "__main__":
    run()
