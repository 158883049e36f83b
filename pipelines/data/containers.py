"""Files that PyAV (FFmpeg) reads: their container by the first bytes, and a way to open them that a file cannot abuse.

A hostile file must not choose what FFmpeg does with it. So the first bytes choose the container, never the suffix;
playlists are never opened; no other file and no network is read; and the caller names the codecs that are decoded.
"""

import importlib.metadata
import importlib.util
import io
import os
from pathlib import Path
from typing import Any

START = 400  # bytes that `container_of` needs: a transport stream shows itself by every 188th byte
_MP4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # the second word of a file of QuickTime's family
_MARKS = (
    ("matroska", b"\x1a\x45\xdf\xa3"),  # webm, too
    ("gif", b"GIF8"),
    ("mpeg", b"\x00\x00\x01\xba"),
    ("flv", b"FLV\x01"),
    ("asf", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    ("ogg", b"OggS"),
)
_PACKET = 188  # bytes of a packet of a transport stream


def container_of(start: bytes) -> str | None:
    """The container of a file with these first bytes, as FFmpeg calls it; None for all others."""
    if start[4:8] in _MP4:
        return "mp4"
    if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
        return "avi"
    for name, mark in _MARKS:
        if start.startswith(mark):
            return name
    if start[:1] == b"G" and start[_PACKET : _PACKET + 1] == b"G" and start[2 * _PACKET : 2 * _PACKET + 1] == b"G":
        return "mpegts"
    return None


def can_be_read() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def version() -> str:
    """The version of PyAV; empty if it is not installed."""
    return importlib.metadata.version("av") if can_be_read() else ""


def opened(source: str | Path | bytes | io.BytesIO, container: str, codecs: str, **more: str) -> Any:
    """Open a file, or bytes, as this container. FFmpeg decodes only the `codecs` (names with commas between them).

    `more` are further options of FFmpeg. Raises the errors of PyAV.
    """
    import av

    if isinstance(source, io.BytesIO):
        source = source.getvalue()
    # a name with `:` in it must not be read as a protocol
    place = io.BytesIO(source) if isinstance(source, bytes) else f"file:{os.path.abspath(source)}"
    options = {"codec_whitelist": codecs, "protocol_whitelist": "file", "enable_drefs": "0", **more}
    return av.open(place, format=container, options=options, metadata_errors="ignore")


def is_cover(stream: Any) -> bool:
    """Whether a stream of pictures is the cover of an album, which is one frame."""
    return bool(stream.disposition & stream.disposition.attached_pic)
