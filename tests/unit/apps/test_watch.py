"""`graft watch`: what the server answers, to whom, and for a run that goes on, is finished or is gone."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from pipelines.apps.watch import Watched, app, known_host
from pipelines.errors import ModelError
from tests.support.command import graft, refused
from tests.support.fake_run import fake_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = fake_run(tmp_path / "run", n=20, steps=100, pictures=False)
    (folder / "results.json").unlink()
    return folder


def client(run: Path, host: str = "127.0.0.1") -> Any:
    from starlette.testclient import TestClient

    return TestClient(app(Watched(run), host), base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


def test_new_lines_of_the_log_are_in_the_next_answer(run: Path) -> None:
    browser = client(run)
    first = browser.get("/")
    assert (first.status_code, first.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "the log ends at step 100" in first.text
    tag = {"If-None-Match": first.headers["ETag"]}
    assert browser.get("/page", headers=tag).status_code == 304
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 107, "epoch": 5.5, "stage": "train", "loss": 0.5, "learning_rate": 0.1}) + "\n")
    second = browser.get("/page", headers=tag)
    assert second.status_code == 200
    assert "the log ends at step 107" in second.text


def test_a_finished_run_shows_its_report(run: Path) -> None:
    browser = client(run)
    assert "has not finished" in browser.get("/page").text
    (run / "report.html").write_text("<h1>the report</h1>")
    (run / "results.json").write_text("{}")
    (run / "live.json").write_text("{}")
    assert "the report" not in browser.get("/").text, "the files of the end are being written"
    (run / "live.json").unlink()
    assert browser.get("/").text == "<h1>the report</h1>"


def test_a_served_report_links_to_no_file(run: Path) -> None:
    """The server serves one page, so a link to a file is dead. The text of the link stays."""
    (run / "results.json").write_text("{}")
    (run / "report.html").write_text(
        '<p class="where"><a href="../data/a%20b.jpg">a b.jpg</a></p><a href="file:///data/c.txt">c.txt, row 3</a>'
        '<a href="#mistakes">Mistakes</a>'
    )
    assert client(run).get("/").text == ('<p class="where">a b.jpg</p>c.txt, row 3<a href="#mistakes">Mistakes</a>')


@pytest.mark.parametrize("path", ["/log.jsonl", "/recipe.yaml", "/page/../recipe.yaml", "/..%2f..%2fetc", "/page/"])
def test_no_other_file_is_served(run: Path, path: str) -> None:
    answer = client(run).get(path, follow_redirects=False)
    assert answer.status_code in (404, 307)
    assert "task:" not in answer.text


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_only_answers_questions(run: Path, verb: str) -> None:
    assert client(run).request(verb, "/page").status_code == 405


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("127.0.0.1:7860", True),
        ("localhost", True),
        ("LOCALHOST:7861", True),
        ("localhost.:7861", True),
        ("[::1]:7860", True),
        ("192.168.0.7:7860", True),
        ("gpu-box:7860", True),
        ("evil.example:7860", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_a_name_that_somebody_points_here_is_refused(run: Path, header: str, known: bool) -> None:
    assert known_host(header, "gpu-box") is known
    answer = client(run, "gpu-box").get("/page", headers={"Host": header})
    assert answer.status_code == (200 if known else 421)
    assert ("log ends" in answer.text) is known
    assert ("--host NAME" in answer.text) is not known


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_server_on_all_addresses_has_the_names_of_its_machine(host: str) -> None:
    own = socket.gethostname()
    assert known_host(f"{own}:7860", host)
    assert known_host(f"{own.upper()}.", host)
    assert not known_host(f"{own}.evil.example:7860", host)
    assert not known_host("evil.example", host)


def test_what_goes_wrong_is_said_in_the_page(run: Path) -> None:
    browser = client(run)
    page = browser.get("/").text
    assert "connect-src" in page
    shutil.rmtree(run)
    answer = browser.get("/page")
    assert answer.status_code == 503
    assert "no run folder" in answer.text


def test_the_page_may_ask_this_server_alone(run: Path) -> None:
    headers = client(run).get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_wrong_folders_and_ports(tmp_path: Path, run: Path) -> None:
    refused(graft("watch", tmp_path), 2, "no run folder")
    refused(graft("watch", run / "model"), 2, "give ")
    refused(graft("watch", run, "--port", "70000"), 1, "70000")
    with pytest.raises(ModelError):
        Watched(tmp_path).html()
