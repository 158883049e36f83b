"""Digests of the contents of files, which find equal images and recordings.

Each file is read once. If there are many, their digests are kept in $GRAFT_CACHE/digests, so that the next command
reads only files that changed: a kept digest counts for a path with the same size and the same times of change.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG

from pipelines.utils.cache import cache_root, identity_of
from pipelines.utils.progress import preparing

KEPT_FROM = 1000  # files; fewer are read again, because a kept list of them would save no second
_AT_ONCE = 64  # files that a thread reads before it hands over their digests
_KEY, _DIGEST = 16, 64  # bytes
_MOST = 2_000_000  # digests in memory

_known: dict[bytes, bytes] = {}  # by path, size and times: several splits and several scores may use the same file


def of_file(path: str) -> bytes:
    """The digest of a file; empty if it cannot be read."""
    return _of_some([path])[0][0]


def of_files(paths: Sequence[str]) -> list[bytes]:
    """The digest of each file, in order; empty if it cannot be read, which is reported when its row is used."""
    if len(_known) > _MOST:
        _known.clear()
    store = _store(paths) if len(paths) >= KEPT_FROM else None
    if store is not None:
        _known.update(_load(store))
    chunks = [paths[at : at + _AT_ONCE] for at in range(0, len(paths), _AT_ONCE)]
    digests: list[bytes] = []
    new: dict[bytes, bytes] = {}
    with ThreadPoolExecutor(8) as pool, preparing("comparing files by their contents", len(paths)) as report:
        for some, found in pool.map(_of_some, chunks):
            digests += some
            new.update(found)
            report(len(some))
    if store is not None and new:
        _save(store, new, len(paths))
    return digests


def _of_some(paths: Sequence[str]) -> tuple[list[bytes], dict[bytes, bytes]]:
    """The digests of some files, and those that are worth to be kept, by their keys."""
    digests: list[bytes] = []
    new: dict[bytes, bytes] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            digests.append(b"")
            continue
        if not S_ISREG(status.st_mode):
            digests.append(b"")
            continue
        known = identity_of(status)
        times = "".join(f"\0{part}" for part in known)
        key = hashlib.blake2b(f"{os.path.abspath(path)}{times}".encode("utf-8", "surrogateescape"), digest_size=_KEY)
        name = key.digest()
        digest = _known.get(name)
        if digest is None:
            digest = _read(path)
            _known[name] = digest
            if digest and known.settled:
                new[name] = digest
        digests.append(digest)
    return digests, new


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError:
        return b""


# ---- kept between commands ----


def _store(paths: Sequence[str]) -> Path:
    """The file for the digests of files below the folder that holds all of these."""
    folder = os.path.commonpath([os.path.abspath(min(paths)), os.path.abspath(max(paths))])
    name = hashlib.blake2b(folder.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    return cache_root() / "digests" / name


def _load(store: Path) -> dict[bytes, bytes]:
    try:
        content = store.read_bytes()
    except OSError:  # there is none yet
        return {}
    size = _KEY + _DIGEST
    return {content[at : at + _KEY]: content[at + _KEY : at + size] for at in range(0, len(content) - size + 1, size)}


def _save(store: Path, new: dict[bytes, bytes], used: int) -> None:
    """Write the digests, all or none: several commands may do so at a time. Without room the next one reads."""
    kept = _load(store)
    kept = {**(kept if len(kept) < 4 * used else {}), **new}  # else most are of files that changed or are gone
    with contextlib.suppress(OSError):
        store.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=store.parent)
        with open(handle, "wb") as file:
            file.write(b"".join(part for item in kept.items() for part in item))
        os.replace(name, store)
