"""Where a model or a data set is: on this disk, in the cache of the hub's client, or on the hub.

`check` finds a misspelt name before anything is imported, downloaded or written.
"""

import os
from pathlib import Path

from pipelines.errors import DataError, GraftError, HubError, HubUnreachable, ModelError
from pipelines.hub.retry import TIMEOUT, explained, http_error
from pipelines.utils.files import did_you_mean, problem
from pipelines.utils.formatting import short

# Suffixes that a hub id does not have.
SUFFIXES = (
    *(".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".md", ".xml", ".zip"),
    *(".jpg", ".jpeg", ".png", ".wav", ".flac", ".mp3", ".gz", ".bz2", ".xz", ".zst", ".yaml", ".yml", ".safetensors"),
)
TORCHVISION = "torchvision/"  # begins the name of an architecture of torchvision, which is on no hub
LIBREYOLO = "libreyolo/"  # likewise, of libreyolo
SMP = "smp/"  # likewise, of segmentation-models-pytorch, with its encoder: smp/unet/resnet34
VIDEO_FEATURES = "video-features/"  # likewise, of Graft: a network that reads features of videos
WHAT = {"model": ("folder", "model", ModelError), "data": ("file or folder", "data set", DataError)}


def looks_local(place: str) -> bool:
    """Whether a name can only be a path: it begins or ends as one, has more parts than a hub id, or has a suffix."""
    path = place.startswith((".", "/", "~", "runs/")) or place.endswith("/") or place.count("/") > 1
    return path or Path(place).suffix.lower() in SUFFIXES


def check(place: str, kind: str, *, local: bool = False, advice: str = "") -> None:
    """Raise an error if a `model` or `data` of this name is neither on this disk nor in the cache nor on the hub.

    The hub is asked only for a name that may be an id and is not in the cache. With `local`, it is never asked. Raises
    ModelError or DataError; HubUnreachable if the hub is needed and does not answer.
    """
    here, there, wrong = WHAT[kind]
    if kind == "model" and place.startswith((TORCHVISION, LIBREYOLO, SMP, VIDEO_FEATURES)):
        return
    if problem(place) or Path(place).expanduser().exists():
        return  # an impossible name has an error of its own
    shown, near = short(place, 200), did_you_mean(place)
    if local or looks_local(place):
        raise wrong(f"no such {here}: {shown}{near}{advice}")
    if _in_the_cache(place, kind):
        return
    found = _on_the_hub(place, kind)
    if found is None:
        raise wrong(f"no {here} {shown!r} here{near}, and it is no hub id (owner/name){advice}")
    if isinstance(found, HubUnreachable):
        unknown = wrong if near else HubUnreachable
        raise unknown(f"no {here} {shown!r} here{near}; no {there} of that name is in the cache, and {found}")
    if isinstance(found, GraftError):
        return  # a failing hub is asked again when it is needed, with more patience
    if not found:
        if "/" in place and not near:
            raise wrong(
                f"no {there} {shown!r} on the hub, and no such {here} here: check the spelling; a private one needs "
                "`hf auth login`"
            )
        raise wrong(f"no {here} {shown!r} here{near}, and no {there} of that name on the hub{advice}")


def _in_the_cache(place: str, kind: str) -> bool:
    from huggingface_hub import constants

    name = place.replace("/", "--")
    folder = Path(constants.HF_HUB_CACHE) / f"{'models' if kind == 'model' else 'datasets'}--{name}"
    if kind == "data":  # the datasets library has a cache of its own
        own = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
        if (own / place.replace("/", "___")).is_dir():
            return True
    return (folder / "snapshots").is_dir()


def _on_the_hub(place: str, kind: str) -> bool | HubError | None:
    """Whether the hub has it, or why the hub cannot say so. None: no hub has names such as this one."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.utils import HFValidationError

    api = HfApi(library_name="graft")
    try:
        (api.model_info if kind == "model" else api.dataset_info)(place, timeout=TIMEOUT)
    except GatedRepoError:
        return True
    except RepositoryNotFoundError:
        return False
    except HFValidationError:
        return None
    except (OSError, http_error()) as error:
        failure = explained(error, place, "")
        # a hub that is slow for a moment is asked again, with more patience, when the model or data are needed
        return HubError(str(failure)) if "Timeout" in type(error).__name__ else failure
    return True
