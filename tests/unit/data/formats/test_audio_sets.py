"""ESC-50, AudioSet and the spoken digits in their own layouts, with their own splits and labels; and real extracts."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.audio.reading import read_audio
from pipelines.data.audio.recordings import Recordings
from pipelines.data.formats import nemo
from pipelines.data.schema import SPLITS
from pipelines.errors import DataError
from tests.support.tiny_audio import write
from tests.support.tiny_audio_sets import (
    CLASSES,
    LABEL,
    LABELS,
    TEXT,
    audioset,
    digits,
    esc50,
    files,
    libritts,
    load,
    named,
    sizes,
    text,
    vctk,
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


# ---- layouts of one's own speech ----


def test_nemo_manifests_are_splits(tmp_path: Path) -> None:
    names = [f"clips/{number}.wav" for number in range(12)]
    files(tmp_path, [*names, "clips/extra.wav"])
    rows = [json.dumps({"audio_filepath": name, "text": f"text {name}", "duration": 0.1}) for name in names]
    wrong = json.dumps({"audio_filepath": "clips/none.wav", "text": "x"})
    text(tmp_path / "train_manifest.json", "\n".join([*rows[:8], wrong]) + "\n")
    text(tmp_path / "dev_manifest.jsonl", "\n".join(rows[8:10]) + "\n")
    text(tmp_path / "manifest-test.json", "\n".join(rows[10:]) + "\n")
    text(tmp_path / "config.json", '{"a": 1}')
    splits = load(tmp_path, TEXT)
    assert (splits.source, sizes(splits)) == (
        {"train": "train", "validation": "validation", "test": "test"},
        [8, 2, 2],
    )
    assert set(splits.train["text"]) == {f"text {name}" for name in names[:8]}
    assert [why.partition(" (")[0] for _, why in splits.skipped["train"]] == [
        "train_manifest.json:9: no such file: clips/none.wav"
    ]
    assert splits.ignored == {"recordings that no manifest lists": 1}
    assert sum(sizes(load(tmp_path / "train_manifest.json", TEXT))) == 8
    by_name = load(
        tmp_path, TEXT, validation="train_manifest", train="dev_manifest", columns={"audio": "audio_filepath"}
    )
    assert (by_name.source["train"], sizes(by_name)) == ("dev_manifest", [2, 8, 2])


def test_a_manifest_names_parts_and_classes(tmp_path: Path) -> None:
    for name in range(4):
        write(tmp_path / f"{name}.wav", np.sin(np.arange(80_000) / (20 + name)), 8000)
    rows = [
        {"audio_filepath": f"{number // 3}.wav", "offset": number / 2, "duration": 0.4, "command": f"word {number % 2}"}
        for number in range(12)
    ]
    rows.append({**rows[0], "offset": 7, "end": 9.0})
    text(tmp_path / "all.json", "".join(json.dumps(row) + "\n" for row in rows))
    splits = load(tmp_path, LABEL)
    assert splits.labels == ["word 0", "word 1"]
    parts = {(row["audio"]["start"], round(row["audio"]["end"], 6)) for name in SPLITS for row in splits[name]}
    assert parts == {(number / 2, number / 2 + 0.4) for number in range(12)}
    assert [why for _, why in splits.skipped["train"]] == [
        "all.json:13: end is 9, and offset and duration say 7.4: correct one, or take it out"
    ]
    assert nemo.columns(tmp_path) == {"audio": "audio", "label": "label"}


def kaldi_folder(folder: Path, names: list[str], speaker: str) -> None:
    files(folder, [f"clips/{name}.wav" for name in names])
    text(folder / "wav.scp", "".join(f"{name} clips/{name}.wav\n" for name in names))
    text(folder / "text", "".join(f"{name} WORDS OF {name.upper()}\n" for name in names))
    text(folder / "utt2spk", "".join(f"{name} {speaker}{name[-1]}\n" for name in names))


def test_kaldi_folders_are_splits(tmp_path: Path) -> None:
    kaldi_folder(tmp_path / "data" / "train", [f"a{number}" for number in range(8)], "ann")
    kaldi_folder(tmp_path / "data" / "dev", ["b1", "b2"], "bob")
    kaldi_folder(tmp_path / "data" / "test", ["c1", "c2"], "cy")
    with (tmp_path / "data" / "train" / "wav.scp").open("a") as file:
        file.write("z1 sph2pipe -f wav z1.sph |\nz2 none.wav\nz3 data/train/clips/a0.wav\n")
    with (tmp_path / "data" / "train" / "text").open("a") as file:
        file.write("z1 A\nz2 B\nz9 C\n")
    splits = load(tmp_path / "data", TEXT)
    assert sizes(splits) == [8, 2, 2]
    assert named(splits, "speaker")["test"] == {"cy1", "cy2"}
    assert {row["id"]: row["text"] for row in splits.test} == {"c1": "WORDS OF C1", "c2": "WORDS OF C2"}
    whys = [why.partition("wav.scp: ")[2] for _, why in splits.skipped["train"]]
    assert whys[0] == (
        "z1: wav.scp holds a command (sph2pipe -f wav z1.sph |), which is not run: write the recordings to files, and "
        "their paths to the list"
    )
    assert whys[1].startswith("z2: no such file: none.wav")
    assert whys[2:] == ["z3: no text in text"]
    assert splits.ignored == {"lines of train/text without a recording": 1}
    assert sum(sizes(load(tmp_path / "data" / "train", TEXT, group="none"))) == 8
    (tmp_path / "data" / "dev" / "text").unlink()
    with pytest.raises(DataError, match=r"dev holds wav\.scp and no text: write the transcripts to it"):
        load(tmp_path / "data", TEXT)


def test_segments_of_kaldi(tmp_path: Path) -> None:
    for name in range(4):
        write(tmp_path / f"{name}.wav", np.sin(np.arange(80_000) / (20 + name)), 8000)
    text(tmp_path / "wav.scp", "".join(f"long{name} {name}.wav\n" for name in range(4)))
    text(tmp_path / "text", "".join(f"u{number} word {number}\n" for number in range(11)))
    lines = [f"u{number} long{number // 3} {number / 2} {number / 2 + 0.4}" for number in range(9)]
    text(tmp_path / "segments", "\n".join([*lines, "u9 long3 9.5 -1", "u10 long3 4 x", "u11 other 1 2"]) + "\n")
    splits = load(tmp_path, TEXT)
    rows = {row["id"]: row["audio"] for name in SPLITS for row in splits[name]}
    assert len(rows) == 10
    assert (rows["u3"]["start"], rows["u3"]["end"], rows["u9"]["end"]) == (1.5, 1.9, None)
    assert len(read_audio(rows["u9"], 8000)) == 4000
    whys = [why.partition("wav.scp: ")[2] for _, why in splits.skipped["train"]]
    assert whys == [
        "u10: segments holds 'long3 4 x': a recording, and its start and end in seconds",
        "u11: segments names the recording other, which wav.scp does not list",
    ]


def test_ljspeech_with_its_recordings_elsewhere(tmp_path: Path) -> None:
    lines = [f"a{number}|some words {number}" for number in range(12)]
    for place in ("wav", "."):
        files(tmp_path / place / place, [f"a{number}.wav" for number in range(12)])
        text(tmp_path / place / "metadata.csv", "\n".join(lines) + "\n")
        assert sum(sizes(load(tmp_path / place, TEXT))) == 12
    (tmp_path / "other" / "wavs").mkdir(parents=True)
    text(tmp_path / "other" / "metadata.csv", "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"12 skipped; the first: metadata\.csv:1: no recording 'a0' in .*/other/wavs"):
        load(tmp_path / "other", TEXT)


def test_ljspeech_gives_the_text_as_read(tmp_path: Path) -> None:
    lines = [f"a{number}|Dr. {number}|doctor {number}" for number in range(11)]
    text(
        files(tmp_path, [f"wavs/a{number}.wav" for number in range(12)]) / "metadata.csv", "\n".join([*lines, "a11|b|"])
    )
    splits = load(tmp_path, TEXT)
    rows = {row["id"]: row["text"] for name in SPLITS for row in splits[name]}
    assert rows == {**{f"a{number}": f"doctor {number}" for number in range(11)}, "a11": "b"}


# ---- sets of speech synthesis ----


def test_libritts_gives_the_text_as_read_and_the_speaker(tmp_path: Path) -> None:
    folder = libritts(
        tmp_path / "LibriTTS", {"train-clean-100": 2, "train-other-500": 1, "dev-clean": 1, "test-clean": 1}
    )
    splits = load(tmp_path, TEXT)
    assert (splits.source, sizes(splits), splits.license) == (
        {"train": "train", "validation": "dev-clean", "test": "test-clean"},
        [24, 8, 8],
        "cc-by-4.0",
    )
    assert named(splits, "speaker") == {"train": {"101", "102", "103"}, "validation": {"104"}, "test": {"105"}}
    assert all(row["text"] == f"Doctor number {int(row['id'][9:15])} of {row['id']}." for row in splits.train)
    assert not splits.ignored  # lists of a chapter hold the same texts
    one = folder / "train-clean-100" / "101" / "1011"
    (one / "101_1011_000000_000000.normalized.txt").unlink()
    (one / "101_1011_000001_000000.normalized.txt").write_text(" \n")
    (one / "101_1011_000002_000000.wav").unlink()
    (one / "101_1011_000003_000000.normalized.txt").unlink()
    (one / "101_1011_000003_000000.original.txt").unlink()
    (one / "notes.md").write_text("x")
    (folder / "train-clean-100" / "101" / "1012" / "101_1012_000000_000000.normalized.txt").write_bytes(b"a" * 70_000)
    again = load(folder, TEXT)
    assert next(row["text"] for row in again.train if row["id"] == "101_1011_000000_000000") == "Dr. 0"
    assert {id_: why.partition(": ")[2] for id_, why in again.skipped["train"]} == {
        "101_1011_000001_000000": "no text",
        "101_1011_000002_000000": "no such file, though it has a text",
        "101_1011_000003_000000": "no 101_1011_000003_000000.normalized.txt beside it",
        "101_1012_000000_000000": "70,000 bytes are no text of one recording; at most 65,536 are read",
    }
    assert again.ignored == {".md files": 1}
    voices = load(folder / "train-clean-100", TEXT, group="none")  # rows of each voice in every split
    assert named(voices, "speaker")["train"] == {"101", "102"}
    with pytest.raises(DataError, match="holds no part such as train-clean-100"):
        load(files(tmp_path / "other", ["1.wav"]), TEXT, format="libritts")


@pytest.mark.parametrize("old", [False, True])
def test_vctk_is_read_from_its_first_microphone(old: bool, tmp_path: Path) -> None:
    folder = vctk(tmp_path, old=old)
    splits = load(folder, TEXT, group="none")
    rows = {row["id"]: row for name in SPLITS for row in splits[name]}
    assert (len(rows), splits.license) == (12, "cc-by-4.0")
    first = rows["p225_001"]
    assert (first["speaker"], first["gender"], first["accent"]) == ("p225", "F", "English")
    assert first["text"] == "Please call p225_001."
    assert (rows["p226_001"]["accent"], rows["s5_001"]["accent"]) == ("Scottish", "")
    assert splits.ignored == ({} if old else {"recordings of the second microphone": 12})
    by_speaker = load(folder, TEXT)
    assert sum(map(len, named(by_speaker, "speaker").values())) == 3  # a task of recognition parts its speakers


def test_vctk_without_texts_or_recordings_of_some(tmp_path: Path) -> None:
    folder = vctk(tmp_path, ("p225", "p226", "p315"), 6)
    for path in (folder / "txt" / "p315").iterdir():
        path.unlink()
    (folder / "txt" / "p225" / "p225_001.txt").unlink()
    (folder / "txt" / "p225" / "p225_002.txt").write_bytes(b"\xff\xfe")
    (folder / "wav48_silence_trimmed" / "p226" / "p226_001_mic1.flac").unlink()
    (folder / "wav48_silence_trimmed" / "p226" / "log.txt").write_text("x")
    files(folder / "wav48_silence_trimmed" / "p226", ["noise.flac", "p226_002.wav"])
    splits = load(folder, TEXT, group="none")
    assert sum(sizes(splits)) == 9
    assert dict(splits.skipped["train"]) == {
        "p225_001": f"{folder}/wav48_silence_trimmed/p225/p225_001_mic1.flac: no text {folder}/txt/p225/p225_001.txt",
        "p225_002": f"{folder}/txt/p225/p225_002.txt: not UTF-8 text (byte 0): save the file as UTF-8",
        "noise": f"{folder}/wav48_silence_trimmed/p226/noise.flac: not called <speaker>_<number>_mic1 or "
        "<speaker>_<number>",
        "p226_002": f"{folder}/wav48_silence_trimmed/p226/p226_002_mic1.flac: a second recording of p226_002",
    }
    assert splits.ignored == {
        "recordings of the second microphone": 18,
        "recordings of p315, who has no texts": 6,
        ".txt files": 1,
        "texts without a recording of the first microphone": 1,
    }
    with pytest.raises(DataError, match=r"holds no wav48_silence_trimmed/p225/p225_001_mic1\.flac"):
        load(files(tmp_path / "other", ["1.wav"]), TEXT, format="vctk")


@pytest.mark.parametrize("ending", [".lab", ".normalized.txt"])
def test_transcripts_beside_recordings_by_other_names(ending: str, tmp_path: Path) -> None:
    for speaker in ("ann", "bob"):
        files(tmp_path / speaker, [f"{number}.wav" for number in range(6)])
        for number in range(6):
            text(tmp_path / speaker / f"{number}{ending}", f"{speaker} {number}\n")
            text(tmp_path / speaker / f"{number}.original.txt", "Not this.\n")
    splits = load(tmp_path, TEXT)
    rows = {row["id"]: row["text"] for name in SPLITS for row in splits[name]}
    assert rows == {f"{s}/{n}.wav": f"{s} {n}" for s in ("ann", "bob") for n in range(6)}
    assert load(tmp_path, LABEL).labels == ["ann", "bob"]


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
