"""For tests that build a page in this process: import the fixture `gradio_page`, or use it with autouse."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def gradio_page(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give Gradio a folder to fill.

    Its event loops, which it leaves open, are collected here and not in another test.
    """
    folder = tmp_path_factory.mktemp("gradio")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield folder
        asyncio.set_event_loop(None)
        gc.collect()
