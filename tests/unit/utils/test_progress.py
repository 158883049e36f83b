"""Bars, lines and warnings of a run: short on a terminal of 80 columns, and few in a pipe."""

import io
import logging
import re
import threading
import time

import pytest
from rich.console import Console

from pipelines.training.run_log import validation_line
from pipelines.utils import library_logging, progress
from pipelines.utils.progress import Progress


def shown(show: Progress, terminal: bool = False) -> io.StringIO:
    """The text that `show` prints from now on."""
    screen = io.StringIO()
    show.console = Console(
        file=screen, force_terminal=terminal, width=80 if terminal else None, highlight=False, legacy_windows=False
    )
    return screen


def test_a_warning_is_printed_once() -> None:
    show = Progress(True)
    screen = shown(show)
    library_logging.quiet_libraries(show)
    log = logging.getLogger("graft")
    for split, count in (("train", 8), ("train", 8), ("test", 2)):
        log.warning("%s: %d rows are resampled", split, count)
        log.warning("%d recordings are resampled", count, extra={"once": True})
    assert screen.getvalue().splitlines() == [
        "train: 8 rows are resampled",
        "8 recordings are resampled",
        "test: 2 rows are resampled",
    ]


def test_quiet_keeps_warnings() -> None:
    show = Progress(True, quiet=True)
    screen = shown(show)
    show.say("2 classes: cat, dog")
    show.warn("skipped, cannot be read: a.jpg")
    assert screen.getvalue() == "skipped, cannot be read: a.jpg\n"


def test_a_bar_fits_into_80_columns() -> None:
    show = Progress(True)
    screen = shown(show, terminal=True)
    with show.item("validation", 12_345_678) as outer:
        outer.advance(12_000_000, note="loss 0.000123  12.3 k/s")
        with show.item("test", 9) as inner:
            inner.advance(3)
            show.bar.refresh()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n").split("\n")
    bars = [line.rstrip() for line in lines if "━" in line]
    assert any("12,000,000/12,345,678 loss 0.000123  12.3 k/s" in line for line in bars), bars
    assert max(map(len, bars)) <= 80


def test_a_terminal_breaks_lines_between_words_and_a_file_does_not() -> None:
    text = "head: new, because " + "the model does not know the class " * 4
    for terminal in (False, True):
        show = Progress(True)
        screen = shown(show, terminal)
        show.say(text)
        lines = [line.rstrip() for line in screen.getvalue().splitlines()]
        assert " ".join(lines).split() == text.split()
        assert (max(map(len, lines)) <= 80) == terminal


def test_a_file_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    show = Progress(True)
    shown(show)
    with show.item("training", 1000) as item:
        for _ in range(300):
            now[0] += 1.0
            item.advance(note="loss 0.5")
    assert capsys.readouterr().err.splitlines() == [
        "training 61/1,000  loss 0.5  15 min 39 s left",
        "training 122/1,000  loss 0.5  14 min 38 s left",
        "training 183/1,000  loss 0.5  13 min 37 s left",
        "training 244/1,000  loss 0.5  12 min 36 s left",
    ]


def test_validation_lines() -> None:
    entry = {"step": 1200, "epoch": 9.2308, "validation": {"accuracy": 0.98, "balanced_accuracy": None, "ece": 0.01}}
    assert validation_line(entry, True, 90) == (
        "  step 1,200, epoch 9.2: accuracy 0.980 (best), balanced_accuracy undefined, ece 0.010"
    )
    assert validation_line(entry, False, 75) == "  step 1,200, epoch 9.2: accuracy 0.980, balanced_accuracy undefined"
    assert validation_line({**entry, "epoch": 3.0}, False, 30) == "  step 1,200, epoch 3: accuracy 0.980"


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_command_says_nothing_of_preparations(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = threading.Event()

    def text() -> str:
        asked.set()
        return "reading"

    monkeypatch.setattr(progress, "SOON", 0.0)
    monkeypatch.setattr(progress, "_shown", Progress(True, quiet))
    with progress.preparing("comparing", 10) as report, progress.waiting(text):
        report(3)
        assert asked.wait(0.2 if quiet else 10) != quiet
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines) == ([] if quiet else ["comparing: 3/10", "reading ..."])
