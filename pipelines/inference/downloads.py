"""Download the images and recordings that a user of `graft predict` names by URL.

Only http and https are read, also after a redirect. Size, time and the number of redirects are limited. The caller
decodes the contents as those of any other file, so a page in place of an image is an error of the decoder. Any host is
allowed, also one of this machine, because the person who typed the URL may read it anyway: nothing that serves others,
such as a demo, may call this module.
"""

import time
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from pipelines.errors import DataError
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    import httpx

SCHEMES = ("http", "https")
MOST_BYTES = 100_000_000
MOST_REDIRECTS = 5
PATIENCE = 20.0  # seconds without an answer
LONGEST = 120.0  # seconds of one download


def is_url(text: str) -> bool:
    """Whether a text begins as a URL of any scheme."""
    scheme, colon, _ = text.partition("://")
    return bool(colon) and scheme.isascii() and scheme.replace("+", "").replace("-", "").isalnum()


def check(url: str) -> None:
    """Raise DataError unless it is an http or https URL with a host."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise DataError(f"{short(url, 200)}: not a URL: {error}") from None
    if parts.scheme.lower() not in SCHEMES:
        raise DataError(
            f"{short(url, 200)}: {short(parts.scheme)}:// is not read: give a URL with http or https, or a file"
        )
    if not host:
        raise DataError(f"{short(url, 200)}: a URL without a host")


def download(url: str, path: Path) -> None:
    """Write what a URL holds to a new file. Raises DataError naming the URL."""
    import httpx

    name, place, until = short(url, 200), url, time.monotonic() + LONGEST
    try:
        with httpx.Client(timeout=PATIENCE, follow_redirects=False, headers={"Accept-Encoding": "identity"}) as client:
            for _ in range(MOST_REDIRECTS + 1):
                check(place)
                with client.stream("GET", place) as response, path.open("wb") as file:
                    if response.has_redirect_location:
                        place = str(response.url.join(response.headers["location"]))
                        if urlsplit(place).scheme not in SCHEMES:
                            raise DataError(f"{name}: leads to {short(place, 100)}: only http and https are followed")
                        continue
                    if not response.is_success:
                        raise DataError(f"{name}: the server answered {response.status_code} {response.reason_phrase}")
                    _save(response, file, name, until)
                    return
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = f"no answer in {PATIENCE:g} s" if isinstance(error, httpx.TimeoutException) else str(error)
        raise DataError(f"{name}: cannot be read: {why or type(error).__name__}") from None
    raise DataError(f"{name}: more than {MOST_REDIRECTS} redirects")


def _save(response: "httpx.Response", file: IO[bytes], name: str, until: float) -> None:
    stated = response.headers.get("content-length", "")
    size = int(stated) if stated.isdecimal() else 0
    if size <= MOST_BYTES:
        size = 0
        # raw bytes: a small answer may be compressed, and then be of any size
        for block in response.iter_raw(1 << 16):
            size += len(block)
            if size > MOST_BYTES:
                break
            if time.monotonic() > until:
                raise DataError(f"{name}: not complete after {LONGEST:g} s: download it, and give the file")
            file.write(block)
    if size > MOST_BYTES:
        raise DataError(f"{name}: larger than {MOST_BYTES / 1e6:g} MB: download it, and give the file")
    if not size:
        raise DataError(f"{name}: the server answered with nothing")
