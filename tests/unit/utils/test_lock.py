"""A lock is held by one process, is seen by others, and outlives no process."""

import subprocess
import sys
from pathlib import Path

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
    assert not in_use(path)
    assert not path.exists()  # looking creates nothing
    with locked(path) as mine:
        assert mine
        assert in_use(path)  # and looking does not release it
        assert (other(ASK, path), other(TAKE, path)) == ("True", "False")
    assert not in_use(path)
    assert (other(ASK, path), other(TAKE, path)) == ("False", "True")


def test_a_file_that_its_holder_removed_is_locked_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        path.unlink()
        assert other(TAKE, path) == "True"
