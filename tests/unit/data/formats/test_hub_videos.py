"""Videos of data sets on the hub: in class folders, in a list, and named by a table."""

from pathlib import Path

import pytest

from pipelines.errors import DataError
from tests.support.hub import HubServer
from tests.support.tiny_audio_sets import load, sizes, text
from tests.support.tiny_video_sets import LABEL, files
from tests.tasks.contract import hub  # noqa: F401 (fixture)

# the datasets library leaves a file open while it reads a list
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_videos_in_class_folders(hub: HubServer, tmp_path: Path) -> None:
    names = [f"{split}/{label}/{n}.mp4" for split in ("train", "test") for label in ("a", "b") for n in range(9)]
    hub.add_dataset("tester/films", files(tmp_path, names))
    splits = load("tester/films", LABEL)
    assert (splits.labels, splits.hub_id, sum(sizes(splits))) == (["a", "b"], "tester/films", 36)
    assert splits.test[0]["video"]["path"].endswith("/test/a/0.mp4")
    assert splits.test[0]["size"] == len("test/a/0.mp4")


@pytest.mark.parametrize("listed", [True, False])
def test_videos_that_a_table_names(listed: bool, hub: HubServer, tmp_path: Path) -> None:
    files(tmp_path, [f"clips/{n}.mp4" for n in range(18)])
    lines = [f"clips/{n}.mp4,{'ab'[n % 2]},1,2.5\n" for n in range(18)]
    lines += [] if listed else ["/etc/hosts.mp4,a,1,2\n", "clips/../../../../x.mp4,a,1,2\n", "clips/none.mp4,a,1,2\n"]
    header = f"{'file_name' if listed else 'video'},label,start,end\n"
    text(tmp_path / ("metadata.csv" if listed else "train.csv"), header + "".join(lines))
    text(tmp_path / "README.md", "---\nconfigs:\n- config_name: default\n  data_files: train.csv\n---\n" * (not listed))
    hub.add_dataset("tester/listed", tmp_path)
    splits = load("tester/listed", LABEL)
    assert (splits.labels, sum(sizes(splits))) == (["a", "b"], 18)
    row = splits.train[0]
    assert row["video"]["path"].endswith(Path(row["video"]["path"]).read_text())  # a file holds its name
    assert (row["start"], row["end"], row["video"]["end"]) == (1, 2.5, 2.5)
    why = [reason.partition(": ")[2] for _, reason in splits.skipped["train"]]
    assert len(why) == (0 if listed else 3)
    assert all("not in the data set: not opened" in one or "no such file" in one for one in why)


def test_a_column_of_other_texts_is_refused(hub: HubServer, tmp_path: Path) -> None:
    text(tmp_path / "train.csv", "video,label\n" + "".join(f"film {n},a\n" for n in range(9)))
    hub.add_dataset("tester/texts", tmp_path)
    with pytest.raises(DataError, match=r"column 'video' holds no videos but .*data\.columns\.video=NAME"):
        load("tester/texts", LABEL)
