"""The cache for what can be computed again: $GRAFT_CACHE, by default ~/.cache/graft."""

import os
import shutil
import socket
from pathlib import Path

import psutil


def cache_root() -> Path:
    return Path(os.environ.get("GRAFT_CACHE") or Path.home() / ".cache" / "graft")


def make_room(folder: Path, limit: float) -> None:
    """Shrink the cache to at most `limit` bytes: remove leftovers of killed runs, then the entries that were unused for
    longest.
    """
    for half in folder.glob(f".*.{socket.gethostname()}.*"):
        if not psutil.pid_exists(int(half.name.rsplit(".", 1)[1])):
            shutil.rmtree(half, ignore_errors=True)
    entries = sorted((p for p in folder.glob("*") if p.is_dir()), key=lambda p: p.stat().st_mtime)
    sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in entries}
    total = sum(sizes.values())
    for entry in entries:
        if total <= limit:
            return
        shutil.rmtree(entry, ignore_errors=True)
        total -= sizes[entry]
