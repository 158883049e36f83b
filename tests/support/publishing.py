"""What the tests of publishing share: a finished run to publish, and lists of local and published files."""

import shutil
from pathlib import Path

import pytest

from pipelines.publishing.card import write_card
from pipelines.publishing.privacy import EXPORTED, left_out, own_files
from tests.support import tiny
from tests.support.fake_run import fake_run
from tests.support.hub import USER, HubServer

REPO = f"{USER}/pets"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a card and a tiny real model. Read only."""
    folder = fake_run(tmp_path_factory.mktemp("finished") / "run", pictures=False)
    tiny.vit(folder / "model", labels=("cat", "dog"))
    write_card(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing hub is asked four times, without waiting."""
    monkeypatch.setattr("pipelines.hub.retry.WAITS", (0, 0, 0))


def local(run: Path) -> dict[str, bytes]:
    """All files in the model folder, from whatever source."""
    files = [path for path in (run / "model").rglob("*") if path.is_file()]
    return {path.relative_to(run / "model").as_posix(): path.read_bytes() for path in files}


def check_all_is_own(run: Path) -> None:
    """The run's own files in model/ are published, with the list of its export and, without it, by their names."""
    files = set(local(run))
    assert set(own_files(run)) == files
    assert left_out(run, own_files(run)) == []
    (run / EXPORTED).rename(run / "kept.json")
    assert set(own_files(run)) == files
    (run / "kept.json").rename(run / EXPORTED)


def remote(hub: HubServer, repo: str = REPO) -> dict[str, bytes]:
    return {name: data for name, data in hub.files(repo).items() if name != ".gitattributes"}


def published(hub: HubServer, repo: str = REPO) -> int:
    """The commits after the hub's own first one."""
    return len(hub.commits(repo)) - 1 if ("model", repo) in hub.repos else 0
