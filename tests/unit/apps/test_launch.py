"""The demo of image classification, served and called through its API, and `launch`."""

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.errors import ModelError, RunError
from pipelines.inference.loading import Loaded, load
from tests.support import tiny
from tests.support.hub import HubServer, hub
from tests.support.pages import gradio_page

__all__ = ["gradio_page", "hub"]

pytestmark = pytest.mark.usefixtures("gradio_page")


@pytest.fixture
def asked() -> Iterator[Callable]:
    """`asked(loaded)` serves its demo and returns a gradio client of it."""
    from gradio_client import Client

    from pipelines.apps import launch

    pages = []

    def serve(loaded: Any) -> Client:
        pages.append(launch.app(loaded))
        launch.serve(pages[-1], "127.0.0.1")
        return Client(pages[-1].local_url, verbose=False, analytics_enabled=False)

    yield serve
    for page in pages:
        page.close(verbose=False)


def ask(client: Any, path: Path) -> dict[str, float]:
    from gradio_client import handle_file

    answer = client.predict(handle_file(path), api_name="/predict")
    assert answer["label"] == answer["confidences"][0]["label"]
    return {one["label"]: one["confidence"] for one in answer["confidences"]}


def answer_of(loaded: Loaded, path: Path) -> dict[str, float]:
    return {one["label"]: pytest.approx(one["score"], abs=1e-6) for one in loaded.infer(path)}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return tiny.photos(tmp_path / "photos", n=1, splits=()) / "cat" / "000.jpg"


def test_the_api_gives_what_infer_gives(vit_folder: Path, photo: Path, asked: Callable) -> None:
    loaded = load(vit_folder)
    client = asked(loaded)
    assert ask(client, photo) == answer_of(loaded, photo)
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/predict"]


def test_a_hub_id_is_served_like_a_folder(hub: HubServer, vit_folder: Path, photo: Path, asked: Callable) -> None:
    hub.add_model("me/insects", vit_folder)
    client = asked(load("me/insects"))
    assert ask(client, photo) == answer_of(load(vit_folder), photo)
    assert client.config["title"] == "me/insects"


def test_several_labels_are_bars_without_a_winner(tmp_path: Path, photo: Path, asked: Callable) -> None:
    loaded = load(tiny.vit(tmp_path / "vit", problem_type="multi_label_classification"))
    client = asked(loaded)
    assert ask(client, photo) == answer_of(loaded, photo)
    bars = next(c for c in client.config["components"] if c["type"] == "label")
    assert bars["props"]["show_heading"] is False


def test_bad_files_and_our_own_faults_reach_nobody_as_tracebacks(
    vit_folder: Path, photo: Path, tmp_path: Path, asked: Callable
) -> None:
    from gradio_client.exceptions import AppError

    loaded = load(vit_folder)
    client = asked(loaded)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(photo.read_bytes()[:200])
    with pytest.raises(AppError, match=r"bad\.jpg: not a readable image"):
        ask(client, bad)

    def fail(*inputs: Any, **settings: Any) -> None:
        raise ValueError("secret/path")

    loaded.infer = fail  # type: ignore[method-assign]
    with pytest.raises(AppError) as caught:
        ask(client, photo)
    assert "secret" not in str(caught.value)


def test_the_server_gives_out_no_files_and_takes_none_that_are_too_large(
    vit_folder: Path, tmp_path: Path, asked: Callable
) -> None:
    client = asked(load(vit_folder))
    for path in (vit_folder / "config.json", Path("pyproject.toml").resolve(), Path("/etc/hostname")):
        with (
            pytest.raises(urllib.error.HTTPError) as caught,
            urllib.request.urlopen(f"{client.src}gradio_api/file={path}"),
        ):
            pass
        assert caught.value.code in (403, 404)
        caught.value.close()
    large = tmp_path / "large.png"
    large.write_bytes(b"0" * (21 << 20))
    with pytest.raises(Exception, match=r"20|size|413"):
        ask(client, large)


def test_nothing_is_reported_or_looked_up(
    vit_folder: Path, photo: Path, asked: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, called = socket.socket.connect, []

    def listen(self: socket.socket, address: Any) -> None:
        called.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", listen)
    client = asked(load(vit_folder))
    ask(client, photo)
    assert client.config["analytics_enabled"] is False
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert {address[0] for address in called if isinstance(address, tuple)} <= {"127.0.0.1"}


# ---- launch ----


def test_a_taken_port_is_said_before_anything_is_loaded() -> None:
    from pipelines.apps.launch import FIRST_PORT, free_port, launch

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f"127.0.0.1:{port}.*another port"):
            launch("no/such-model", port=port)
    assert FIRST_PORT <= free_port("127.0.0.1", None) < FIRST_PORT + 100


def test_without_a_port_the_next_free_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.apps import launch

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(launch, "FIRST_PORT", taken.getsockname()[1])
        assert launch.free_port("127.0.0.1", None) > launch.FIRST_PORT
        monkeypatch.setattr(launch, "PORTS", 1)
        with pytest.raises(RunError, match="all taken"):
            launch.free_port("127.0.0.1", None)


@pytest.mark.parametrize(
    ("host", "port"), [("no.such.host.invalid", 7860), ("203.0.113.7", 7860), ("127.0.0.1", 70000)]
)
def test_an_address_that_is_not_ours_is_refused(host: str, port: int) -> None:
    from pipelines.apps.launch import free_port

    with pytest.raises(RunError, match="cannot serve on"):
        free_port(host, port)


def test_a_task_without_a_demo_is_named() -> None:
    from pipelines.apps.launch import app

    with pytest.raises(ModelError, match="me/cats-dogs: no demo for the task 'mind-reading'"):
        app(SimpleNamespace(source="me/cats-dogs", task=SimpleNamespace(name="mind-reading")))  # type: ignore[arg-type]


def test_launch_serves_a_folder_and_says_where(vit_folder: Path, capsys: pytest.CaptureFixture) -> None:
    from pipelines.apps.launch import launch

    page = launch(vit_folder, block=False)
    try:
        assert f"http://127.0.0.1:{page.server_port}/" in capsys.readouterr().out
        with urllib.request.urlopen(page.local_url) as answer:
            assert answer.status == 200
    finally:
        page.close(verbose=False)


def test_gradios_variables_count(vit_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.apps.launch import free_port, launch

    port = free_port("127.0.0.1", None)
    monkeypatch.setenv("GRADIO_SERVER_PORT", str(port))
    monkeypatch.setenv("GRADIO_SERVER_NAME", "localhost")
    page = launch(vit_folder, block=False)
    try:
        assert page.local_url == f"http://localhost:{port}/"
        with pytest.raises(RunError, match=f"localhost:{port}.*another port"):
            launch("no/such-model")
    finally:
        page.close(verbose=False)
    monkeypatch.setenv("GRADIO_SERVER_PORT", "http")
    with pytest.raises(RunError, match="GRADIO_SERVER_PORT=http: give a number"):
        launch("no/such-model")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "::1", "[::1]"])
def test_a_page_of_another_name_gets_nothing(host: str, vit_folder: Path) -> None:
    """Another site may point its name at 127.0.0.1: its pages could then ask the demo in the visitor's browser."""
    from pipelines.apps.launch import free_port, launch

    try:
        free_port(host.strip("[]"), None)
    except RunError:
        pytest.skip("this machine does not have the address")
    page = launch(vit_folder, host=host, block=False)
    own = "[::1]" if ":" in host else host
    try:
        for name, status in (("localhost", 200), (f"{own}:80", 200), (own, 200), ("evil.example:7860", 400)):
            request = urllib.request.Request(f"{page.local_url}config", headers={"Host": name})
            try:
                with urllib.request.urlopen(request) as answer:
                    found = answer.status
            except urllib.error.HTTPError as error:
                found = error.code
            assert (name, found) == (name, status)
    finally:
        page.close(verbose=False)


def test_importing_is_light_and_writes_nothing() -> None:
    from pipelines.apps import parts

    heavy = "{'gradio', 'torch', 'transformers', 'datasets'}"
    code = f"import sys, pipelines.apps.launch; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
    # Gradio writes an interface file next to every module that derives from one of its components
    assert list(Path(parts.__file__).parent.glob("*.pyi")) == []


def test_a_port_that_another_program_takes_at_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio as gr

    from pipelines.apps import launch

    find = launch.free_port
    with socket.socket() as other, gr.Blocks() as page:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        places = iter([taken])
        monkeypatch.setattr(launch, "free_port", lambda host, port: next(places, None) or find(host, port))
        launch.serve(page, "127.0.0.1")
        try:
            assert page.local_url != f"http://127.0.0.1:{taken}/"
        finally:
            page.close(verbose=False)


def test_a_session_may_be_forgotten_twice() -> None:
    import gradio as gr

    from pipelines.apps import launch

    with gr.Blocks() as blocks:
        gr.Markdown("a page")
    blocks.queue()
    launch.forget_sessions_once(blocks)
    messages = blocks._queue.pending_messages_per_session
    messages["a session"] = object()
    del messages["a session"]
    del messages["a session"]
    assert not messages
