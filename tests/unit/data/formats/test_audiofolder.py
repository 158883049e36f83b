"""Speech with transcripts, and class folders of recordings: found by their files, cut by speaker, losses reported."""

import json
from pathlib import Path

import pytest

from pipelines.config.recipe import DataSection
from pipelines.data.audio.recordings import Recordings
from pipelines.data.loading import format_module, load_rows
from pipelines.errors import DataError
from tests.support import tiny
from tests.support.tiny_audio import labelled, transcribed
from tests.support.tiny_audio_sets import (
    LABEL,
    TEXT,
    audioset,
    common_voice,
    digits,
    esc50,
    files,
    librispeech,
    libritts,
    load,
    named,
    sizes,
    text,
    vctk,
)

# ---- which format it is ----


def test_every_layout_is_read_by_its_own_format(tmp_path: Path) -> None:
    sounds, photos = tmp_path / "sounds", tmp_path / "photos"
    layouts = {
        "audiofolder": [
            text(files(sounds / "flat", ["cat/1.wav", "dog/1.ogg"]) / "README.md", "about it").parent,
            files(sounds / "split", ["train/cat/1.flac", "train/dog/1.flac", "test/cat/1.mp3"]),
            text(files(sounds / "covers", [f"cat/{i}.wav" for i in range(3)]) / "cat" / "cover.jpg", "x").parents[1],
            text(files(sounds / "listed", ["1.wav"]) / "metadata.csv", "file_name,text\n1.wav,a\n").parent,
        ],
        "audioset": [audioset(sounds / "audioset")],
        "common_voice": [common_voice(sounds / "cv" / "xx", {"train": 2}), sounds / "cv"],
        "esc50": [esc50(sounds / "esc50")],
        "imagefolder": [
            tiny.photos(photos, n=1, splits=()),
            files(tiny.photos(tmp_path / "film", n=4, splits=(), size=8), ["cat/sound.wav"]),
        ],
        "librispeech": [librispeech(sounds / "speech" / "LibriSpeech", {"dev-clean": 1}, 1), sounds / "speech"],
        "libritts": [
            libritts(sounds / "tts" / "LibriTTS_R", {"dev-clean": 1, "train-clean-100": 1}, 1),
            sounds / "tts",
        ],
        "vctk": [vctk(sounds / "vctk" / "VCTK-Corpus-0.92"), sounds / "vctk", vctk(sounds / "old", old=True)],
        "spoken_digits": [digits(sounds / "digits", ["ann"], 1), sounds / "digits" / "recordings"],
        "table": [
            labelled(sounds / "table", 3),
            text(files(sounds / "beside", ["train/1.wav", "test/1.wav"]) / "train.csv", "audio,text\n").parent,
        ],
    }
    layouts["libritts"] += [sounds / "tts" / "LibriTTS_R" / "dev-clean"]
    layouts["librispeech"] += [sounds / "speech" / "LibriSpeech" / "dev-clean"]
    for name, paths in layouts.items():
        for path in paths:
            assert format_module(DataSection(id=str(path))).__name__.endswith(f".{name}"), path
    with pytest.raises(DataError, match=r"cannot be read as data .*metadata\.csv, a manifest, or as LibriSpeech"):
        format_module(DataSection(id=str(text(files(tmp_path / "loose", ["1.wav"]) / "README.md", "about it").parent)))


# ---- audiofolder ----


def test_class_folders(tmp_path: Path) -> None:
    names = [
        f"{label}/{i}.{suffix}" for label in ("test", "bus") for i, suffix in enumerate(("wav", "flac", "ogg", "mp3"))
    ]
    text(files(tmp_path, [*names, "loose.wav"]) / "bus" / "notes.txt", "x")
    (tmp_path / "bus" / "empty.wav").touch()
    splits = load(tmp_path, LABEL)
    assert splits.labels == ["bus", "test"]
    assert sum(sizes(splits)) == 8
    assert dict(splits.skipped["train"]) == {
        "loose.wav": f"{tmp_path}/loose.wav: in no class folder",
        "bus/empty.wav": f"{tmp_path}/bus/empty.wav: empty file",
    }
    assert splits.ignored == {".txt files": 1}
    assert len(Recordings(splits.train, 16000, 1)[0]["audio"]) == 1600
    with pytest.raises(DataError, match="class folders of recordings have labels and no text"):
        load(tmp_path, TEXT)


@pytest.mark.parametrize(("column", "ending"), [("transcription", "csv"), ("text", "csv"), ("sentence", "jsonl")])
def test_a_list_beside_the_recordings(column: str, ending: str, tmp_path: Path) -> None:
    for name, count in {"train": 12, "test": 3}.items():
        found = [
            {"file_name": f"clips/{i}.wav", column: f"words {i}", "speaker": f"{name}{i % 4}"} for i in range(count)
        ]
        lines = (
            [",".join(found[0]), *(",".join(row.values()) for row in found)]
            if ending == "csv"
            else map(json.dumps, found)
        )
        text(
            files(tmp_path / name, [row["file_name"] for row in found]) / f"metadata.{ending}", "\n".join(lines) + "\n"
        )
    files(tmp_path / "train", ["clips/unlisted.wav"])
    splits = load(tmp_path, TEXT)
    assert splits.source == {"train": "train", "test": "test", "validation": "cut from train"}
    assert sizes(splits) == [9, 3, 3]  # all rows of a speaker
    assert splits.test[0]["id"] == f"test/metadata.{ending}:{2 if ending == 'csv' else 1}"
    assert {row["text"] for row in splits.test} == {"words 0", "words 1", "words 2"}
    assert splits.ignored == {"recordings that no metadata lists": 1}
    files(tmp_path, ["1.wav"])
    text(tmp_path / "metadata.csv", "file_name,text\n1.wav,a\n")
    with pytest.raises(DataError, match=r"metadata\.csv: stands beside split folders \(test, train\)"):
        load(tmp_path, TEXT)


# ---- librispeech ----


def test_librispeech_is_split_by_its_parts(tmp_path: Path) -> None:
    tree = librispeech(
        tmp_path / "LibriSpeech",
        {"train-clean-100": 2, "train-other-500": 1, "dev-clean": 1, "dev-other": 1, "test-clean": 1},
    )
    splits = load(tmp_path, TEXT)
    assert splits.source == {"train": "train", "validation": "dev-clean", "test": "test-clean"}
    assert (sizes(splits), splits.license) == ([24, 8, 8], "cc-by-4.0")
    assert splits.ignored == {"rows of the split 'dev-other'": 8}
    row = splits.test[0]
    path = tree / "test-clean" / "106" / "1061" / "106-1061-0000.flac"
    assert row == {
        "id": "106-1061-0000",
        "audio": {"path": str(path), "bytes": None},
        "size": path.stat().st_size,
        "text": "THE WORDS OF 0",
        "speaker": "106",
        "chapter": "1061",
    }
    assert load_rows(DataSection(id=str(tree)), TEXT, "dev-other")[1]["speaker"][0] == "105"
    chosen = load(tree, TEXT, train="train-other-500+dev-other", test="test-clean")
    assert chosen.source == {"train": "train-other-500+dev-other", "validation": "dev-clean", "test": "test-clean"}
    assert sizes(chosen) == [16, 8, 8]
    for section, words in (
        ({"train": "train-x"}, "no split 'train-x'"),
        ({"train": "dev-clean", "test": "dev-clean"}, "'dev-clean' is train already"),
    ):
        with pytest.raises(DataError, match=words):
            load(tree, TEXT, **section)
    with pytest.raises(DataError, match=r"part 'dev-clean' of .* is in two splits"):
        load(tree, TEXT, train="dev-clean+dev-other", test="dev-clean")


def test_one_part_is_cut_between_speakers(tmp_path: Path) -> None:
    splits = load(librispeech(tmp_path, {"test-other": 6}) / "test-other", TEXT)
    assert splits.source == {"train": "test-other", "validation": "cut from test-other", "test": "cut from test-other"}
    assert sizes(splits) == [32, 8, 8]
    speakers = named(splits, "speaker")
    assert sum(map(len, speakers.values())) == len(set.union(*speakers.values())) == 6
    by_row = load(tmp_path / "test-other", TEXT, group="none")
    assert sizes(by_row) == [38, 5, 5]
    assert load(tmp_path / "test-other", LABEL, columns={"label": "speaker"}, group="none").labels == [
        str(n) for n in range(101, 107)
    ]
    with pytest.raises(
        DataError, match=r"no column 'label' \(it has: audio, text, speaker, chapter\).*data\.columns\.label=NAME"
    ):
        load(tmp_path / "test-other", LABEL)


def test_a_speaker_in_two_parts_is_refused_unless_that_is_accepted(tmp_path: Path) -> None:
    librispeech(tmp_path, {"train-clean-100": 2, "dev-clean": 1, "test-clean": 1})
    (tmp_path / "train-clean-100" / "101").rename(tmp_path / "test-clean" / "101")
    (tmp_path / "test-clean" / "101" / "1011").rename(tmp_path / "train-clean-100" / "102" / "1011")
    assert sizes(load(tmp_path, TEXT)) == [12, 8, 12]
    (tmp_path / "train-clean-100" / "102").rename(tmp_path / "train-clean-100" / "104")
    with pytest.raises(DataError, match=r"speaker '104' in train and in test too.*data\.group=none"):
        load(tmp_path, TEXT)
    assert sizes(load(tmp_path, TEXT, group="none")) == [12, 8, 12]


def test_what_a_tree_lacks_is_skipped_and_named(tmp_path: Path) -> None:
    librispeech(tmp_path, {"train-clean-100": 3}, each=6)
    chapters = sorted(tmp_path.glob("*/*/*"))
    transcripts = [next(chapter.glob("*.txt")) for chapter in chapters]
    recordings = [sorted(chapter.glob("*.flac")) for chapter in chapters]
    recordings[0][0].unlink()
    recordings[0][1].write_bytes(b"")
    lines = transcripts[1].read_text().splitlines()
    text(transcripts[1], "\n".join([*lines[1:], lines[1], recordings[1][0].stem, "", "  "]) + "\r\n")
    transcripts[2].write_bytes(b"\xff\xfe")
    transcripts[3].unlink()
    text(chapters[4] / "notes.pdf", "x")
    _, rows, skipped = load_rows(DataSection(id=str(tmp_path)), TEXT)
    whys = dict(skipped)
    assert len(rows) == 36 - 2 - 1 - 6 - 6
    assert len(whys) == 2 + 3 + 7 + 6
    first, second = recordings[0][0].stem, recordings[0][1].stem
    assert whys[first] == f"{chapters[0] / first}.flac: no such file, though it has a transcript"
    assert whys[second] == f"{recordings[0][1]}: empty file"
    assert whys[f"{transcripts[1].name}:6"] == f"{transcripts[1]}:6: a second transcript of {recordings[1][1].stem}"
    assert (
        whys[f"{transcripts[1].name}:7"]
        == f"{transcripts[1]}:7: not a name, a blank and a text: {recordings[1][0].stem!r}"
    )
    assert whys[recordings[1][0].stem] == f"{recordings[1][0]}: no transcript in {chapters[1].name}/*.trans.txt"
    assert "not UTF-8 text (byte 0)" in whys[transcripts[2].name]
    assert load(tmp_path, TEXT, group="none").ignored == {".pdf files": 1}


# ---- common voice ----


def test_common_voice(tmp_path: Path) -> None:
    folder = common_voice(tmp_path / "xx", {"train": 12, "dev": 3, "test": 3, "validated": 18})
    lines = (folder / "train.tsv").read_text().splitlines()
    lines[1] = lines[1].replace(".wav", "")  # as in the first editions, in which every clip was .mp3
    lines[2] = lines[2].replace('She said "1".', " ")
    (folder / "clips" / "common_voice_xx_train2.wav").unlink()
    (folder / "train.tsv").write_text("\n".join([*lines, lines[-1], "too\tfew"]) + "\n")
    (folder / "clips" / "common_voice_xx_train0.wav").rename(folder / "clips" / "common_voice_xx_train0.mp3")
    splits = load(tmp_path, TEXT)
    assert splits.source == {"train": "train", "validation": "dev", "test": "test"}
    assert sizes(splits) == [10, 3, 3]
    assert (splits.train[0]["id"], splits.train[1]["text"]) == ("common_voice_xx_train0.mp3", 'She said "3".')
    assert [why.partition(": ")[2] for _, why in splits.skipped["train"]] == [
        "2 cells for 5 columns",
        "no sentence",
        f"{folder}/clips/common_voice_xx_train2.wav: No such file or directory",
        "common_voice_xx_train11.wav a second time",
    ]
    common_voice(tmp_path / "yy", {"validated": 20})
    with pytest.raises(DataError, match=r"several languages \(xx, yy\): give the folder of one"):
        load(tmp_path, TEXT)
    cut = load(tmp_path / "yy", TEXT)
    assert (sum(map(len, named(cut, "speaker").values())), cut.license) == (6, "cc0-1.0")


@pytest.mark.parametrize("group", [None, "none"])
def test_a_clip_in_two_lists_of_common_voice_is_refused(group: str | None, tmp_path: Path) -> None:
    """validated.tsv also holds the clips of dev and test. Shared speakers may be accepted, but not shared clips."""
    folder = common_voice(tmp_path, {"train": 6, "dev": 3, "test": 3})
    lists = [(folder / f"{name}.tsv").read_text().splitlines(True) for name in ("train", "dev", "test")]
    (folder / "validated.tsv").write_text("".join([*lists[0], *lists[1][1:], *lists[2][1:]]))
    shared = r"speaker '.* and 2 more" if group is None else r".*dev0\.wav and 2 more"
    with pytest.raises(DataError, match=rf"{shared} in train and in validation too"):
        load(tmp_path, TEXT, train="validated", group=group)
    assert sizes(load(tmp_path, TEXT, group=group)) == [6, 3, 3]


# ---- tables ----


def test_tables_of_recordings(tmp_path: Path) -> None:
    splits = load(transcribed(tmp_path, 6), TEXT)
    assert sizes(splits) == [6, 8, 8]
    examples = Recordings(splits.train, 16000, 10)
    assert all(
        len(example["audio"]) / 320 <= length
        for example, length in zip(map(examples.__getitem__, range(6)), examples.lengths, strict=True)
    )
