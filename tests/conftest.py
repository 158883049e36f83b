"""What holds for every test: no hub, no account, one thread, caches of its own, and warnings are errors.

The environment is set before any library reads it: huggingface_hub, torch and matplotlib read it only when they are
imported.
"""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.tasks.contract", "tests.support")  # a failure there shows its values, too

_caches = tempfile.mkdtemp(prefix="graft-tests-")
atexit.register(shutil.rmtree, _caches, ignore_errors=True)

os.environ |= {
    "HF_HOME": f"{_caches}/huggingface",
    "GRAFT_CACHE": f"{_caches}/graft",
    "HF_HUB_OFFLINE": "1",  # the loopback hub of tests/support/hub.py switches it off for its tests
    "HF_DATASETS_OFFLINE": "0",  # datasets keeps its own copy of this setting, which would stay on
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "MPLBACKEND": "Agg",
    "TOKENIZERS_PARALLELISM": "false",
    "COLUMNS": "140",  # help texts and tables wrap at the same width everywhere
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
# one thread is as fast as two for tiny models, and other programs disturb it less
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# A warning of our own is an error, and so is a warning of a library about our use of it. Deprecations inside other
# libraries are ignored.
WARNINGS = (
    "error",
    "ignore::DeprecationWarning:(?!pipelines|tests|apps|conftest|test_)",
    "ignore::PendingDeprecationWarning:(?!pipelines|tests|apps|conftest|test_)",
    "ignore::FutureWarning:(?!pipelines|tests|apps|conftest|test_)",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in WARNINGS:
        config.addinivalue_line("filterwarnings", line)


# These tests are long: `make test-integration` runs them. `make test` runs only those that are marked `quick`.
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
    # all tests have imported these modules: the garbage collector need not look through them at every collection
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # otherwise libraries that look for leaks when Python ends would find all of it


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cats and dogs that a model can learn: 8 per class and split, with train, validation and test folders.

    Read only.
    """
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
