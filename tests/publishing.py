"""What the tests of publishing share: a finished run to publish, and what lies here and there."""

import shutil
from pathlib import Path

import pytest

from pipelines.card import write_card
from pipelines.outgoing import visible_files
from tests import tiny
from tests.fake_run import fake_run
from tests.hub import USER, HubServer

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
    """The same, to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing hub is asked four times, without waiting."""
    monkeypatch.setattr("pipelines.patience.WAITS", (0, 0, 0))


def local(run: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in visible_files(run / "model").items()}


def remote(hub: HubServer, repo: str = REPO) -> dict[str, bytes]:
    return {name: data for name, data in hub.files(repo).items() if name != ".gitattributes"}


def published(hub: HubServer, repo: str = REPO) -> int:
    """Commits beyond the hub's own first one."""
    return len(hub.commits(repo)) - 1 if ("model", repo) in hub.repos else 0
