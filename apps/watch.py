"""Serve the page of a run on this machine: the work of `graft watch RUN`. Curves grow while the run goes on.

The server answers two addresses, `/` and `/page`, which the browser asks again. It serves no other file, takes no
input, and needs nothing from another host.
"""

import hashlib
import ipaddress
import re
import socket
import threading
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.apps.launch import free_port
from pipelines.errors import GraftError, RunError
from pipelines.reporting import live
from pipelines.reporting.results import check_run_folder
from pipelines.utils import lock

# The page of a run runs only scripts of its own, and asks only this server.
POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Links to files, which the server does not serve. Text of the page never holds a tag, because all of it is escaped.
LINKS = re.compile(r'<a href="(?!#|https?:)[^"]*">(.*?)</a>', re.DOTALL)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}

UNKNOWN = (
    "graft watch does not answer to this name. Open the page by the address of its machine, such as "
    "http://192.168.0.7:7860, or start it with this name: graft watch RUN --host NAME"
)


def watch(run: Path, *, port: int | None = None, host: str = "127.0.0.1") -> None:
    """Serve the page of a run until Ctrl-C. Without `port` it takes the first free port from 7860.

    Raises ModelError if the folder is no run, RunError if the address is not available.
    """
    import uvicorn

    check_run_folder(run)
    page = Watched(run)
    page.html()
    place = free_port(host, port)
    server = uvicorn.Server(
        uvicorn.Config(
            app(page, host), log_level="critical", lifespan="off", server_header=False, timeout_graceful_shutdown=1
        )
    )
    try:
        family = socket.getaddrinfo(host, place, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, place), family=family)
    except OSError as error:  # another program took the port first
        raise RunError(f"cannot serve on {host}:{place}: {error.strerror or error}; give another port") from None
    named = f"[{host}]" if ":" in host else host
    print(f"The run is at http://{named}:{place}  (Ctrl-C stops this page, not the run)", flush=True)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises the signal again after it stopped
        pass
    finally:
        listening.close()
    print("stopped", flush=True)


class Watched:
    """The page of one run: the live page while it is not finished, then its report."""

    def __init__(self, run: Path) -> None:
        self.run, self.page = run, live.LivePage(run)
        self.lock = threading.Lock()  # several tabs may ask at once

    def html(self) -> str:
        with self.lock:
            report = self.run / live.PAGE
            finished = (self.run / "results.json").is_file() and not (self.run / live.FILE).exists()
            if finished and report.is_file():
                return LINKS.sub(r"\1", report.read_text(encoding="utf-8"))
            return self.page.render(served=True, running=lock.in_use(self.run / ".lock"))


def app(page: Watched, host: str) -> Any:
    """The ASGI application. A page of another site must not read it through a name that it points at this machine."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    def answer(request: Request) -> Response:
        if not known_host(request.headers.get("host", ""), host):
            return PlainTextResponse(UNKNOWN, 421, HEADERS)
        try:
            text = page.html()
        except (GraftError, OSError) as error:
            return PlainTextResponse(str(error), 503, HEADERS)
        tag = f'"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=HEADERS)
        return Response(text, headers={**HEADERS, "ETag": tag}, media_type="text/html")

    return Starlette(routes=[Route("/", answer), Route("/page", answer)])


def known_host(header: str, host: str) -> bool:
    """Whether a request names this server by an address, as `localhost`, or by the name that it was given.

    A server that listens on all addresses also has the names of its machine.
    """
    name = header.rpartition("]")[0].lstrip("[") if header.startswith("[") else header.partition(":")[0]
    name = name.lower().removesuffix(".")
    if name in ("localhost", host.lower().removesuffix(".")):
        return True
    address = _address(host)
    if address is not None and address.is_unspecified and name in _own_names():
        return True
    return _address(name) is not None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


@cache
def _own_names() -> set[str]:
    """The names of this machine, which no page of another site can have."""
    return {name.lower().removesuffix(".") for name in (socket.gethostname(), socket.getfqdn())}
