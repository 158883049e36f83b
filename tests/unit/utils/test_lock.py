"""A lock is held by one process, is seen by others, and outlives no process."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.utils.lock import in_use, locked

ASK = "import sys; from pathlib import Path; from pipelines.utils.lock import in_use; print(in_use(Path(sys.argv[1])))"
TAKE = (
    "import sys; from pathlib import Path; from pipelines.utils.lock import locked\n"
    "with locked(Path(sys.argv[1])) as mine: print(mine)"
)


def other(code: str, path: Path) -> str:
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True).stdout.strip()


def test_one_process_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert in_use(path) is False
    assert not path.exists()  # looking creates nothing
    with locked(path) as mine:
        assert mine
        assert in_use(path)  # and looking does not release it
        assert (other(ASK, path), other(TAKE, path)) == ("True", "False")
    assert not in_use(path)
    assert (other(ASK, path), other(TAKE, path)) == ("False", "True")


AS_NOBODY = "import os; from pipelines.utils import lock; os.getuid() or os.seteuid(65534)\n" + ASK


def test_a_file_that_may_only_be_read_is_enough() -> None:
    """The run of a colleague: whether it goes on must not depend on the right to write."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "lock"
        path.touch()
        path.chmod(0o644)
        assert other(AS_NOBODY, path) == "False"
        with locked(path):
            assert other(AS_NOBODY, path) == "True"
            path.chmod(0)
            assert other(AS_NOBODY, path) == "None"


def test_what_cannot_be_asked_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with socket.socket(socket.AF_UNIX) as unreadable:
        unreadable.bind(str(path))
    assert in_use(path) is None


def test_a_link_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match="symbolic"), locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "theirs").exists()


def test_a_file_that_its_holder_removed_is_locked_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        path.unlink()
        assert other(TAKE, path) == "True"
