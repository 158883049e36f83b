"""For tests that build a page in this process: import the fixture `gradio_page` from here, or use it as an autouse one."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def gradio_page(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that Gradio may fill. Event loops that it makes for its locks and leaves open are collected here, not in another test."""
    folder = tmp_path_factory.mktemp("gradio")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield folder
        asyncio.set_event_loop(None)
        gc.collect()
