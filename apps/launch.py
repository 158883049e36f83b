"""Serve the demo of a trained model: the work of `graft demo RUN_OR_MODEL`."""

import atexit
import importlib
import ipaddress
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import ModelError, RunError

if TYPE_CHECKING:
    import gradio as gr

    from pipelines.inference.loading import Loaded

FIRST_PORT, PORTS = 7860, 100
HERE = ("127.0.0.1", "localhost")  # the names by which this machine reaches a demo that only it can reach


def launch(
    source: str | Path,
    *,
    port: int | None = None,
    host: str | None = None,
    open_browser: bool = False,
    block: bool = True,
) -> "gr.Blocks":
    """Load a run folder, a model folder or a hub id, and serve its demo.

    Returns the page; its `close()` stops the server.

    Without `port` it takes GRADIO_SERVER_PORT, or else the first free port from 7860; without `host`
    GRADIO_SERVER_NAME, or else 127.0.0.1. With `block` the call lasts until Ctrl-C. Raises ModelError for a model
    without a demo, RunError if the address is not available.
    """
    host = host or os.environ.get("GRADIO_SERVER_NAME") or HERE[0]
    host = host.strip("[]")  # of an IPv6 address
    port = _port_of_environment() if port is None else port
    free_port(host, port)  # before the model is loaded, so that a taken port is reported at once
    from pipelines.inference.loading import load
    from pipelines.utils.library_logging import quiet_libraries
    from pipelines.utils.progress import Progress

    quiet_libraries(Progress(True))
    _own_folder()
    blocks = app(load(source))
    serve(blocks, host, port, open_browser)
    print(f"The demo runs at {blocks.local_url}  (Ctrl-C stops it)", flush=True)
    if block:
        wait(blocks)
    return blocks


def _port_of_environment() -> int | None:
    """GRADIO_SERVER_PORT, if it is set. Raises RunError if it is no number."""
    text = os.environ.get("GRADIO_SERVER_PORT", "").strip()
    if text and not (text.isascii() and text.isdigit()):
        raise RunError(f"GRADIO_SERVER_PORT={text}: give a number from 1024 to 65535, or unset it")
    return int(text) if text else None


def app(loaded: "Loaded") -> "gr.Blocks":
    """The page from the task's own file in this folder."""
    name = f"pipelines.apps.{loaded.task.name.replace('-', '_')}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModelError(f"{loaded.source}: no demo for the task {loaded.task.name!r}") from None
    blocks: gr.Blocks = module.build(loaded)
    return blocks


def free_port(host: str, port: int | None) -> int:
    """`port` if it is free; without `port` the first free one. Raises RunError."""
    wanted = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS)
    for candidate in wanted:
        if not 0 <= candidate <= 65535:
            raise RunError(
                f"cannot serve on port {candidate}: give one from 1024 to 65535, or none to have a free one found"
            )
        try:
            family, kind, proto, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise RunError(f"cannot serve on {host}:{candidate}: {error}; give an address of this machine") from None
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except PermissionError:
                raise RunError(f"port {candidate} needs privileges; give one from 1024 to 65535") from None
            except OSError as error:
                if port is not None:
                    raise RunError(
                        f"cannot serve on {host}:{port}: {error.strerror}; give another port or none"
                    ) from None
                continue
            return int(probe.getsockname()[1])
    raise RunError(f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are all taken on {host}; give a free one")


def serve(blocks: "gr.Blocks", host: str, port: int | None = None, open_browser: bool = False) -> None:
    """Start the server and return. It shares, records and reports nothing, and shows visitors no traceback.

    Without `port` it takes the first free one, and another if a program takes that one at the same moment. Raises
    RunError.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from pipelines.apps import parts, visitor

    _reach_directly(host)
    gates = [Middleware(visitor.Gate)]
    if _only_here(host):
        # A page of another site may point its own name at this machine, and would then read what the demo answers.
        # "[" is what older versions of Starlette make of [::1]:7860; no name of a site begins so.
        names = list(dict.fromkeys([*HERE, host, f"[{host}]", "["]))
        gates.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False))
    # With api_open, requests of other kinds could bypass the queue.
    blocks.queue(max_size=visitor.MAX_WAITING, default_concurrency_limit=1, api_open=False)
    forget_sessions_once(blocks)
    for _ in range(PORTS):
        place = free_port(host, port)
        try:
            blocks.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=place,
                inbrowser=open_browser,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                show_error=False,  # gr.Error still shows its own message
                max_file_size=f"{visitor.MAX_MEGABYTES}mb",
                theme=parts.THEME,
                css=parts.CSS,
                js=parts.NAMES,
                footer_links=["api"],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                state_session_capacity=1000,
                app_kwargs={"middleware": gates},
            )
            return
        except OSError as error:  # another program took the port since it was found free
            if port is not None:
                raise RunError(f"cannot serve on {host}:{port}: {error}; give another port") from error
    raise RunError(f"no port on {host} stays free: give one")


def forget_sessions_once(blocks: "gr.Blocks") -> None:
    """Let a session's messages be deleted twice.

    Gradio deletes them when a stream of the session is cut off. A visitor who leaves may cut off two streams, and the
    second one would put the traceback of a KeyError into the log.
    """
    from gradio.utils import LRUCache

    class Messages(LRUCache):  # type: ignore[type-arg]
        def __delitem__(self, session: str) -> None:
            if session in self:
                super().__delitem__(session)

    queue = blocks._queue
    queue.pending_messages_per_session = Messages(queue.pending_messages_per_session.max_size)


def _only_here(host: str) -> bool:
    """Whether only this machine can reach this address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def wait(blocks: "gr.Blocks") -> None:
    """Wait until Ctrl-C; then stop the server and delete the visitors' files."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        blocks.close(verbose=False)


def _own_folder() -> None:
    """Give Gradio its own folder. Its default for uploads and examples is a folder of /tmp that everybody can read."""
    if "GRADIO_TEMP_DIR" in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = os.path.abspath(
            os.environ["GRADIO_TEMP_DIR"]
        )  # Gradio names uploads by their full paths
    else:
        folder = tempfile.mkdtemp(prefix="graft-demo-")
        os.environ["GRADIO_TEMP_DIR"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _reach_directly(host: str) -> None:
    """Bypass proxies for this server.

    Gradio asks its own server whether it runs, and a company proxy would fail to reach it.
    """
    for name in ("NO_PROXY", "no_proxy"):
        known = [entry for entry in os.environ.get(name, "").split(",") if entry]
        os.environ[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost", host]))
