"""Visitors with bad intentions: every event of the demos of all tasks, over HTTP, with values that no page sends.

tests/unit/apps/test_visitor.py tests how many resources one visitor may use.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import hostile, shape_finder, tiny_audio
from tests.support.hostile import MISSING, REFUSED, SECRET, Demo

pytestmark = pytest.mark.integration  # all demos in one separate process

FILES = ("image", "audio", "video")
GROWTH = 300  # MB by which the memory of the server may grow


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The demos in a process of their own."""
    root = tmp_path_factory.mktemp("demos")
    uploads, outside = root / "uploads", root / "outside"
    for folder in (uploads, outside, root / "models"):
        folder.mkdir()
    env = {**os.environ, "GRADIO_TEMP_DIR": str(uploads)}
    with (root / "log").open("w") as log:
        command = [sys.executable, "-m", "tests.support.ten_demos", str(root / "models")]
        server = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        assert line.startswith("{"), (root / "log").read_text()
        found = {task: Demo(url) for task, url in json.loads(line).items()}
        yield SimpleNamespace(
            all=found,
            uploads=uploads,
            outside=outside,
            process=server.pid,
            log=root / "log",
            alive=lambda: server.poll() is None,
        )
        for demo in found.values():
            demo.http.close()
    finally:
        server.kill()
        server.communicate()


@pytest.fixture
def watched(demos: SimpleNamespace) -> Iterator[None]:
    """Check the server around a test: its memory grows by little, it stays up, and it writes no traceback."""
    before, _ = hostile.memory(demos.process)
    hostile.forget_peak(demos.process)
    length = len(demos.log.read_text())
    yield
    assert demos.alive()
    _, peak = hostile.memory(demos.process)
    assert peak - before < GROWTH
    print(f"grew from {before} MB by {peak - before} MB at most")
    assert "Traceback" not in demos.log.read_text()[length:]


def with_files(demos: SimpleNamespace) -> list[tuple[Demo, dict[str, Any]]]:
    """Every event that accepts an upload."""
    return [
        (demo, event) for demo in demos.all.values() for event in demo.events if set(demo.kinds(event)) & set(FILES)
    ]


def values(demo: Demo, event: dict[str, Any], value: Any, kinds: tuple[str, ...]) -> list[Any]:
    """The values that the page would send, with `value` in the fields of these kinds."""
    return [value if kind in kinds else usual for kind, usual in zip(demo.kinds(event), demo.usual(event), strict=True)]


def test_usual_requests_are_answered(demos: SimpleNamespace, tmp_path: Path) -> None:
    """Ask every event as its page does, so that a later refusal is known to be one. This also warms up the models."""
    (tmp_path / "photo.png").write_bytes(hostile.small_png())
    tiny_audio.write(tmp_path / "speech.wav", tiny_audio.spoken("low mid"))
    (tmp_path / "clip.mp4").write_bytes(shape_finder.film(frames=4))
    count = 0
    for demo in demos.all.values():
        photo, speech, clip = (demo.upload(tmp_path / name) for name in ("photo.png", "speech.wav", "clip.mp4"))
        for event in demo.events:
            if event["backend_fn"]:
                data = [
                    {"image": photo, "audio": speech, "video": clip}.get(k, v)
                    for k, v in zip(demo.kinds(event), demo.usual(event), strict=True)
                ]
                answer = demo.ask(event, data)
                assert answer.status == 200 or "does not say what made it" in str(answer.error), (
                    demo.url,
                    event,
                    answer,
                )
                count += 1
    assert count == 50


def test_no_file_but_an_upload_is_read_and_all_are_refused_alike(demos: SimpleNamespace, watched: None) -> None:
    kinds = hostile.places(demos.uploads, demos.outside)
    events = with_files(demos)
    assert len(events) == 18
    assert len(kinds) == 41
    answers = set()
    for demo, event in events:
        for name, value in kinds.items():
            answer = demo.ask(event, values(demo, event, value, FILES))
            assert answer.error == REFUSED, (demo.url, event, name, answer)
            assert SECRET not in answer.text
            answers.add((answer.status, answer.data, answer.error))
    assert answers == {(500, None, REFUSED)}


def test_values_beyond_a_field_are_refused_with_a_message(demos: SimpleNamespace, watched: None) -> None:
    """Each field of each event in turn. The other fields hold what the page would send."""
    events = asked = 0
    for demo in demos.all.values():
        for event in demo.events:
            kinds = demo.kinds(event)
            events += 1
            for place, kind in enumerate(kinds):
                for name, value in hostile.wrong_values().items():
                    if value is MISSING and kind in ("textbox", *FILES):
                        continue
                    data = values(demo, event, None, FILES)
                    data[place] = None if value is MISSING else value
                    answer = demo.ask(event, data)
                    asked += 1
                    words = (REFUSED,) if kind in FILES else ("is needed", "characters; at most", "half a character")
                    assert any(word in str(answer.error) for word in words), (demo.url, event, kind, name, answer)
            for data in ([], [None] * (len(kinds) + 3), demo.usual(event)[:-1]):
                answer = demo.ask(event, data)
                asked += 1
                assert answer.status in (200, 400, 404, 500)
                assert "Traceback" not in answer.text
    assert events == 65
    assert asked > 500


def test_events_and_bodies_that_nobody_knows(demos: SimpleNamespace, watched: None) -> None:
    demo = demos.all["image-classification"]
    for path in ("run/predict", "run/x", "api/x", "call/x", "call/v2/x", "call/v2/predict", "queue/join"):
        for body in (
            b"{}",
            b"[]",
            b'{"data": 3}',
            b'{"data": [], "fn_index": 999, "session_hash": "a"}',
            b"\xff",
            b"[" * 100_000,
        ):
            answer = demo.http.post(demo.api + path, content=body, headers=hostile.JSON)
            assert answer.status_code in (400, 404, 422, 500), (path, body[:40], answer.text)
    for number in range(100):  # the server would keep these names
        name = f"{number}{'x' * 1_900_000}" if number % 2 else [number] * 400_000
        answer = demo.http.post(f"{demo.api}queue/join", json={"data": [None], "fn_index": 0, "session_hash": name})
        assert (answer.status_code, answer.json()) == (400, {"detail": "The request is not understood."})
    for path in ("upload_progress?upload_id=", "queue/data?session_hash=", "heartbeat/", "nothing/"):
        assert demo.http.get(demo.api + path + "x" * 20_000).status_code == 414
    queued = next(event for event in demo.events if event["api_name"] == "predict")
    answer = demo.http.post(f"{demo.api}run/predict", json={"data": [None], "fn_index": queued["id"]})
    assert (answer.status_code, "join the queue" in answer.text) == (404, True)  # no event skips the queue


def test_large_requests_are_refused_before_they_are_read(demos: SimpleNamespace, watched: None) -> None:
    demo = demos.all["fill-mask"]
    for path in ("run/x", "queue/join", "call/predict", "cancel", "reset"):
        assert demo.http.post(demo.api + path, content=b'{"data": ["' + b"x" * (50 << 20) + b'"]}').status_code == 413
    for path in ("queue/join", "cancel"):
        pieces = (b"x" * (1 << 20) for _ in range(100))  # the request does not state its length
        assert demo.http.post(demo.api + path, content=pieces, headers=hostile.JSON).status_code in (400, 413)
    many = {"files": ("a.png", b"x" * (15 << 20))}
    answer = demo.http.post(f"{demo.api}upload", files=[("files", many["files"]), ("files", many["files"])])
    assert answer.status_code == 413
    assert not list(demos.uploads.rglob("a.png"))


def test_routes_that_a_demo_does_not_need_are_closed(demos: SimpleNamespace, watched: None) -> None:
    secret = demos.outside / "other.txt"
    secret.write_text(SECRET)
    demo = demos.all["text-to-image"]
    files = [
        "/etc/passwd",
        secret,
        f"{demos.uploads}/../outside/other.txt",
        "http://127.0.0.1:9/",
        "https://example.org/x.png",
        f"file://{secret}",
        os.path.relpath(secret),
        demos.uploads,
        "/dev/zero",
        "pyproject.toml",
        demos.outside / "nothing",
        "%2e%2e/outside/other.txt",
    ]
    # The client would resolve "../" itself. A relative path with enough of them would then name no route at all.
    answers = {demo.http.get(f"{demo.api}file=" + str(one).replace("../", "..%2F")).text for one in files}
    assert answers == {'{"detail": "Not available here."}'}
    (demos.uploads / "linked.txt").symlink_to(secret)
    assert SECRET not in demo.http.get(f"{demo.api}file={demos.uploads}/linked.txt").text
    others = (
        "proxy=http://127.0.0.1:9/",
        "deep_link?session_hash=a",
        "file/etc/passwd",
        "custom_component/a/client/b/c",
        "dev/reload",
        "token",
    )
    for path in others:
        assert demo.http.get(demo.api + path).status_code == 403
    for path in ("component_server", "process_recording", "vibe-edit", "vibe-code", "stream/a"):
        assert demo.http.post(demo.api + path, json={}).status_code == 403


def test_images_that_unpack_to_very_much(demos: SimpleNamespace, watched: None, tmp_path: Path) -> None:
    demo = demos.all["image-classification"]
    predict = next(event for event in demo.events if event["api_name"] == "predict")
    generator = demos.all["text-to-image"]
    tell = next(event for event in generator.events if generator.kinds(event) == ["image"])
    bombs = hostile.image_bombs()
    for name, (data, words) in bombs.items():
        path = tmp_path / name
        path.write_bytes(data)
        answer = demo.ask(predict, [demo.upload(path)])
        assert words in str(answer.error) if words else answer.status == 200, (name, answer)
        sent = generator.upload(path)
        named = generator.ask(
            tell, [{**sent, "orig_name": f"{tmp_path}/half \ud800 {'x' * 60}"}]
        )  # the answer repeats the visitor's own words
        assert str(named.error).startswith(f"half ? {'x' * 60}"), named
        refused = generator.ask(tell, [sent])
        assert "does not say what made it" in str(refused.error) or words in str(refused.error), (name, refused)


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "CMYK"])
def test_the_largest_images_that_are_read(demos: SimpleNamespace, watched: None, tmp_path: Path, mode: str) -> None:
    from PIL import Image

    path = tmp_path / ("large.jpg" if mode == "CMYK" else "large.png")
    demo = demos.all["image-classification"]
    predict = next(event for event in demo.events if event["api_name"] == "predict")
    for side in (3530, 4470):  # the largest image that the model gets unchanged, and the largest that is decoded
        Image.new(mode, (side, side)).save(path)
        assert demo.ask(predict, [demo.upload(path)]).status == 200


def test_recordings_that_lie_about_their_length(demos: SimpleNamespace, watched: None, tmp_path: Path) -> None:
    bombs = hostile.audio_bombs(tmp_path)
    for task in ("audio-classification", "speech-recognition-ctc", "speech-recognition-seq2seq"):
        demo = demos.all[task]
        event = next(event for event in demo.events if event["api_name"] == "predict")
        for name, (data, words) in bombs.items():
            if not words and task != "audio-classification":
                continue  # it can be read, and transcribing it takes long
            path = tmp_path / name
            path.write_bytes(data)
            answer = demo.ask(event, values(demo, event, demo.upload(path), FILES))
            assert words in str(answer.error) if words else answer.status == 200, (task, name, answer)


def test_so_many_steps_at_a_time(demos: SimpleNamespace, watched: None) -> None:
    demo = demos.all["text-to-image"]
    event = next(event for event in demo.events if event["api_name"] == "predict")
    labels = [demo.components[one]["props"]["label"] for one in event["inputs"]]
    data = dict(zip(labels, demo.usual(event), strict=True)) | {"Number of images": 4, "Denoising steps": 500}
    assert (
        demo.ask(event, list(data.values())).error == "4 images of 500 steps each: at most 400 steps are made at a time"
    )
