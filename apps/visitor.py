"""Limits for visitors of a demo: uploaded files, values of the fields, and the amount of work at a time.

Nothing that a client sends is trusted. Gradio's own checks are not enough: only the browser checks the limits of a
field, a file without `meta` passes as a path of the server, and the server fetches addresses. So `Page` checks every
value of every event before Gradio sees it, `read` opens files, and `Gate` checks all requests to the server.
"""

import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

import gradio as gr
from gradio.utils import get_upload_folder

from pipelines.errors import DataError, GraftError

log = logging.getLogger("graft")

MAX_MEGABYTES = 20  # size of an upload
MAX_PIXELS = 20_000_000  # pixels of an upload that are decoded; a larger JPEG is decoded at reduced size
WHOLE_PIXELS = 12_500_000  # pixels of an image that the model gets; each needs about 20 bytes
MAX_SECONDS = 600  # length of a recording
MAX_BODY = 2 << 20  # bytes of a request that is no upload: four texts of 20,000 characters, each escaped
MAX_TALK, MAX_TURNS = 200_000, 200  # characters and messages of a conversation that a page sends back
MAX_NAME = 100  # characters of the name of a session, which Gradio keeps for a long time
MAX_ADDRESS = 8000  # characters of the requested address
# bytes and number of all files that visitors uploaded or the demo wrote for them
MAX_FOLDER, MAX_FILES = 2 << 30, 20_000
MAX_WAITING = 32  # waiting events of all visitors together
MAX_OWN = 8  # waiting or running events and requests of one visitor
KEEP_UPLOADS = 3600  # seconds that a visitor's files stay on the server; all are deleted when it stops

IMAGES = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
)  # the formats that Pillow may try; others run external programs
REFUSED = f"This file cannot be used. Upload one file of at most {MAX_MEGABYTES} MB."
FULL = "The demo has no room for files at the moment: try again in an hour."
NOT_UNDERSTOOD = "The request is not understood."
BUSY = "You have too many requests at a time: wait until some are done."


@contextmanager
def shown() -> Iterator[None]:
    """Errors about a visitor's input become a message in the page, without a traceback."""
    try:
        yield
    except GraftError as error:
        raise gr.Error(str(error), title="That did not work", print_exception=False) from None


# ---- files ----


class Upload(NamedTuple):
    """A file that a visitor uploaded."""

    name: str  # the visitor's name of the file
    data: bytes


def read(value: Any) -> Upload | None:
    """The file in a field for an image, a recording, a video or another file; None for an empty field.

    Raises DataError, with the same message for all faults.
    """
    if value is None:
        return None
    with open(_descriptor(value), "rb") as file:
        data = file.read((MAX_MEGABYTES << 20) + 1)
    if len(data) > MAX_MEGABYTES << 20:  # the file grew after it was opened
        raise DataError(REFUSED)
    return Upload(file_name(value), data)


def _descriptor(value: Any) -> int:
    """Open a regular file in the folder of uploads, of at most the allowed size. Raises DataError.

    The message is the same for every reason, and no other folder is read, so visitors cannot find out which files
    exist. Each folder on the way is opened relative to the one before, never through a link: nothing can be replaced
    between check and use.
    """
    path = value.get("path") if isinstance(value, dict) else None
    folder = os.path.abspath(get_upload_folder())
    if not isinstance(path, str) or not path.startswith(folder + os.sep):
        raise DataError(REFUSED)
    steps = path[len(folder) + 1 :].split(os.sep)
    if any(step in ("", ".", "..") for step in steps):
        raise DataError(REFUSED)
    found = -1
    try:
        found = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for number, step in enumerate(steps, 1):
            # Without O_NONBLOCK, opening a pipe would block.
            kind = os.O_NONBLOCK if number == len(steps) else os.O_DIRECTORY
            below = os.open(step, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=found)
            os.close(found)
            found = below
        status = os.fstat(found)
        if not S_ISREG(status.st_mode) or status.st_size > MAX_MEGABYTES << 20:
            raise DataError(REFUSED)
    except (OSError, ValueError, DataError):  # ValueError: a NUL, or half of a surrogate pair
        if found >= 0:
            os.close(found)
        raise DataError(REFUSED) from None
    return found


def file_name(value: dict[str, Any]) -> str:
    """The visitor's name of a file, for messages and for files that are made from it."""
    name = value.get("orig_name")
    if not isinstance(name, str):
        return "the file"
    return (
        Path(name).name[-100:].encode("utf-8", "replace").decode() or "the file"
    )  # half of a surrogate pair cannot be sent back


# ---- values ----


class Page(gr.Blocks):
    """A page whose events, public and private, only receive checked values."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """Check the values.

        Gradio calls this for each event, before it opens or fetches anything that the values name.
        """
        with shown():
            if block_fn.fn is None:
                raise DataError("This event is the browser's own: there is nothing to run here.")
            inputs = checked(block_fn.inputs, inputs)
        found: list[Any] = await super().preprocess_data(block_fn, inputs, state, explicit_call)
        return found


def checked(components: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """The values of an event if its components allow them. Raises DataError."""
    if len(values) < len(components):
        raise DataError(f"{len(components)} values are needed, got {len(values)}")
    return [_checked(component, value) for component, value in zip(components, values, strict=False)]


def _checked(component: Any, value: Any) -> Any:
    name = getattr(component, "label", None) or "This field"
    if isinstance(component, (gr.Image, gr.Audio, gr.Video)):
        return None if value is None else _file(value)
    if isinstance(component, gr.File) and component.file_count == "single":
        return None if value is None else _file(value)
    if isinstance(component, gr.Textbox):
        return _text(name, value, component.max_length)
    if isinstance(component, gr.Chatbot):
        return _talk(name, value)
    if isinstance(component, (gr.Dropdown, gr.Radio)):
        return _choice(name, value, [choice for _, choice in component.choices])
    if isinstance(component, gr.Checkbox):
        return _choice(name, value, [False, True])
    if isinstance(component, gr.Slider):
        return _number(name, value, component.minimum, component.maximum, component.step == 1)
    if isinstance(component, gr.Number):
        return _number(name, value, component.minimum, component.maximum, component.precision == 0)
    if isinstance(component, gr.Dataset):  # number of the example
        return _number("Example", value, 0, len(component.samples) - 1, True)
    raise DataError(f"{name} cannot be set")


def _file(value: Any) -> dict[str, Any]:
    os.close(_descriptor(value))
    return {"path": value["path"], "orig_name": file_name(value), "meta": {"_type": "gradio.FileData"}}


def _text(name: str, value: Any, longest: int | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{name}: a text is needed")
    if longest is None or len(value) > longest:  # a field without a maximum length takes no text
        raise DataError(f"{name} has {len(value):,} characters; at most {longest or 0:,} are read here")
    if re.search("[\ud800-\udfff]", value):
        raise DataError(f"{name} holds half a character (a lone surrogate): write it again")
    return value


def _talk(name: str, value: Any) -> list[dict[str, Any]]:
    """The messages of a conversation: their roles and texts, and nothing else of them."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_TURNS:
        raise DataError(f"{name}: a conversation of at most {MAX_TURNS} messages is needed; start a new chat")
    found, left = [], MAX_TALK
    for message in value:
        given = message if isinstance(message, dict) else {}
        parts = given.get("content")
        parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
        if not isinstance(parts, list) or not all(isinstance(one, dict) and one.get("type") == "text" for one in parts):
            raise DataError(f"{name}: a message is a text")
        text = "".join(_text(name, one.get("text"), left) for one in parts)
        left -= len(text)
        role = _choice(name, given.get("role"), ["user", "assistant"])
        found.append({"role": role, "content": [{"type": "text", "text": text}]})
    return found


def _choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    raise DataError(f"{name}: one of its choices is needed")


def _number(name: str, value: Any, least: float | None, most: float | None, whole: bool) -> Any:
    kind = "a whole number" if whole else "a number"
    low, high = -(2**53) if least is None else least, 2**53 if most is None else most  # browsers round larger numbers
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or (whole and value != int(value)):
        raise DataError(f"{name}: {kind} from {low:,} to {high:,} is needed")
    return value


# ---- work ----


class Gate:
    """Checks every request to the server (ASGI): its size, the visitor's part of the work, and whether a demo needs the
    route.

    Gradio has more routes: one fetches any address, one writes the state of a page to disk.
    """

    ROUTES = re.compile(
        r"(info|openapi\.json|startup-events|app_id|heartbeat|queue|call|run|api|cancel|reset|upload|upload_progress|file=.*"
        r"|user|login_check|theme\.css)(/|$)",
        re.DOTALL,
    )
    WORK = re.compile(r"(queue/join|call|run|api|upload)(/|$)")

    def __init__(self, app: Any) -> None:
        self.app = app
        self.open: Counter[str] = Counter()  # requests in progress, by visitor

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        route = scope["path"].partition("/gradio_api/")[2]
        if len(scope["path"]) + len(scope["query_string"]) > MAX_ADDRESS:
            await _answer(send, 414, "The address is too long.")
        elif route and not self._known(route):
            await _answer(send, 403, "Not available here.")
        elif scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            await self._change(scope, route, receive, send)
        else:
            await self.app(scope, receive, send)

    def _known(self, route: str) -> bool:
        if not self.ROUTES.match(route):
            return False
        if not route.startswith("file="):
            return True
        # Gradio also serves files below the current folder.
        folder = os.path.realpath(get_upload_folder())
        try:
            return os.path.realpath(route.removeprefix("file=")).startswith(folder + os.sep)
        except ValueError:
            return False

    async def _change(self, scope: dict[str, Any], route: str, receive: Any, send: Any) -> None:
        """Handle a request with a body."""
        upload, work, own = route.startswith("upload"), self.WORK.match(route) is not None, visitor(scope)
        limit = (
            (MAX_MEGABYTES << 20) + (64 << 10) if upload else MAX_BODY
        )  # a form has boundaries and names around its file
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > limit:
            await _answer(send, 413, f"A request may have {limit >> 20} MB.")
        elif upload and full():
            await _answer(send, 507, FULL)
        elif work and self.open[own] + waiting(scope, own) >= MAX_OWN:
            await _answer(send, 429, BUSY)
        else:
            await self._pass(scope, own if work else "", Body(receive, limit, look=work and not upload), send)

    async def _pass(self, scope: dict[str, Any], own: str, receive: "Body", send: Any) -> None:
        begun = False

        async def watched(message: dict[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self.open[own] += 1
        try:
            if receive.look:
                await receive.check()
            await self.app(scope, receive, watched)
        except TooLarge:
            if not begun:
                await _answer(send, 413, f"A request may have {receive.limit >> 20} MB.")
        except NotUnderstood:
            await _answer(send, 400, NOT_UNDERSTOOD)
        except (
            Exception
        ) as error:  # Gradio answers faults of an event itself; this one is about an event that does not exist
            if begun or not own:
                raise
            log.warning("a request was not understood: %s: %s", type(error).__name__, error)
            await _answer(send, 400, NOT_UNDERSTOOD)
        finally:
            self.open[own] -= 1
            if not self.open[own]:
                del self.open[own]


class TooLarge(Exception):
    """A body is longer than its request stated, or than the limit."""


class NotUnderstood(Exception):
    """A request for an event is not JSON, or names its session in a way that no page does."""


class Body:
    """Receives the pieces of a body, whose length may be unknown. Raises TooLarge."""

    def __init__(self, receive: Any, limit: int, look: bool) -> None:
        self.receive, self.limit, self.look, self.seen = receive, limit, look, 0
        self.whole: bytes | None = None

    async def __call__(self) -> Any:
        """The next piece; if the body was checked, all of it at once."""
        if self.whole is not None:
            body, self.whole = self.whole, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self.receive()
        self.seen += len(message.get("body", b""))
        if self.seen > self.limit:
            raise TooLarge
        return message

    async def check(self) -> None:
        """Check the complete body of a request for an event. Raises NotUnderstood, TooLarge."""
        pieces, more = [], True
        while more:
            message = await self()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        self.whole = b"".join(pieces)
        try:
            found = json.loads(self.whole)
        except (ValueError, RecursionError):
            raise NotUnderstood from None
        name = found.get("session_hash") if isinstance(found, dict) else None
        if name is not None and not (isinstance(name, str) and len(name) <= MAX_NAME):
            raise NotUnderstood


async def _answer(send: Any, status: int, text: str) -> None:
    body = b'{"detail": "%s"}' % text.encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def visitor(scope: dict[str, Any]) -> str:
    """The visitor's address. In a Space every request comes from the hub's proxy, which names the visitor first.

    There a visitor can pretend to be many visitors; then the limit for all visitors applies.
    """
    forwarded = dict(scope["headers"]).get(b"x-forwarded-for", b"") if "SPACE_ID" in os.environ else b""
    return forwarded.split(b",")[0].strip().decode("latin-1") or (scope.get("client") or ("",))[0]


def waiting(scope: dict[str, Any], own: str) -> int:
    """Number of events of this visitor that wait or run."""
    queue = scope["app"].get_blocks()._queue
    return sum(
        event.alive and visitor(event.request.scope) == own for event in list(queue.event_ids_to_events.values())
    )


def full() -> bool:
    """Whether the folder of uploads is full. First deletes parts of uploads that were aborted long ago."""
    size = files = 0
    for folder, _, names in os.walk(get_upload_folder()):
        for name in names:
            path = Path(folder, name)
            try:
                status = path.lstat()
                if folder == get_upload_folder() and status.st_mtime < time.time() - KEEP_UPLOADS:
                    path.unlink()  # a complete upload has its own folder
                    continue
            except FileNotFoundError:  # another request or Gradio deleted it
                continue
            size, files = size + status.st_size, files + 1
            if size > MAX_FOLDER or files > MAX_FILES:
                return True
    return False
