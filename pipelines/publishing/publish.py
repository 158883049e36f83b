"""Publish a finished run as a model on the hub, with a Space that serves it.

    publish(Path("runs/pets"), "me/pets", space="me/pets-demo")

All checks that can refuse a run are made before the first byte is sent.
"""

import json
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.config import hub_metadata
from pipelines.errors import HubError, RecipeError
from pipelines.hub.retry import Say, patiently
from pipelines.publishing.privacy import (
    Parcel,
    card_shows_too_much,
    every_file,
    left_out,
    model_files,
    recipe_of,
    refuse_leaks,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi


# files that a repository may hold if a user created it by hand
STARTERS = {".gitattributes", ".gitignore", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "style.css"}
# A repository was published by Graft if it holds all files of one of these sets.
OURS = {  # Spaces of versions up to 0.1 have their code under other names
    "model": ({"results.json", "recipe.yaml"},),
    "space": ({"pipelines/inference/loading.py"}, {"pipelines/weights.py"}),
}
WRITES = {  # what Graft writes into a repository, and may therefore delete there
    "model": re.compile(
        r"[^/]+\.(safetensors|json|jinja)|recipe\.yaml|(vocab|merges)\.txt|(figures|examples|mistakes)/.*"
    ),
    "space": re.compile(r"app\.py|requirements\.txt|pipelines/.*"),
}


def publish(
    run: Path, repo_id: str, *, private: bool = False, space: str | None = None, dry_run: bool = False, say: Say = print
) -> dict[str, Any]:
    """Push a finished run's model to the hub in one commit and, if `space` names one, a Space that serves it.

    Only files that Graft wrote into `model/` are sent; other files there are listed and left out. The repository is
    private if `private` or hub.private of the recipe is true. Repeating the call is safe: unchanged files are not sent,
    and files of Graft that no longer exist here are deleted there. With `dry_run` nothing is sent, and no token is
    needed.

    Returns {"model": report, "space": report or None}. A report has repo_id, url, private, commit (None if nothing
    changed), uploaded and deleted (paths). Raises RunError if the run is not fit to publish, HubError if the hub
    refuses.
    """
    from huggingface_hub import get_token

    run, token = Path(run), get_token()
    _check_id(repo_id)
    files = model_files(run)
    hub = recipe_of(run).get("hub") or {}
    _check_hub(run, hub)
    private = private or bool(hub.get("private"))
    too_much = card_shows_too_much(run, files)
    if too_much or (not dry_run and not _names(files["README.md"], repo_id)):
        from pipelines.publishing.card import write_card

        if too_much:
            say(f"card       written again: the recipe now says `hub.examples: {hub.get('examples') or 0}`")
        write_card(run, repo_id)  # its title and snippet name the repository
        files = model_files(run)
    for line in left_out(run, files):
        say(f"left out   model/{line}")
    parcels = [Parcel("model", repo_id, files)]
    with tempfile.TemporaryDirectory() as scratch:
        if space:
            from pipelines.publishing.space import space_folder

            _check_id(space)
            task = json.loads(parcels[0].files["results.json"].read_text(encoding="utf-8"))["task"]
            parcels.append(Parcel("space", space, every_file(space_folder(repo_id, task, Path(scratch)))))
        for parcel in parcels:
            refuse_leaks(parcel.files, run, token)
        if dry_run:
            reports = {p.kind: _preview(p, private, say) for p in parcels}
        elif token is None:
            raise HubError(
                "no token: type `hf auth login`, or set HF_TOKEN, with a token that may write; nothing was published"
            )
        else:
            reports = _send(parcels, token, private, say)
    return {"space": None, **reports}


def _check_hub(run: Path, hub: dict[str, Any]) -> None:
    """Raise RecipeError for a licence or language that the hub does not accept."""
    languages = hub.get("language") or []
    checks: list[tuple[str, Any, Any]] = [
        ("language", hub_metadata.language, one) for one in ([languages] if isinstance(languages, str) else languages)
    ]
    checks += [("license", hub_metadata.licence, hub["license"])] if hub.get("license") is not None else []
    for key, check, value in checks:
        try:
            check(value)
        except ValueError as error:
            raise RecipeError(
                f"{run / 'recipe.yaml'}: hub.{key}: {error}; type the `graft train` command again with hub.{key}=..."
            ) from None


def _check_id(repo_id: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise HubError(f"{repo_id!r} is no name for a hub repo: {error}") from None
    if "/" not in repo_id:
        raise HubError(f"{repo_id!r} is no name for a hub repo: write OWNER/NAME")


def _names(card: Path, repo_id: str) -> bool:
    return bool(re.search(rf"(?<![\w./-]){re.escape(repo_id)}(?![\w-]|\.\w)", card.read_text(encoding="utf-8")))


def _preview(parcel: Parcel, private: bool, say: Say) -> dict[str, Any]:
    say(
        f"would publish the {parcel.kind} {parcel.repo_id} ({'private' if private else 'public'}) in one commit: "
        f"{parcel.size()}"
    )
    for line in parcel.listing():
        say(f"  {line}")
    return {
        "repo_id": parcel.repo_id,
        "url": None,
        "private": private,
        "commit": None,
        "uploaded": list(parcel.files),
        "deleted": [],
    }


def _send(parcels: list[Parcel], token: str, private: bool, say: Say) -> dict[str, dict[str, Any]]:
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="graft")
    user = patiently(lambda: api.whoami()["name"], "the hub", "", say)
    for parcel in parcels:  # ask for everything that can be refused before anything is created
        patiently(partial(_check_card, parcel), parcel.repo_id, user, say)
    ready: list[tuple[Parcel, bool, bool, str]] = []
    for parcel in parcels:
        # the Space of a private model is private, too
        hidden = private or any(is_private for _, _, is_private, _ in ready)
        ready.append((parcel, hidden, *patiently(partial(_prepare, api, parcel, hidden), parcel.repo_id, user, say)))
    reports: dict[str, dict[str, Any]] = {}
    for parcel, hidden, is_private, head in ready:
        done = patiently(partial(_commit, api, parcel, head), parcel.repo_id, user, say)
        url = f"{api.endpoint}/{'spaces/' if parcel.kind == 'space' else ''}{parcel.repo_id}"
        reports[parcel.kind] = {"repo_id": parcel.repo_id, "url": url, "private": is_private, **done}
        say(_told(parcel, reports[parcel.kind], hidden))
    if "space" in reports and reports["model"]["private"]:
        say(
            "the model is private: give the Space a secret HF_TOKEN that may read it, on "
            f"{reports['space']['url']}/settings"
        )
    return reports


def _check_card(parcel: Parcel) -> None:
    """Let the hub check the front matter, as it does again at the commit."""
    from huggingface_hub import RepoCard

    try:
        RepoCard(parcel.files["README.md"].read_text(encoding="utf-8"), ignore_metadata_errors=True).validate(
            parcel.kind
        )
    except (ValueError, yaml.YAMLError) as error:
        found = str(error)
        if found.startswith("{"):
            found = "; ".join(entry["message"] for entry in json.loads(found).get("errors", []))
        raise HubError(
            f"the hub refuses the card (README.md): {' '.join(found.split())}; nothing was published"
        ) from error


def _prepare(api: "HfApi", parcel: Parcel, private: bool) -> tuple[bool, str]:
    """Create the repository, or check that the existing one may be published to.

    Returns whether it is private, and its last commit.
    """
    repo_id, kind = parcel.repo_id, parcel.kind
    api.create_repo(
        repo_id, repo_type=kind, private=private, exist_ok=True, space_sdk="gradio" if kind == "space" else None
    )
    info: Any = api.repo_info(repo_id, repo_type=kind)
    if private and not info.private:
        raise HubError(
            f"{repo_id} is there already and public: make it private on {api.endpoint}, or choose another name"
        )
    there = {sibling.rfilename for sibling in info.siblings or []}
    unexpected = sorted(there - STARTERS)
    if unexpected and not any(ours <= there for ours in OURS[kind]):
        names = ", ".join(unexpected[:3]) + (", ..." if len(unexpected) > 3 else "")
        raise HubError(
            f"{repo_id} holds what Graft did not publish ({names}): choose another name, or delete these files first"
        )
    return bool(info.private), info.sha


def _commit(api: "HfApi", parcel: Parcel, before: str) -> dict[str, Any]:
    """Make the repository equal to the parcel in one commit; no commit if it is equal already.

    A repetition after a failure looks at the repository again, so a commit whose answer was lost is not made twice.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.hf_api import RepoFile

    repo_id, kind = parcel.repo_id, parcel.kind
    head = api.repo_info(repo_id, repo_type=kind).sha
    tree = api.list_repo_tree(repo_id, recursive=True, repo_type=kind, revision=head)
    there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    changed = [name for name, path in parcel.files.items() if name not in there or not _same(there[name], path)]
    gone = sorted(name for name in there.keys() - parcel.files.keys() if WRITES[kind].fullmatch(name))
    if not changed and not gone:
        lost = head != before
        return {"commit": head if lost else None, "uploaded": list(parcel.files) if lost else [], "deleted": []}
    operations: list[Any] = [
        *(CommitOperationAdd(n, parcel.files[n]) for n in changed),
        *(CommitOperationDelete(n) for n in gone),
    ]
    message = f"Publish the {'demo' if kind == 'space' else 'model'} with Graft"
    done = api.create_commit(repo_id, operations, commit_message=message, repo_type=kind, parent_commit=head)
    return {"commit": done.oid, "uploaded": changed, "deleted": gone}


def _same(known: Any, path: Path) -> bool:
    """Whether a file on the hub (RepoFile of huggingface_hub) has the content of a local file."""
    from huggingface_hub.utils import sha

    if known.size != path.stat().st_size:
        return False
    if known.lfs is None:
        return bool(sha.git_hash(path.read_bytes()) == known.blob_id)
    with path.open("rb") as stream:
        return bool(sha.sha_fileobj(stream).hex() == known.lfs.sha256)


def _told(parcel: Parcel, report: dict[str, Any], asked_private: bool) -> str:
    if report["commit"] is None:
        return f"{report['url']}: nothing has changed, no new commit"
    private = "" if not report["private"] else " (private)" if asked_private else " (the repo is private, and stays so)"
    gone = f"; deleted {', '.join(report['deleted'])}" if report["deleted"] else ""
    return f"published {report['url']}{private}: {parcel.size(report['uploaded'])}{gone}"
