"""Repeat requests while the hub fails, and explain its failures in one line."""

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pipelines.errors import HubError, HubUnreachable

Result = TypeVar("Result")
Say = Callable[[str], Any]

TIMEOUT = 10  # seconds to wait for the answer to a question, such as whether a model exists
WAITS = (1, 2, 4, 8)  # seconds before each repetition


def http_error() -> type[Exception]:
    """The base class of all errors of the client's HTTP library, which depends on the client's version."""
    from huggingface_hub import errors

    return errors.HTTPError


def patiently(
    action: Callable[[], Result], about: str, user: str, say: Say, through: tuple[type[Exception], ...] = ()
) -> Result:
    """Call `action`, and repeat it after each of WAITS while the hub fails. `action` must be safe to repeat.

    The client repeats some requests itself, but not the creation of a repository and not a commit. Raises HubError.
    """
    for wait in (*WAITS, None):
        try:
            return action()
        except through:
            raise
        except (OSError, RuntimeError, ValueError, http_error()) as error:  # the client wraps errors of its threads
            problem = explained(error, about, user)
            if wait is None or not passing(error):
                raise problem from error
        say(f"{problem}; trying again in {wait} s")
        time.sleep(wait)
    raise AssertionError("unreachable")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def passing(error: Exception) -> bool:
    """Whether the error may pass: no connection, a failing or busy server, or a repository that somebody else just
    changed.
    """
    from huggingface_hub.errors import HfHubHTTPError

    for cause in _chain(error):
        if isinstance(cause, HfHubHTTPError):
            return cause.response.status_code in (408, 412, 429) or cause.response.status_code >= 500
        if isinstance(cause, http_error()):
            return True
    return False


def explained(error: Exception, about: str, user: str) -> HubError:
    """The failure of the client, explained in one line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return HubError(f"no room left on the disk for {about}: free some, or set HF_HOME to a folder on another disk")
    hub = constants.ENDPOINT
    for cause in _chain(error):
        if isinstance(cause, OfflineModeIsEnabled):
            return HubUnreachable("HF_HUB_OFFLINE is set: unset it to reach the hub")
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            says = f"{status}: {' '.join((cause.server_message or 'no reason given').split())}"
            if status == 401:
                return HubError(
                    f"the hub does not accept the token ({says}): make one on {hub}/settings/tokens and type `hf auth "
                    "login`"
                )
            if status == 403:
                own = f"publish to {user}/..., or " if user else ""
                return HubError(f"no right to write to {about} ({says}): {own}use a token with the write role")
            if status >= 500 or status == 429:
                return HubError(f"the hub fails at {about} ({says}); try again later: what was sent is not sent twice")
            return HubError(f"the hub refuses {about} ({says})")
        if isinstance(cause, http_error()):
            return HubUnreachable(
                f"the hub at {hub} cannot be reached ({str(cause) or type(cause).__name__}): check the network"
            )
    return HubError(f"{about}: {' '.join(str(error).split())}")
