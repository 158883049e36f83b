"""ESC-50, AudioSet and the spoken digits in their own layouts, with their own splits and labels; and real extracts."""

from pathlib import Path

import pytest

from pipelines.data.audio.recordings import Recordings
from pipelines.data.schema import SPLITS
from pipelines.errors import DataError
from tests.support.tiny_audio_sets import (
    CLASSES,
    LABEL,
    LABELS,
    TEXT,
    audioset,
    digits,
    esc50,
    files,
    load,
    named,
    sizes,
    text,
)

SHARED = Path(__file__).parents[5] / "shared" / "data"  # real extracts, if there are any


# ---- esc50 ----


def test_esc50_keeps_its_folds_and_its_sources(tmp_path: Path) -> None:
    splits = load(esc50(tmp_path / "all"), LABEL)
    assert (splits.source["test"], splits.labels, splits.license) == (
        "test",
        ["dog", "chainsaw", "cat"],
        "cc-by-nc-3.0",
    )
    assert sizes(splits) == [32, 4, 18]
    assert named(splits, "fold")["test"] == {"3"}
    sources = named(splits, "src_file")
    assert sum(map(len, sources.values())) == len(set.union(*sources.values())) == 27
    chosen = load(tmp_path / "all", LABEL, test="fold1", validation="fold3")
    assert named(chosen, "fold") == {"train": {"2"}, "validation": {"3"}, "test": {"1"}}
    assert chosen.source == {"train": "train", "validation": "fold3", "test": "fold1"}
    small = load(esc50(tmp_path / "ten", present=2), LABEL)
    assert (small.license, small.labels, sum(sizes(small))) == ("cc-by-3.0", ["dog", "chainsaw"], 36)
    assert small.ignored == {"rows of esc50.csv outside of ESC-10": 18}
    assert load(tmp_path / "all", LABEL, config="esc10").fingerprint == small.fingerprint
    for section, words in (
        ({"test": "fold9"}, r"no fold 'fold9' \(it has: fold1, fold2, fold3\)"),
        ({"train": "fold1"}, r"data\.train"),
        (
            {"config": "esc20"},
            "'esc20' is no part of ESC-50",
        ),  # a part of the data set may be requested if the layout shows the format
    ):
        with pytest.raises(DataError, match=words):
            load(tmp_path / "all", LABEL, **section)
    with pytest.raises(DataError, match="leave none to train on"):
        load(esc50(tmp_path / "one", folds=1), LABEL)


# ---- audioset ----

NAMES = (
    "{}.wav",
    "{}_{}.flac",
    "Y{}.wav",
    "{}_{}.000.wav",
    "{}_{}.000_{}.000.ogg",
    "{}_{}_{}.wav",
    "{}_{}000.wav",
    "{}_{}000_{}000.wav",
)


def test_audioset_finds_clips_by_the_names_that_tools_give_them(tmp_path: Path) -> None:
    splits = load(audioset(tmp_path, NAMES), LABELS)
    assert sum(sizes(splits)) == 12
    assert splits.ignored == {"rows of eval_segments.csv without a clip": 2}
    assert splits.labels == list(CLASSES)
    found = {row["id"]: row["label"] for name in SPLITS for row in splits[name]}
    assert found["-_0e0000001_10.000"] == ["Male speech, man speaking", "Dog"]


def test_audioset_has_its_lists_as_splits(tmp_path: Path) -> None:
    audioset(tmp_path, lists=("balanced_train", "eval", "unbalanced_train"))
    splits = load(tmp_path, LABELS)
    assert splits.source == {"train": "train", "test": "eval", "validation": "cut from train"}
    assert sizes(splits) == [22, 2, 12]
    assert load(tmp_path, LABELS, train="balanced_train").ignored["rows of the split 'unbalanced_train'"] == 12
    path = tmp_path / "eval_segments.csv"
    lines = path.read_text().splitlines()
    lines[3:7] = [
        lines[3].replace("/m/0", "/m/99"),
        lines[4].replace('"', ""),
        lines[5].replace("20.000", "later"),
        lines[6].replace("/m/0,/m/2", ""),
    ]
    path.write_text("\n".join(lines))
    whys = [why for _, why in load(tmp_path, LABELS).skipped["test"]]
    assert whys == [
        "eval_segments.csv:4: /m/99 is no class of class_labels_indices.csv",
        "eval_segments.csv:5: 5 cells for YTID, start_seconds, end_seconds, positive_labels: are the labels in quotes?",
        "eval_segments.csv:6: 'later' to '30.000' are no seconds",
        "eval_segments.csv:7: no labels",
    ]


def test_audioset_without_audio_is_said(tmp_path: Path) -> None:
    for clip in sorted(audioset(tmp_path).rglob("*.wav")):
        clip.unlink()
    with pytest.raises(DataError, match=r"none of 14 rows has a clip: put <YTID>\.wav files"):
        load(tmp_path, LABELS)


# ---- spoken digits ----


def test_spoken_digits_have_their_official_split(tmp_path: Path) -> None:
    splits = load(digits(tmp_path, ("ann", "bo b", "cy")), TEXT)  # its splits share speakers, which is not refused
    assert (sizes(splits), splits.license) == ([81, 9, 150], "cc-by-sa-4.0")
    assert set(splits.test["index"]) == {0, 1, 2, 3, 4}
    assert named(splits, "speaker")["train"] == named(splits, "speaker")["test"] == {"ann", "bo b", "cy"}
    assert {(row["label"], row["text"]) for row in splits.test} >= {("0", "zero"), ("9", "nine")}
    assert load(tmp_path / "recordings", LABEL).labels == list("0123456789")
    assert load(tmp_path, LABEL, columns={"label": "speaker"}).labels == ["ann", "bo b", "cy"]
    with pytest.raises(DataError, match=r"speaker 'ann' and 1 more in train and in test too.*data\.group=none"):
        load(tmp_path, TEXT, group="speaker")
    text(files(tmp_path / "recordings", ["ten_ann_1.wav"]) / "about.md", "x")
    (tmp_path / "recordings" / "0_ann_7.wav").write_bytes(b"")
    again = load(tmp_path, TEXT)
    assert sorted(id_ for id_, _ in again.skipped["train"]) == ["0_ann_7", "ten_ann_1"]
    assert again.ignored == {".md files": 1}


# ---- real data ----


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "librispeech").is_dir(), reason="no real data here")
def test_the_real_slices() -> None:
    speech = load(SHARED / "librispeech", TEXT, train="test-other")
    assert sizes(speech) == [80, 2, 4]
    assert "HE HOPED THERE WOULD BE STEW FOR DINNER" in speech.test[0]["text"]
    assert sizes(load(SHARED / "librispeech" / "LibriSpeech" / "test-other", TEXT)) == [60, 10, 10]
    spoken = load(SHARED / "free-spoken-digit-dataset", LABEL)
    assert sizes(spoken) == [900, 100, 250]
    environment = load(SHARED / "esc10", LABEL)
    assert (sizes(environment), len(environment.labels or [])) == ([108, 12, 40], 10)
    found = [Recordings(splits[name], 16000, 60) for splits in (speech, spoken, environment) for name in SPLITS]
    assert not any(recordings.wrong for recordings in found)
    with pytest.raises(DataError, match="none of 500 rows has a clip"):
        load(SHARED / "audioset", LABELS)
