"""Files of URLs, from a real server on loopback: limits of size, time and redirects, and only http and https."""

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.errors import DataError
from pipelines.inference import downloads
from pipelines.inference.downloads import check, download, is_url

PLACES = {
    "/file": "file:///etc/hostname",
    "/ftp": "ftp://127.0.0.1/a",
    "/loop": "/loop",
    "/moved": "/photo.jpg",
}
CONTENT = b"\xff\xd8 a photo"


class Answers(BaseHTTPRequestHandler):
    """A path names how the server behaves."""

    def do_GET(self) -> None:
        if self.path in PLACES:
            self.send_response(302)
            self.send_header("Location", PLACES[self.path])
            self.end_headers()
            return
        if self.path == "/none":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/declared":
            self.send_header("Content-Length", str(10**12))
        elif self.path == "/photo.jpg":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client went away
            self._body()

    def _body(self) -> None:
        if self.path == "/silent":
            time.sleep(1)
        elif self.path == "/drops":
            for _ in range(40):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif self.path == "/endless":
            for _ in range(10_000):
                self.wfile.write(b"x" * 1000)
        elif self.path != "/empty":
            self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_and_one_that_moved(site: str, tmp_path: Path) -> None:
    for name in ("photo.jpg", "moved"):
        download(f"{site}/{name}", tmp_path / name)
        assert (tmp_path / name).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("none", "the server answered 404 Not Found"),
        ("file", "/etc/hostname: only http and https are followed"),
        ("ftp", "leads to ftp://127.0.0.1/a: only http and https are followed"),
        ("loop", "more than 5 redirects"),
        ("declared", "larger than 0.2 MB: download it, and give the file"),
        ("endless", "larger than 0.2 MB"),
        ("silent", "no answer in 0.3 s"),
        ("drops", "not complete after 0.5 s"),
        ("empty", "the server answered with nothing"),
    ],
)
def test_what_is_refused(site: str, place: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PATIENCE", 0.3)
    monkeypatch.setattr(downloads, "LONGEST", 0.5)
    monkeypatch.setattr(downloads, "MOST_BYTES", 200_000)
    with pytest.raises(DataError) as error:
        download(f"{site}/{place}", tmp_path / "file")
    assert says in str(error.value)
    assert f"{site}/{place}" in str(error.value), "the error names the URL"
    assert not (tmp_path / "file").exists() or (tmp_path / "file").stat().st_size <= 200_000


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:1/x: cannot be read: .*refused"):
        download("http://127.0.0.1:1/x", tmp_path / "file")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "file:// is not read: give a URL with http or https"),
        ("ftp://host/a", "ftp:// is not read"),
        ("http://", "a URL without a host"),
        ("http://host:port/", "not a URL"),
        ("http://[::1", "not a URL"),
    ],
)
def test_urls_that_are_none(url: str, says: str) -> None:
    assert is_url(url)
    with pytest.raises(DataError) as error:
        check(url)
    assert says in str(error.value)


@pytest.mark.parametrize("text", ["photo.jpg", "C:\\a.jpg", "see http://x.org", "a: //b", "://x", ""])
def test_texts_that_are_no_urls(text: str) -> None:
    assert not is_url(text)
