"""Recordings of telephones and browsers are read as wav is: length, rate, channels, parts, damaged files."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.audio import reading
from pipelines.data.audio.reading import Sound, clip, header, read_audio
from pipelines.errors import DataError
from tests.support import tiny_audio, tiny_containers

pytest.importorskip("av", reason="PyAV is an extra: pip install 'graft-pipelines[audio-formats]'")

SECONDS = 3.0
RATES = {".3gp": 8000, ".amr": 8000, ".wma": 44_100}  # the others take 48,000
LATE = {".aac": 0.03, ".wma": 0.1, ".3gp": 0.02, ".amr": 0.03}  # seconds that a container does not say are padding


def noise(rate: int, seconds: float = SECONDS, channels: int = 1) -> np.ndarray:
    """Noise without the highest frequencies, which codecs leave out; a part of it is like no other part."""
    values = np.random.default_rng(0).standard_normal((round(rate * seconds), channels))
    smooth = np.stack([np.convolve(column, np.hanning(40), "same") for column in values.T], axis=1)
    return (0.03 * smooth).astype(np.float32)


def shift(found: np.ndarray, expected: np.ndarray, most: int) -> int:
    """By how many samples `found` is late."""
    middle = expected[most:-most]
    likeness = [np.dot(found[most + by : len(expected) - most + by], middle) for by in range(-most, most)]
    return int(np.argmax(likeness)) - most


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("containers")
    return {
        suffix: tiny_containers.write(folder / f"a{suffix}", noise(rate), rate)
        for suffix in tiny_containers.CODECS
        for rate in [RATES.get(suffix, 48_000)]
    }


@pytest.mark.parametrize("suffix", tiny_containers.CODECS)
def test_a_recording_is_read_with_its_length(suffix: str, files: dict[str, Path]) -> None:
    rate = RATES.get(suffix, 48_000)
    found = header(files[suffix])
    late = LATE.get(suffix, 0.002 if suffix in (".webm", ".mka") else 0.0)
    if suffix == ".ac3":
        late = 0.032
    assert (found.rate, found.channels, found.video) == (rate, 1, False)
    assert SECONDS <= found.seconds <= SECONDS + late
    samples = read_audio(files[suffix], rate)
    assert len(samples) == round(found.seconds * rate)
    assert np.array_equal(samples, read_audio({"path": "x", "bytes": files[suffix].read_bytes()}, rate))
    assert len(read_audio(files[suffix], 16_000)) == pytest.approx(16_000 * found.seconds, abs=2)
    at = shift(samples[rate : 2 * rate], noise(rate)[rate : 2 * rate, 0], rate // 20)
    assert 0 <= at <= late * rate + 1
    if suffix in (".m4a", ".mp4", ".mov", ".webm", ".wv"):
        assert at == 0


@pytest.mark.parametrize("suffix", tiny_containers.CODECS)
def test_a_part_is_the_same_part_of_the_complete_recording(suffix: str, files: dict[str, Path]) -> None:
    rate = RATES.get(suffix, 48_000)
    complete = read_audio(files[suffix], rate)
    for start, end in ((0.2, 0.5), (1.7, 2.2), (2.5, SECONDS)):
        value = {"path": str(files[suffix]), "start": start, "end": end}
        part = read_audio(value, rate)
        assert header(value).seconds == pytest.approx(end - start, abs=1e-3)
        assert len(part) == pytest.approx((end - start) * rate, abs=1)
        expected = complete[round(start * rate) :][: len(part)]
        if suffix in (".webm", ".mka"):  # they count time in milliseconds
            assert abs(shift(part, expected, rate // 100)) <= 0.0006 * rate
        else:
            assert np.abs(part - expected).max() < 0.02
    with pytest.raises(DataError, match=r"the recording is [0-9.]+ seconds long, so this part is not in it"):
        read_audio({"path": str(files[suffix]), "start": 2.0, "end": 9.0}, rate)


def test_channels_are_mixed(tmp_path: Path) -> None:
    both = noise(48_000, channels=2)
    path = tiny_containers.write(tmp_path / "a.m4a", both, 48_000, "alac")
    assert header(path) == Sound(SECONDS, 48_000, 2)
    assert np.abs(read_audio(path, 48_000) - both.mean(axis=1)).max() < 1e-4


def test_the_sound_of_a_video_is_read(tmp_path: Path) -> None:
    path = tiny_containers.write(tmp_path / "a.mp4", noise(48_000), 48_000, video=True)
    assert header(path) == Sound(SECONDS, 48_000, 1, video=True)
    assert shift(read_audio(path, 48_000), noise(48_000)[:, 0], 100) == 0
    import av

    with av.open(str(tmp_path / "b.mp4"), "w") as file:
        pictures = file.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        for _ in range(10):
            file.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        file.mux(pictures.encode(None))
    with pytest.raises(DataError, match=r"b\.mp4: holds no sound"):
        header(tmp_path / "b.mp4")


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".webm", {"live": "1"}), (".mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"})],
)
def test_a_stream_of_a_browser_does_not_say_how_long_it_is(
    suffix: str, options: dict[str, str], tmp_path: Path
) -> None:
    path = tiny_containers.write(tmp_path / f"a{suffix}", noise(48_000), 48_000, options=options)
    found = header(path)
    assert found.seconds == pytest.approx(SECONDS, abs=0.03)
    assert len(read_audio(path, 48_000)) == round(found.seconds * 48_000)
    whole = {"path": "", "bytes": path.read_bytes(), "start": 2.0, "end": 2.5}
    assert len(read_audio(whole, 48_000)) == 24_000
    short = clip(str(path))
    assert short is not None
    assert short.seconds == found.seconds


def test_a_pause_that_a_file_leaves_out_is_silence(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.webm"
    with av.open(str(path), "w", format="webm") as file:
        track = file.add_stream("libopus", rate=48_000, layout="mono")
        for number in range(150):
            if not 50 <= number < 100:  # the second second
                values = noise(48_000, 0.02).T.copy()
                frame = av.AudioFrame.from_ndarray(values, format="flt", layout="mono")
                frame.sample_rate, frame.pts = 48_000, number * 960
                file.mux(track.encode(frame))
        file.mux(track.encode(None))
    samples = read_audio(path, 48_000)
    assert header(path).seconds == pytest.approx(SECONDS, abs=0.01)
    assert len(samples) == pytest.approx(3 * 48_000, abs=500)
    assert np.abs(samples[50_000:94_000]).max() == 0
    assert all(np.abs(samples[at : at + 5000]).max() > 0.01 for at in (40_000, 100_000))


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".aac"])
def test_a_recording_that_was_cut_off(suffix: str, tmp_path: Path) -> None:
    options = {"movflags": "faststart"} if suffix == ".m4a" else None
    path = tiny_containers.write(tmp_path / f"a{suffix}", noise(48_000), 48_000, options=options)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    if suffix == ".aac":  # it does not say how long it was
        assert header(path).seconds == pytest.approx(SECONDS / 2, abs=0.3)
        with pytest.raises(DataError, match=r"a\.aac: not readable audio"):  # half a packet
            read_audio(path, 48_000)
        return
    with pytest.raises(DataError, match=r"it was cut off"):
        header(path)


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".aac", ".3gp", ".wma"])
def test_a_damaged_recording_is_read_or_refused_by_name(
    suffix: str, files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng, content = random.Random(0), files[suffix].read_bytes()
    path = tmp_path / f"a{suffix}"
    answers = set()
    for attempt in range(25):
        wrong = bytearray(content)
        for _ in range(10):
            wrong[rng.randrange(12, 600 if attempt % 2 else len(wrong))] = rng.randrange(256)
        path.write_bytes(wrong)
        try:
            found = header(path)
            assert found.seconds <= reading.LONGEST
            assert len(read_audio(path, 16_000, silent_ok=True)) == pytest.approx(16_000 * found.seconds, abs=2)
            answers.add("read")
        except DataError as error:
            answers.add("refused" if str(error).startswith(f"{path}: ") else str(error))
    assert "refused" in answers
    assert answers <= {"read", "refused"}
    assert capfd.readouterr() == ("", "")  # FFmpeg prints nothing


def test_a_playlist_is_never_opened(tmp_path: Path) -> None:
    """FFmpeg would read the files and addresses that a playlist names."""
    tiny_audio.write(tmp_path / "secret.wav", noise(16_000)[:, 0], 16_000)
    for name, content in {
        "a.m4a": "#EXTM3U\n#EXTINF:1,\nsecret.wav\n",
        "b.mp4": "ffconcat version 1.0\nfile secret.wav\n",
        "c.webm": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match="not readable audio"):
            header(tmp_path / name)
    odd = shutil.copy(tiny_containers.write(tmp_path / "d.m4a", noise(48_000), 48_000), tmp_path / "concat:a|b.m4a")
    assert header(odd).seconds == SECONDS


def test_without_pyav_the_error_says_what_to_do(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.data.audio.reading.can_be_read", lambda: False)
    for suffix, path in files.items():
        with pytest.raises(DataError, match=r"need PyAV: pip install 'graft-pipelines\[audio-formats\]'") as error:
            header(path)
        assert str(error.value).endswith(f"convert them, as with `ffmpeg -i x{suffix} x.wav`")
    with pytest.raises(DataError, match=r"audio bytes: m4a recordings need PyAV"):
        header({"path": None, "bytes": files[".m4a"].read_bytes()})
