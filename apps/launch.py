"""Serve the demo of a trained model: what `graft demo RUN_OR_MODEL` does."""

import atexit
import importlib
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


def launch(
    source: str | Path,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    open_browser: bool = False,
    block: bool = True,
) -> "gr.Blocks":
    """Load a run folder, a model folder or a hub id and serve its demo; returns the page, whose `close()` stops the server.

    Without `port` the first free one from 7860 is taken. With `block` the call lasts until Ctrl-C.
    Raises ModelError for a model without a demo, RunError where the address cannot be had.
    """
    free_port(host, port)  # before the model is loaded: a taken port is said at once
    from pipelines.inference.loading import load

    _own_folder()
    blocks = app(load(source))
    serve(
        blocks, host, free_port(host, port), open_browser
    )  # loading takes seconds, in which another demo may take a port
    print(f"The demo runs at {blocks.local_url}  (Ctrl-C stops it)", flush=True)
    if block:
        wait(blocks)
    return blocks


def app(loaded: "Loaded") -> "gr.Blocks":
    """The page of the task's own file in this folder."""
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
    """`port` if it can be had, or the first free one. Raises RunError."""
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


def serve(blocks: "gr.Blocks", host: str, port: int, open_browser: bool = False) -> None:
    """Start the server and return. Nothing is shared outside, recorded or reported, and no traceback reaches a visitor."""
    from starlette.middleware import Middleware

    from pipelines.apps import parts, visitor

    _reach_directly(host)
    # api_open would let whoever asks in another way pass the queue
    blocks.queue(max_size=visitor.MAX_WAITING, default_concurrency_limit=1, api_open=False)
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=False,  # gr.Error still shows its own message
            max_file_size=f"{visitor.MAX_MEGABYTES}mb",
            theme=parts.THEME,
            css=parts.CSS,
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            state_session_capacity=1000,
            app_kwargs={"middleware": [Middleware(visitor.Gate)]},
        )
    except OSError as error:  # another program was faster
        raise RunError(f"cannot serve on {host}:{port}: {error}; give another port") from error


def wait(blocks: "gr.Blocks") -> None:
    """Until Ctrl-C; then the server stops and the visitors' files are deleted."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        blocks.close(verbose=False)


def _own_folder() -> None:
    """Gradio copies uploads and examples into a folder of /tmp that everybody can read and nobody empties: give it our own."""
    if "GRADIO_TEMP_DIR" in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = os.path.abspath(
            os.environ["GRADIO_TEMP_DIR"]
        )  # uploads are known by their whole paths
    else:
        folder = tempfile.mkdtemp(prefix="graft-demo-")
        os.environ["GRADIO_TEMP_DIR"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _reach_directly(host: str) -> None:
    """Gradio asks its own server whether it is up: behind a company proxy that must not go through the proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        known = [entry for entry in os.environ.get(name, "").split(",") if entry]
        os.environ[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost", host]))
