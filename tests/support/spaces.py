"""A Space as the hub runs it: a process in its folder, where Graft is not installed."""

import ast
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.hub import HubServer


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages with everything that is installed here except Graft. Put it on PYTHONPATH with `python -S`."""
    site = tmp_path_factory.mktemp("site")
    for source in {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]}:
        for entry in Path(source).iterdir():
            ours = entry.name.startswith(("pipelines", "graft_pipelines", "__editable__")) or entry.suffix == ".pth"
            if not ours and not (site / entry.name).exists():
                (site / entry.name).symlink_to(entry)
    return site


def cloned(hub: HubServer, repo_id: str, folder: Path) -> Path:
    """Copy the files of a Space from the hub into a local folder."""
    for name, data in hub.files(repo_id, "space").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@contextmanager
def running(folder: Path, site: Path, env: dict[str, str]) -> Iterator[str]:
    """Run `python app.py` in a Space's folder, as the hub does it, and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {k: v for k, v in env.items() if k not in ("PYTHONPATH", "GRADIO_ANALYTICS_ENABLED")} | {
        "GRADIO_SERVER_PORT": str(port)
    }
    command = [sys.executable, "-S", "app.py"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=env | {"PYTHONPATH": str(site)}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while not reachable(port):
                assert process.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < deadline, (folder / "log.txt").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def reachable(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def check_graft_is_not_installed(site: Path, folder: Path) -> None:
    """Run a file in such a process, where only the libraries are installed."""
    bare = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-S", "-c", "import torch, pipelines"]
    found = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True)
    assert "No module named 'pipelines'" in found.stderr


def running_imports(path: Path) -> set[str]:
    """Modules that a file imports, also inside functions, except imports for types only."""

    class Finder(ast.NodeVisitor):
        def __init__(self) -> None:
            self.found: set[str] = set()

        def visit_If(self, node: ast.If) -> None:
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            self.found |= {alias.name for alias in node.names}

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            self.found |= {str(node.module)}

    finder = Finder()
    finder.visit(ast.parse(path.read_text()))
    return finder.found
