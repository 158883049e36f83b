"""A model's hub id -> its folder in the cache.

    folder = download("google/vit-base-patch16-224")

The folder's name is the commit.
"""

import sys
from functools import partial
from pathlib import Path

from pipelines.errors import HubError, ModelError
from pipelines.patience import Say, explained, http_error, passing, patiently

# Not needed to load a model into PyTorch, or not safe: other frameworks' weights, leftovers of training, code.
UNUSED = ["*.py", "*.pyc", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.onnx*", "*.tflite", "*.ot", "*.gguf", "*.mlmodel", "*.mlpackage/*"]
UNUSED += ["onnx/*", "openvino/*", "coreml/*", "checkpoint-*/*", "runs/*", "*tfevents*", "optimizer.*", "scheduler.*", "training_args.bin"]
PICKLED = ["*.bin", "*.pt", "*.pth", "*.ckpt"]  # only where there are no safetensors


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def download(model_id: str, revision: str | None = None, say: Say = _to_stderr) -> Path:
    """The folder of a model repo in the cache (its name is the commit), downloaded where needed, safetensors before pickles.

    Without the hub the cached copy serves, and `say` hears of it. Raises ModelError for an unknown id or revision, HubError.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import HFValidationError

    named = f"{model_id} at revision {revision}" if revision else model_id
    missing = (RepositoryNotFoundError, RevisionNotFoundError)
    try:
        try:
            info = HfApi(library_name="graft").model_info(model_id, revision=revision, timeout=30)
        except (OSError, http_error()) as error:
            if isinstance(error, missing) or not (isinstance(error, OfflineModeIsEnabled) or passing(error)):
                raise
            return _cached(model_id, revision, named, error, say)
        safe = any(sibling.rfilename.endswith(".safetensors") for sibling in info.siblings or [])
        names = [sibling.rfilename for sibling in info.siblings or []]
        unused = UNUSED + (PICKLED if safe else []) + (_beside_pipeline(names) if "model_index.json" in names else [])
        fetch = partial(snapshot_download, model_id, revision=revision, ignore_patterns=unused)
        return Path(patiently(fetch, named, "", say, missing))
    except GatedRepoError as error:
        raise ModelError(f"{model_id} is gated: ask for access on its page on the hub, then type `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"no model {model_id!r} on the hub: check the spelling; a private one needs `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{model_id} has no revision {revision!r}: give a branch, a tag or a full commit, or leave it out") from error
    except HFValidationError as error:
        raise ModelError(f"{model_id!r} is no hub id (owner/name) and no folder here") from error
    except (OSError, http_error()) as error:
        raise explained(error, named, "") from error


def _beside_pipeline(names: list[str]) -> list[str]:
    """Of a diffusers repo: the same weights in other precisions, and in one file for other tools, where each part has its own folder."""
    whole = [name for name in names if "/" not in name and name.endswith((".safetensors", ".bin", ".ckpt"))]
    parts = any("/" in name and name.endswith((".safetensors", ".bin")) for name in names)
    return ["*.fp16.*", "*.bf16.*", "*.non_ema.*", *(whole if parts else [])]


def _cached(model_id: str, revision: str | None, named: str, problem: Exception, say: Say) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model_id, revision=revision, ignore_patterns=UNUSED + PICKLED, local_files_only=True))
    except LocalEntryNotFoundError:
        why = explained(problem, named, "")
        raise HubError(f"{why}; {named} is not in the cache") from problem
    say(f"the hub cannot be asked: {named} comes from the cache (commit {folder.name[:8]})")
    return folder
