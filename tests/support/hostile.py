"""A visitor with bad intentions, who sends values over HTTP that the page of a demo would never send."""

import json
import os
import struct
import uuid
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from PIL import Image

REFUSED = "This file cannot be used. Upload one file of at most 20 MB."
SECRET = "the-secret-of-the-server"
MISSING = object()


class Answer(NamedTuple):
    """The answer of an event: `data` if it ran, otherwise `error`."""

    status: int
    data: Any
    error: str | None
    text: str  # the complete response


class Demo:
    """A served demo, as its own page sees it."""

    def __init__(self, url: str) -> None:
        self.url, self.api = url, f"{url.rstrip('/')}/gradio_api/"
        self.http = httpx.Client(timeout=60, trust_env=False)
        config = self.http.get(f"{url.rstrip('/')}/config").json()
        self.components = {one["id"]: one for one in config["components"]}
        self.events: list[dict[str, Any]] = config["dependencies"]

    def kinds(self, event: dict[str, Any]) -> list[str]:
        """The types of an event's inputs."""
        return [self.components[one]["type"] for one in event["inputs"]]

    def usual(self, event: dict[str, Any]) -> list[Any]:
        """Values that the page would send: texts for empty fields, and the first example."""
        first = {"textbox": "the song was [MASK] by ada", "dataset": 0}
        values = [self.components[one]["props"].get("value") for one in event["inputs"]]
        return [
            self.components[one]["props"]["minimum"]
            if kind == "slider"
            else first.get(kind)
            if value in (None, "")
            else value
            for one, kind, value in zip(event["inputs"], self.kinds(event), values, strict=True)
        ]

    def upload(self, path: Path, name: str | None = None) -> dict[str, Any]:
        """Upload a file as the page does, and return what the page then sends for it."""
        answer = self.http.post(f"{self.api}upload", files={"files": (name or path.name, path.read_bytes())})
        assert answer.status_code == 200, answer.text
        return {"path": answer.json()[0], "orig_name": name or path.name, "meta": {"_type": "gradio.FileData"}}

    def ask(self, event: dict[str, Any], data: list[Any]) -> Answer:
        """Send one event, through the queue if the page would use it."""
        session = uuid.uuid4().hex
        # NaN and infinity are sent literally, as a client may do
        body = json.dumps({"data": data, "fn_index": event["id"], "session_hash": session})
        if event["queue"] is False:
            return read_answer(self.http.post(f"{self.api}run/x", content=body, headers=JSON))
        joined = self.http.post(f"{self.api}queue/join", content=body, headers=JSON)
        if joined.status_code != 200:
            return read_answer(joined)
        text = ""
        with self.http.stream("GET", f"{self.api}queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                text += line
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    output = message["output"]
                    return Answer(200 if message["success"] else 500, output.get("data"), output.get("error"), text)
        raise AssertionError(f"no answer: {text}")


JSON = {"content-type": "application/json"}


def read_answer(answer: httpx.Response) -> Answer:
    found = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    return Answer(answer.status_code, found.get("data"), found.get("error") or found.get("detail"), answer.text)


# ---- files that are not the visitor's ----


def places(uploads: Path, outside: Path) -> dict[str, Any]:
    """Values for a file field, none of which is an upload. Creates links, a pipe and a folder among the uploads."""
    secret = outside / "secret.png"
    Image.effect_noise((64, 64), 90).save(secret)
    (outside / "secret.wav").write_bytes(SECRET.encode())
    trap, folder = uploads / "trap", uploads / "trap" / "folder.png"
    folder.mkdir(parents=True)
    (trap / "link.png").symlink_to(secret)
    (trap / "device.png").symlink_to("/dev/zero")
    (trap / "linked").symlink_to(outside)
    (trap / "inside.png").symlink_to(trap / "own.png")
    Image.new("RGB", (9, 9)).save(trap / "own.png")
    os.mkfifo(trap / "pipe.png")
    os.mkfifo(outside / "pipe.png")
    large = trap / "large.png"
    large.touch()
    os.truncate(large, (20 << 20) + 1)
    meta = {"meta": {"_type": "gradio.FileData"}}
    url = {"url": f"http://127.0.0.1:9/{SECRET}.png"}
    deep: Any = {"path": str(secret)}
    for _ in range(200):
        deep = {"path": deep, "meta": deep}
        deep = {"path": str(secret), "inner": [deep["path"]]}
    return {
        "a path without meta": {"path": str(secret)},
        "a path with meta": {"path": str(secret), **meta},
        "no such file": {"path": str(outside / "nothing.png")},
        "no such file, with meta": {"path": str(outside / "nothing.png"), **meta},
        "a relative path": {"path": os.path.relpath(secret), **meta},
        "a path through uploads": {"path": f"{uploads}/../{os.path.relpath(secret, uploads.parent)}", **meta},
        "a path with empty steps": {"path": f"{uploads}//trap/./own.png", **meta},
        "a link": {"path": str(trap / "link.png"), **meta},
        "a link to an upload": {"path": str(trap / "inside.png"), **meta},
        "a linked folder": {"path": str(trap / "linked" / "secret.png"), **meta},
        "a device": {"path": "/dev/zero"},
        "a linked device": {"path": str(trap / "device.png"), **meta},
        "a pipe": {"path": str(trap / "pipe.png"), **meta},
        "a pipe outside": {"path": str(outside / "pipe.png")},
        "a folder": {"path": str(folder), **meta},
        "the uploads": {"path": str(uploads), **meta},
        "what another visitor might have": {"path": str(uploads / ("0" * 64) / "photo.png"), **meta},
        "a large file": {"path": str(large), **meta},
        "an address": {"path": "http://127.0.0.1:9/x.png", **meta},
        "an address without meta": {"path": "https://127.0.0.1:9/x.png"},
        "an address of a file": {"path": f"file://{secret}", **meta},
        "data in the path": {"path": "data:image/png;base64,iVBORw0KGgo=", **meta},
        "data in the url": {"url": "data:image/png;base64,iVBORw0KGgo=", **meta},
        "a url": url,
        "a url and a path": {"path": str(secret), **url, **meta},
        "a proxy": {"path": str(secret), "url": f"/gradio_api/proxy=http://127.0.0.1:9/{SECRET}", **meta},
        "a stream": {"path": str(secret), "is_stream": True, **meta},
        "a text": str(secret),
        "a list": [{"path": str(secret)}],
        "a dictionary in a dictionary": {"path": {"path": str(secret)}, **meta},
        "a deep dictionary": deep,
        "a path that is a number": {"path": 3, **meta},
        "a path that is none": {"path": None, **meta},
        "no path": {},
        "a number": 10**400,
        "not a number": float("nan"),
        "true": True,
        "a NUL": {"path": f"{uploads}/trap/own.png\0.png", **meta},
        "half a character": {"path": f"{uploads}/\ud800.png", **meta},
        "a long path": {"path": f"{uploads}/" + "x" * 100_000, **meta},
        "a state": {
            "path": str(secret),
            "meta": {"_type": "gradio.FileData", "more": deep},
            "orig_name": deep,
            "size": -1,
        },
    }


def wrong_values() -> dict[str, Any]:
    """Values for fields of other kinds."""
    return {
        "none where a number is needed": MISSING,
        "a list": ["a"],
        "a dictionary": {"path": "/etc/passwd"},
        "a file": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        "not a number": float("nan"),
        "infinity": float("inf"),
        "less than nothing": float("-inf"),
        "a huge number": 10**30,
        "a huge negative number": -(10**30),
        "a huge real number": 1e300,
        "a long text": "x" * 100_000,
        "half a character": "a \ud800",
        "a nested list": json.loads("[" * 300 + "]" * 300),
    }


# ---- files with false headers, and files that unpack to very much ----


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, body: bytes = b"") -> bytes:
    """A PNG of 8-bit grey. Without a `body`, it holds only a header that claims its size."""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return start + b"".join(extra) + chunk(b"IDAT", body or zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def zeros(megabytes: int) -> bytes:
    """So many bytes, packed to a thousandth."""
    packer = zlib.compressobj(1)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(megabytes)), packer.flush()])


def small_png(*extra: bytes) -> bytes:
    return png(64, 64, *extra, body=zlib.compress(bytes([0, *range(0, 256, 4)]) * 64))


def image_bombs() -> dict[str, tuple[bytes, str]]:
    """Name -> the file, and words of its refusal, or none if it can be read."""
    large = zeros(500)
    return {
        "50000.png": (png(50_000, 50_000), "2500000000 pixels"),
        "5000.png": (png(5000, 5000), "5000 x 5000 pixels, at most 20,000,000"),
        "thin.png": (png(1_000_000, 1), "one side may be at most 250 times"),
        "text.png": (small_png(chunk(b"zTXt", b"comment\0\0" + large)), ""),
        "itext.png": (small_png(chunk(b"iTXt", b"comment\0\1\0\0\0" + large)), ""),
        "profile.png": (small_png(chunk(b"iCCP", b"icc\0\0" + large)), ""),
        "texts.png": (small_png(*[chunk(b"zTXt", b"c%d\0\0" % n + zeros(1)) for n in range(200)]), ""),
        "50000.gif": (
            b"GIF89a" + struct.pack("<HHBBB", 50_000, 50_000, 0, 0, 0) + b"," + bytes(20) + b";",
            "2500000000 pixels",
        ),
        "program.eps": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/tmp/x) (w) file\n",
            "not a readable image",
        ),
    }


def wav(
    rate: int = 16000, claimed: int | None = None, channels: int = 1, samples: bytes = b"\x10\x20" * 16000
) -> bytes:
    """A WAV of 16 bits; `claimed` is the length in bytes that its header gives."""
    size = len(samples) if claimed is None else claimed
    form = struct.pack("<HHIIHH", 1, channels, rate, min(rate * 2 * channels, 2**32 - 1), 2 * channels, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
        + samples
    )


def flac(seconds: float, rate: int, channels: int, claimed: int, folder: Path) -> bytes:
    """A tone that packs well, with a header that claims `claimed` samples."""
    import numpy as np
    import soundfile

    path = folder / "silence.flac"
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
        for _ in range(max(1, round(seconds))):
            file.write(np.tile([[0.1], [-0.1]], (round(rate * min(seconds, 1)) // 2, channels)))
    data = bytearray(path.read_bytes())
    data[21:26] = (
        bytes([data[21] & 0xF0 | claimed >> 32, *struct.pack(">I", claimed & 0xFFFFFFFF)]) if claimed else data[21:26]
    )
    return bytes(data)


def audio_bombs(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Name -> the file, and words of its refusal."""
    hours = 8 * 3600 * 16000
    return {
        "hours.wav": (wav(claimed=2 * hours), "was cut off"),
        "hours.flac": (flac(1, 16000, 1, hours, folder), "8.0 hours, at most 4"),
        "an_hour.flac": (flac(1, 16000, 1, hours // 8, folder), "60.0 minutes, at most 10"),
        "wide.flac": (flac(30, 192000, 8, 0, folder), ""),
        "fast.wav": (wav(rate=2_000_000), "2,000,000 samples a second, at most 768,000"),
        "faster.wav": (wav(rate=4_000_000_000), "not readable audio"),
        "slow.wav": (wav(rate=1), "1 samples a second, at least 1,000"),
    }


# ---- the server ----


def memory(process: int) -> tuple[int, int]:
    """MB that a process uses, and its peak since `forget_peak`."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("Vm")
    )
    now, peak = (int(lines[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def forget_peak(process: int) -> None:
    Path(f"/proc/{process}/clear_refs").write_text("5")
