"""What holds for every test: no hub, no account, one thread, caches of its own, and warnings are errors.

The environment is set before anything reads it: huggingface_hub, torch and matplotlib look at import time only.
"""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

_caches = tempfile.mkdtemp(prefix="graft-tests-")
atexit.register(shutil.rmtree, _caches, ignore_errors=True)

os.environ |= {
    "HF_HOME": f"{_caches}/huggingface",
    "GRAFT_CACHE": f"{_caches}/graft",
    "HF_HUB_OFFLINE": "1",  # the loopback hub of tests/support/hub.py switches it off for its tests
    "HF_DATASETS_OFFLINE": "0",  # datasets keeps its own copy of the above, which would stay on
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "MPLBACKEND": "Agg",
    "TOKENIZERS_PARALLELISM": "false",
    "COLUMNS": "140",  # help texts and tables wrap the same everywhere
}
for _name in (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "HF_TOKEN_PATH",
):
    os.environ.pop(_name, None)
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # for tiny models as fast as two, and unmoved by what else runs
    os.environ.setdefault(_name, "1")

# Ours are errors, and so is what a library warns about in our use of it. Left out: deprecations inside other people's code.
WARNINGS = (
    "error",
    "ignore::DeprecationWarning:(?!pipelines|tests|apps|conftest|test_)",
    "ignore::PendingDeprecationWarning:(?!pipelines|tests|apps|conftest|test_)",
    "ignore::FutureWarning:(?!pipelines|tests|apps|conftest|test_)",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in WARNINGS:
        config.addinivalue_line("filterwarnings", line)


# Their tests are long: `make test-integration` runs them, and `make test` those of them that are marked `quick`.
LONG_FOLDERS = ("integration", "browser")


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name in LONG_FOLDERS and not item.get_closest_marker("quick"):
            item.add_marker(pytest.mark.integration)
        if item.get_closest_marker("browser") and shutil.which("chromium") is None:
            item.add_marker(pytest.mark.skip(reason="no chromium on PATH (apt-get install chromium)"))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what all tests have imported is not looked through again at every collection


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries that look for leaks when Python ends find all of it


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cats and dogs that can be learned: 8 per class and split, with train, validation and test folders. Read only."""
    from tests.support import tiny

    return tiny.photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT with three labels of its own. Read only."""
    from tests.support import tiny

    return tiny.vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="session")
def resnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ResNet, which has BatchNorm. Read only."""
    from tests.support import tiny

    return tiny.resnet(tmp_path_factory.mktemp("resnet"))
