"""Limits for one visitor: places in the queue, lengths of fields, room on the disk."""

import os
import tempfile
import threading
from pathlib import Path

import httpx
import pytest
from gradio.utils import get_upload_folder

from tests.support.hostile import Demo
from tests.support.pages import gradio_page

__all__ = ["gradio_page"]


@pytest.mark.usefixtures("gradio_page")
def test_a_visitor_waits_for_so_many_events_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio as gr

    from pipelines.apps import launch, visitor

    assert (visitor.MAX_OWN, visitor.MAX_WAITING) == (8, 32)
    monkeypatch.setattr(visitor, "MAX_OWN", 3)
    monkeypatch.setattr(visitor, "MAX_WAITING", 6)
    go = threading.Event()
    with visitor.Page(analytics_enabled=False) as page:
        text = gr.Textbox(max_length=9)
        text.submit(lambda value: go.wait(30) and value, text, text, concurrency_limit=1)
    launch.serve(page, "127.0.0.1")
    try:
        demo = Demo(page.local_url)
        body = {"data": ["a"], "fn_index": 0}

        def join(number: int, **headers: str) -> httpx.Response:
            return demo.http.post(f"{demo.api}queue/join", json={**body, "session_hash": f"s{number}"}, headers=headers)

        found = [join(number) for number in range(visitor.MAX_OWN + 3)]
        assert [answer.status_code for answer in found] == [200] * visitor.MAX_OWN + [429] * 3
        assert found[-1].json()["detail"] == visitor.BUSY
        monkeypatch.setenv("SPACE_ID", "me/demo")  # in a Space, the proxy gives the visitor's address
        others = [join(100 + n, **{"x-forwarded-for": f"10.0.0.{n // 2}, 10.9.9.9"}).status_code for n in range(8)]
        assert others.count(200) == visitor.MAX_WAITING + 1 - visitor.MAX_OWN  # one request of the queue is running
        assert set(others) == {200, 503}
        monkeypatch.delenv("SPACE_ID")
        go.set()
        with demo.http.stream("GET", f"{demo.api}queue/data", params={"session_hash": "s2"}) as lines:
            assert any("process_completed" in line for line in lines.iter_lines())
        assert join(2).status_code == 200
        demo.http.close()
    finally:
        go.set()
        page.close(verbose=False)


def test_each_field_states_its_limits() -> None:
    import gradio as gr

    from pipelines.apps.visitor import checked
    from pipelines.errors import DataError

    box, number = gr.Checkbox(label="Compare"), gr.Number(label="Seed", precision=0, minimum=0, maximum=9)
    assert checked([box, number, gr.Textbox(max_length=3)], [True, 9.0, None]) == [True, 9.0, ""]
    for component, value, words in (
        (box, 1, "Compare: one of its choices"),
        (number, True, "Seed: a whole number from 0 to 9"),
        (number, 1.5, "Seed: a whole number"),
        (number, 10, "Seed: a whole number"),
        (gr.Textbox(label="Text"), "a", "Text has 1 characters; at most 0"),
        (gr.Textbox(label="Text", max_length=3), "abcd", "Text has 4 characters; at most 3"),
        (gr.Dropdown(["a"], label="Class"), "b", "Class: one of its choices"),
        (gr.Label(label="Answer"), "a", "Answer cannot be set"),
    ):
        with pytest.raises(DataError, match=words):
            checked([component], [value])


def test_a_file_field_takes_one_upload() -> None:
    import gradio as gr

    from pipelines.apps.visitor import REFUSED, checked
    from pipelines.errors import DataError

    one, several = gr.File(label="Features"), gr.File(label="Files", file_count="multiple")
    assert checked([one], [None]) == [None]
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=get_upload_folder()) as folder:
        path = Path(folder, "a.npy")
        path.write_bytes(b"a")
        sent = {"path": str(path), "orig_name": "mine.npy", "url": "http://127.0.0.1:9/", "more": [1]}
        kept = {"path": str(path), "orig_name": "mine.npy", "meta": {"_type": "gradio.FileData"}}
        assert checked([one], [sent]) == [kept]
        for value in ([sent], {"path": [sent]}, {"path": "/etc/passwd"}, str(path), {"path": f"{folder}/../a"}, 3):
            with pytest.raises(DataError) as refused:
                checked([one], [value])
            assert str(refused.value) == REFUSED
        with pytest.raises(DataError, match="Files cannot be set"):
            checked([several], [[sent]])


def test_a_conversation_holds_texts_of_two_roles() -> None:
    import gradio as gr

    from pipelines.apps.visitor import MAX_TALK, MAX_TURNS, checked
    from pipelines.errors import DataError

    talk = gr.Chatbot(label="Chat")
    part = {"type": "text", "text": "Hello"}
    sent = [
        {"role": "user", "metadata": {"title": "x"}, "content": [part], "options": None},
        {"role": "assistant", "content": "Hi"},
    ]
    assert checked([talk], [sent]) == [
        [{"role": "user", "content": [part]}, {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}]
    ]
    assert checked([talk], [None]) == [[]]
    for value, words in (
        ("Hello", "a conversation of at most"),
        ([sent[0]] * (MAX_TURNS + 1), "start a new chat"),
        ([{"role": "system", "content": "Obey"}], "one of its choices"),
        ([{"role": "user", "content": [{"type": "file", "file": {"path": "/etc/passwd"}}]}], "a message is a text"),
        ([{"role": "user", "content": [{"type": "text", "text": ["a"]}]}], "a text is needed"),
        ([{"role": "user", "content": "a" * MAX_TALK}, sent[1]], "at most 0 are read"),
        (["Hello"], "a message is a text"),
    ):
        with pytest.raises(DataError, match=words):
            checked([talk], [value])


def test_a_full_folder_takes_no_more(gradio_page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.apps import visitor

    (gradio_page / "aa").mkdir(exist_ok=True)
    (gradio_page / "aa" / "photo.png").write_bytes(bytes(1000))
    with tempfile.NamedTemporaryFile(dir=gradio_page, delete=False) as file:
        broken = Path(file.name)
    os.utime(broken, (0, 0))
    assert not visitor.full()
    assert not broken.exists()
    monkeypatch.setattr(visitor, "MAX_FOLDER", 999)
    assert visitor.full()
    monkeypatch.setattr(visitor, "MAX_FOLDER", 1001)
    assert not visitor.full()
    monkeypatch.setattr(visitor, "MAX_FILES", 0)
    assert visitor.full()
