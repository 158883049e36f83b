"""A model hub on loopback: the real huggingface_hub, transformers, timm and datasets clients work against it.

    from tests.support.hub import hub              # the fixture: a fresh hub, which this process then uses
    hub.add_model("google/vit", folder)            # tiny real models under real ids
    subprocess.run([...], env=hub.env)             # another process uses it too
    hub.fail_next(2, 503, "/commit/")              # and hub.truncate_next, hub.latency, `with hub.offline():`

The clients read HF_ENDPOINT when they are imported. `HubServer.patch` also changes the copies that they made of it.
"""

import asyncio
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.hub_api import ACCOUNTS, OTHER_TOKEN, READ_TOKEN, ROUTES, TOKEN, USER, Call, Refused
from tests.support.hub_store import Blob, Commit, Repo

__all__ = ["OTHER_TOKEN", "READ_TOKEN", "TOKEN", "USER", "HubServer", "hub"]


@dataclass
class Fault:
    left: int
    path: str
    status: int | None = None  # the status of the answer; None: send only a part of the correct answer
    keep: float = 0.0
    method: str | None = None


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    token: str | None


class HubServer:
    """The hub, listening on 127.0.0.1 from `start` to `stop` (or inside `with HubServer(home) as hub`).

    `home` becomes HF_HOME: caches and tokens of the clients, empty at first.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}  # uploaded large files by sha256
        self.asked: list[Asked] = []  # every request, in order
        self.unknown: list[str] = []  # requests for something that this hub does not have
        self.latency = 0.0  # seconds of delay before every answer
        self._faults: list[Fault] = []
        self._server: uvicorn.Server | None = None
        with socket.socket() as probe:  # the port is chosen once, so that it stays the same after `offline`
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    # ---- content ----

    def add_model(self, repo_id: str, folder: Path, **flags: bool) -> str:
        """Serve a folder under this id. A second call adds a commit that replaces it. Returns the commit's sha."""
        return self.add("model", repo_id, folder, **flags)

    def add_dataset(self, repo_id: str, folder: Path, **flags: bool) -> str:
        return self.add("dataset", repo_id, folder, **flags)

    def add(self, kind: str, repo_id: str, folder: Path, **flags: bool) -> str:
        """`flags`: private, gated."""
        repo = self.repos.setdefault((kind, repo_id), Repo(kind, repo_id))
        repo.private, repo.gated = flags.get("private", repo.private), flags.get("gated", repo.gated)
        paths = sorted(p for p in Path(folder).rglob("*") if p.is_file())
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
        gone: dict[str, Blob | None] = {p: None for p in repo.head.files if p not in files and p != ".gitattributes"}
        return repo.commit("add files", gone | {p: Blob.of(p, d) for p, d in files.items()}).sha

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        return self.repos[kind, repo_id]

    def files(self, repo_id: str, kind: str = "model") -> dict[str, bytes]:
        return {path: blob.data for path, blob in self.repo(repo_id, kind).head.files.items()}

    def commits(self, repo_id: str, kind: str = "model") -> list[Commit]:
        """Commits from oldest to newest; the hub itself makes the first, with a .gitattributes."""
        return self.repo(repo_id, kind).history

    # ---- faults ----

    def fail_next(self, n: int, status: int, path: str = "", method: str | None = None) -> None:
        """The next n requests whose path contains `path` get this status."""
        self._faults.append(Fault(n, path, status, method=method))

    def truncate_next(self, n: int = 1, path: str = "", keep: float = 0.5, method: str = "GET") -> None:
        """The next n answers are correct, but the connection breaks after this share of the body."""
        self._faults.append(Fault(n, path, None, keep, method))

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Connections are refused inside the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    # ---- start and stop ----

    def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        settings = {
            "log_level": "critical",
            "lifespan": "off",
            "ws": "none",
            "interface": "asgi3",
            "timeout_graceful_shutdown": 1,
        }
        self._server = uvicorn.Server(uvicorn.Config(self._app, **settings))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the hub on loopback did not start"
            time.sleep(0.005)

    def stop(self) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(10)
        for listener in self._server.servers:
            listener.close()

    def __enter__(self) -> "HubServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- clients ----

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables that make a client use this hub and nothing else."""
        quiet = (
            "HF_HUB_DISABLE_XET",
            "HF_HUB_DISABLE_TELEMETRY",
            "HF_HUB_DISABLE_PROGRESS_BARS",
            "DISABLE_SAFETENSORS_CONVERSION",
        )
        settings = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.home),
            "HF_TOKEN": TOKEN,
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        }
        return (
            settings
            | dict.fromkeys(quiet, "1")
            | {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        )

    @property
    def env(self) -> dict[str, str]:
        """A complete environment for `subprocess.run(..., env=hub.env)`."""
        return {
            k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))
        } | self.settings

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Point this process at the hub: environment variables, and every copy that the clients made of them."""
        # Import these before the variables change. A client that a test imports first would keep this hub's address for
        # good.
        import datasets.config
        import huggingface_hub.hf_api
        import huggingface_hub.hf_file_system
        import transformers.utils.hub
        from huggingface_hub import HfFileSystem, constants
        from huggingface_hub.utils import close_session

        for name in [n for n in os.environ if n.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))]:
            monkeypatch.delenv(name)
        for name, value in self.settings.items():
            monkeypatch.setenv(name, value)
        cache, sets = self.home / "hub", self.home / "datasets"
        captured = {
            constants: {
                "ENDPOINT": self.url,
                "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
                "HF_URL_HOSTS": constants.HF_URL_HOSTS | {"127.0.0.1"},
                "HF_HOME": str(self.home),
                "HF_HUB_CACHE": str(cache),
                "HUGGINGFACE_HUB_CACHE": str(cache),
                "HF_ASSETS_CACHE": str(self.home / "assets"),
                "HF_TOKEN_PATH": str(self.home / "token"),
                "HF_STORED_TOKENS_PATH": str(self.home / "stored_tokens"),
                "AGENT_HARNESSES_PATH": str(self.home / ".agent_harnesses.json"),
                "HF_HUB_OFFLINE": False,
                "HF_HUB_DISABLE_XET": True,
                "HF_HUB_DISABLE_TELEMETRY": True,
            },
            huggingface_hub.hf_api.api: {"endpoint": self.url, "_whoami_cache": {}},
            huggingface_hub.hf_file_system.hffs: {
                "endpoint": self.url,
                "_api": huggingface_hub.HfApi(endpoint=self.url),
            },
            datasets.config: {
                "HF_ENDPOINT": self.url,
                "HUB_DATASETS_URL": self.url + "/datasets/{repo_id}/resolve/{revision}/{path}",
                "HF_CACHE_HOME": str(self.home),
                "HF_DATASETS_CACHE": sets,
                "DOWNLOADED_DATASETS_PATH": sets / "downloads",
                "EXTRACTED_DATASETS_PATH": sets / "downloads" / "extracted",
                "HF_UPDATE_DOWNLOAD_COUNTS": False,
                "HF_HUB_OFFLINE": False,
            },
            transformers.utils.hub: {"_hf_api": None},
        }
        for owner, values in captured.items():
            for name, value in values.items():
                monkeypatch.setattr(owner, name, value)
        HfFileSystem.clear_instance_cache()  # these objects cache listings
        close_session()

    # ---- one request ----

    async def _app(self, scope: dict, receive, send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        path = scope["raw_path"].decode()
        token = request.headers.get("authorization", "").removeprefix("Bearer ") or None
        self.asked.append(Asked(request.method, unquote(path), token))
        if self.latency:
            await asyncio.sleep(self.latency)
        fault = next(
            (f for f in self._faults if f.left and f.path in unquote(path) and f.method in (None, request.method)), None
        )
        if fault:
            fault.left -= 1
        if fault and fault.status:
            await JSONResponse({"error": "a fault of the test"}, fault.status)(scope, receive, send)
            return
        try:
            response = self._answer(request, path, body, token)
        except Refused as refusal:
            response = refusal.response
        except Exception:
            self.unknown.append(f"{request.method} {path}")
            traceback.print_exc()  # pytest shows it with the failed test
            raise
        if fault is None:
            if request.method == "HEAD":  # the length of the body that GET would send
                response.body = b""
            await response(scope, receive, send)
            return
        part = bytes(response.body)[: int(len(response.body) * fault.keep)]
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": part, "more_body": True})  # the rest is never sent

    def _answer(self, request: Request, path: str, body: bytes, token: str | None) -> Response:
        if token is not None and token not in ACCOUNTS:
            raise Refused(401, "Invalid credentials in Authorization header")
        for method, pattern, handler in ROUTES:
            match = pattern.fullmatch(path)
            if match and request.method in method.split():
                words = {k: unquote(v) if v else v for k, v in match.groupdict().items()}
                return handler(Call(self, request, body, token), **words)
        self.unknown.append(f"{request.method} {path}")
        raise Refused(404, "Not Found")


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A fresh hub that this process uses, logged in as `tester`."""
    with HubServer(tmp_path_factory.mktemp("hf_home")) as server:
        server.patch(monkeypatch)
        yield server
