"""Download a model of the hub into the cache.

    folder = download("google/vit-base-patch16-224")

The name of the folder is the commit.
"""

import re
import sys
from fnmatch import fnmatch
from functools import partial
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.errors import ModelError, RecipeError
from pipelines.hub.retry import TIMEOUT, Say, explained, http_error, passing, patiently

# Not needed for PyTorch, or not safe: weights of other frameworks, files of a training, code.
UNUSED = [
    "*.py",
    "*.pyc",
    "*.pkl",
    "*.pickle",
    "*.h5",
    "*.msgpack",
    "*.onnx*",
    "*.tflite",
    "*.ot",
    "*.gguf",
    "*.mlmodel",
    "*.mlpackage/*",
]
UNUSED += [
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "checkpoint-*/*",
    "runs/*",
    "*tfevents*",
    "optimizer.*",
    "scheduler.*",
    "training_args.bin",
]
PICKLED = ["*.bin", "*.pt", "*.pth", "*.ckpt"]  # downloaded only if there are no safetensors
VARIANT = re.compile(
    r"\.(?:fp16|bf16|fp8|int8|fp32|ema|non_ema|ema_only)[.-]"
)  # the same weights in another precision, or without averaging


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def download(model_id: str, revision: str | None = None, say: Say = _to_stderr) -> Path:
    """The folder of a model in the cache (its name is the commit).

    Downloads what is missing; safetensors come before pickles.

    If the hub cannot be reached, the cached copy is used and `say` gets a message. Raises ModelError for an unknown id
    or revision, HubError if the hub fails.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import HFValidationError

    named = f"{model_id} at revision {revision}" if revision else model_id
    missing = (RepositoryNotFoundError, RevisionNotFoundError)
    try:
        try:
            info = HfApi(library_name="graft").model_info(model_id, revision=revision, timeout=TIMEOUT)
        except (OSError, http_error()) as error:
            if isinstance(error, missing) or not (isinstance(error, OfflineModeIsEnabled) or passing(error)):
                raise
            return _cached(model_id, revision, named, error, say)
        unused = UNUSED + unneeded([sibling.rfilename for sibling in info.siblings or []])
        fetch = partial(
            snapshot_download, model_id, revision=revision, ignore_patterns=unused, tqdm_class=_download_bar()
        )
        return Path(patiently(fetch, named, "", say, missing))
    except GatedRepoError as error:
        raise ModelError(
            f"{model_id} is gated: ask for access on its page on the hub, then type `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"no model {model_id!r} on the hub: check the spelling; a private one needs `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{model_id} has no revision {revision!r}: give a branch, a tag or a full commit, or leave it out"
        ) from error
    except HFValidationError as error:
        raise ModelError(f"{model_id!r} is no hub id (owner/name) and no folder here") from error
    except (OSError, http_error()) as error:
        raise explained(error, named, "") from error


def _download_bar() -> Any:
    """The client's bar of the bytes on the disk, on a terminal only, and in the look of Graft's own bars."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **settings: Any) -> None:
            # the client also shows bars of the number of files and of the bytes that the network brings
            shown = settings.get("unit") == "B" and not str(settings.get("name")).endswith("transfer")
            settings["disable"] = settings.get("disable") is True or not shown or not sys.stderr.isatty()
            settings |= {"desc": "  download", "ncols": 79, "leave": False}
            settings["bar_format"] = "{desc} {bar:16} {n_fmt}B/{total_fmt}B  {rate_fmt}  {remaining} left"
            start: Any = super().__init__
            start(*args, **settings)

        def set_description_str(self, desc: str | None = None, refresh: bool | None = True) -> None:
            """Keep the short description."""

        set_description = set_description_str

    return Bar


def unneeded(names: list[str]) -> list[str]:
    """Patterns of the weights that a repository holds twice.

    For a diffusers pipeline this is decided per folder: each part may have its own formats and precisions.
    """
    if "model_index.json" not in names:
        return PICKLED if any(name.endswith(".safetensors") for name in names) else []
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for name in names:
        if _any(name, ["*.safetensors", *PICKLED]) and not _any(name, UNUSED):
            folders.setdefault(PurePosixPath(name).parent, []).append(PurePosixPath(name))
    # the weights of the pipeline in one file, for other tools
    found = folders.pop(PurePosixPath(), []) if len(folders) > 1 else []
    for weights in folders.values():
        plain = [one for one in weights if one.suffix == ".safetensors" and not VARIANT.search(one.name)]
        found += [one for one in weights if one not in plain] if plain else []
    return [escape(str(one)) for one in found]


def _any(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _cached(model_id: str, revision: str | None, named: str, problem: Exception, say: Say) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(model_id, revision=revision, ignore_patterns=UNUSED + PICKLED, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        why = explained(problem, named, "")
        raise type(why)(f"{why}; {named} is not in the cache") from problem
    say(f"the hub cannot be asked: {named} comes from the cache (commit {folder.name[:8]})")
    return folder


def download_metric(repo_id: str, commit: str, say: Say = _to_stderr) -> Path:
    """The folder of the code of a metric module (a Space of the hub) at exactly this commit, from the cache if it is
    there.

    The `evaluate` library would report the download to another server. Without the hub it would run any cached commit
    of the module. Raises RecipeError for an unknown id or commit, HubError if the hub fails.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    named = f"{repo_id} at commit {commit}"
    fetch = partial(snapshot_download, repo_id, repo_type="space", revision=commit, allow_patterns=["*.py"])
    missing = (RepositoryNotFoundError, RevisionNotFoundError)
    try:
        found = Path(fetch(local_files_only=True))
        if (found / f".graft-complete-{commit}").is_file():  # a killed download leaves some of the files
            return found
        say(f"{named} is in the cache in part: it is downloaded again")
    except LocalEntryNotFoundError:
        say(f"{named} is downloaded, to be run as a metric")
    except HFValidationError as error:
        raise RecipeError(f"metrics: {repo_id!r} is no id of the hub (owner/name)") from error
    try:
        HfApi(library_name="graft").space_info(
            repo_id, revision=commit, timeout=TIMEOUT
        )  # else the download would wait minutes for a hub that does not answer
        found = Path(patiently(fetch, named, "", say, missing))
        (found / f".graft-complete-{commit}").touch()
        return found
    except GatedRepoError as error:
        raise RecipeError(
            f"metrics: {repo_id} is gated: ask for access on its page on the hub, then type `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise RecipeError(
            f"metrics: there is no Space {repo_id!r} on the hub (a metric module is one): check the spelling, as in "
            "evaluate-metric/rouge"
        ) from error
    except RevisionNotFoundError as error:
        raise RecipeError(
            f"metrics: {repo_id} has no commit {commit}: copy it from its page (Files, History)"
        ) from error
    except (OSError, http_error()) as error:
        raise explained(error, named, "") from error
