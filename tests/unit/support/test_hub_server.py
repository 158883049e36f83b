"""The hub on loopback, tested with the real huggingface_hub. test_hub_clients.py has the libraries that use it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.support.hub import OTHER_TOKEN, READ_TOKEN, TOKEN, USER, HubServer, hub
from tests.support.hub_store import front_matter, validate_card

__all__ = ["hub"]

CARD = "---\nlicense: apache-2.0\ntags: [tiny]\npipeline_tag: image-classification\n---\n# A model\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small repository: text, a nested file, an empty one, and one that is stored as a large file."""
    root = tmp_path / "content"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "README.md").write_text(CARD)
    (root / "deep" / "er" / "notes é.txt").write_text("nested")
    (root / "empty.txt").write_text("")
    (root / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(200_000))
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_uploaded_folder_comes_back_byte_for_byte(hub: HubServer, folder: Path) -> None:
    assert not huggingface_hub.repo_exists(f"{USER}/thing")
    url = huggingface_hub.create_repo(f"{USER}/thing")
    assert url.repo_id == f"{USER}/thing"
    commit = huggingface_hub.upload_folder(repo_id=f"{USER}/thing", folder_path=folder)
    assert huggingface_hub.repo_exists(f"{USER}/thing")
    assert set(huggingface_hub.list_repo_files(f"{USER}/thing")) == {*contents(folder), ".gitattributes"}
    snapshot = Path(huggingface_hub.snapshot_download(f"{USER}/thing"))
    assert contents(snapshot) == contents(folder) | {".gitattributes": hub.files(f"{USER}/thing")[".gitattributes"]}
    one = huggingface_hub.hf_hub_download(f"{USER}/thing", "deep/er/notes é.txt", revision=commit.oid)
    assert Path(one).read_text() == "nested"
    info = huggingface_hub.model_info(f"{USER}/thing", files_metadata=True)
    assert (info.sha, info.private, info.pipeline_tag) == (commit.oid, False, "image-classification")
    sizes = {s.rfilename: s.size for s in info.siblings}
    assert sizes["model.safetensors"] == 200_000
    assert [c.title for c in huggingface_hub.list_repo_commits(f"{USER}/thing")] == [
        commit.commit_message,
        "initial commit",
    ]
    assert hub.unknown == []


def test_commits_are_git_like(hub: HubServer, folder: Path) -> None:
    api = HfApi()
    sha = hub.add_model("google/tiny", folder)
    assert [c.sha for c in hub.commits("google/tiny")][-1] == sha
    hub.repos["model", f"{USER}/own"] = hub.repos.pop(("model", "google/tiny"))
    hub.repo(f"{USER}/own").id = f"{USER}/own"
    api.create_tag(f"{USER}/own", tag="v1")
    edit = [CommitOperationAdd("new.txt", b"new"), CommitOperationDelete("empty.txt"), CommitOperationDelete("deep/")]
    second = api.create_commit(f"{USER}/own", edit, commit_message="edit", parent_commit=sha)
    assert set(api.list_repo_files(f"{USER}/own")) == {".gitattributes", "README.md", "model.safetensors", "new.txt"}
    assert "empty.txt" in api.list_repo_files(f"{USER}/own", revision=sha)
    assert "empty.txt" in api.list_repo_files(f"{USER}/own", revision="v1")
    before = len(hub.commits(f"{USER}/own"))
    again = api.create_commit(f"{USER}/own", [CommitOperationAdd("new.txt", b"new")], commit_message="nothing")
    assert (again.oid, len(hub.commits(f"{USER}/own"))) == (second.oid, before)
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(f"{USER}/own", [CommitOperationAdd("x", b"x")], commit_message="late", parent_commit=sha)
    with pytest.raises(RevisionNotFoundError):
        api.model_info(f"{USER}/own", revision="no-such-branch")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(f"{USER}/own", "no_such_file.json")
    assert huggingface_hub.create_repo(f"{USER}/own", exist_ok=True).repo_id == f"{USER}/own"
    with pytest.raises(HfHubHTTPError, match="409"):
        huggingface_hub.create_repo(f"{USER}/own")
    listing = {e.path: type(e).__name__ for e in api.list_repo_tree(f"{USER}/own", revision="v1", recursive=True)}
    assert listing["deep/er"] == "RepoFolder"
    assert listing["deep/er/notes é.txt"] == "RepoFile"
    assert {e.path for e in api.list_repo_tree(f"{USER}/own", "deep", revision="v1")} == {"deep/er"}
    assert [e.path for e in api.get_paths_info(f"{USER}/own", ["model.safetensors", "nope"])] == ["model.safetensors"]


def test_large_files_come_from_another_host_without_the_token(hub: HubServer, folder: Path) -> None:
    hub.add_model("google/tiny", folder)
    huggingface_hub.hf_hub_download("google/tiny", "model.safetensors")
    tokens = {("cdn" if a.path.startswith("/cdn/") else "hub"): a.token for a in hub.asked}
    assert tokens == {"hub": TOKEN, "cdn": None}


def test_who_may_do_what(hub: HubServer, folder: Path) -> None:
    hub.add_model(f"{USER}/secret", folder, private=True)
    hub.add_model("google/public", folder)
    hub.add_model("meta/gated", folder, gated=True)
    assert huggingface_hub.whoami()["name"] == USER
    assert huggingface_hub.model_info(f"{USER}/secret").private
    for token in (False, OTHER_TOKEN):
        with pytest.raises(RepositoryNotFoundError):
            huggingface_hub.model_info(f"{USER}/secret", token=token)
        with pytest.raises(RepositoryNotFoundError):
            huggingface_hub.hf_hub_download(f"{USER}/secret", "README.md", token=token)
    with pytest.raises(GatedRepoError):
        huggingface_hub.hf_hub_download("meta/gated", "README.md")
    for repo, token in [("google/public", TOKEN), (f"{USER}/secret", READ_TOKEN), ("google/new", TOKEN)]:
        with pytest.raises(HfHubHTTPError) as refused:
            HfApi(token=token).create_repo(repo)
        assert refused.value.response.status_code == 403
    with pytest.raises(HfHubHTTPError) as refused:
        HfApi().upload_file(repo_id="google/public", path_or_fileobj=b"x", path_in_repo="x.txt")
    assert refused.value.response.status_code == 403
    with pytest.raises(HfHubHTTPError) as refused:
        huggingface_hub.whoami(token="hf_nobody")
    assert refused.value.response.status_code == 401
    huggingface_hub.create_repo(f"{USER}/mine", private=True, repo_type="dataset")
    assert hub.repo(f"{USER}/mine", "dataset").private
    huggingface_hub.update_repo_settings(f"{USER}/mine", private=False, repo_type="dataset")
    assert not hub.repo(f"{USER}/mine", "dataset").private
    huggingface_hub.delete_repo(f"{USER}/mine", repo_type="dataset")
    assert not huggingface_hub.repo_exists(f"{USER}/mine", repo_type="dataset")
    assert hub.unknown == []


@pytest.mark.parametrize(
    ("metadata", "kind", "fault"),
    [
        ("license: mit\nbase_model: google/vit-base-patch16-224\nbase_model_relation: finetune", "model", None),
        ("base_model: [gpt2, google/vit]\ndatasets: [timm/oxford-iiit-pet]\nlanguage: no", "model", None),
        ("base_model: /home/someone/runs/vit/model", "model", "base_model"),
        ("base_model: ./x", "model", "base_model"),
        ("base_model: [google/vit, a/b/c]", "model", "base_model"),
        ("base_model: null", "model", "base_model"),
        ("datasets: [null]", "model", "datasets"),
        ("license: mine", "model", "license"),
        ("tags: tiny", "model", "tags"),
        ("a: [", "model", "YAML"),
        (
            "model-index: [{name: x, results: [{task: {type: t}, dataset: {name: d}, metrics: []}]}]",
            "model",
            "dataset.type",
        ),
        ("sdk: gradio\nsdk_version: 6.31.0\napp_file: app.py", "space", None),
        ("sdk: gradio\nsdk_version: 6.3", "space", "sdk_version"),
        ("title: no sdk", "space", "sdk"),
    ],
)
def test_cards_are_checked_as_the_hub_does(hub: HubServer, metadata: str, kind: str, fault: str | None) -> None:
    text = f"---\n{metadata}\n---\n# Card\n"
    huggingface_hub.create_repo(f"{USER}/card", repo_type=kind, space_sdk="gradio" if kind == "space" else None)
    upload = {
        "repo_id": f"{USER}/card",
        "repo_type": kind,
        "path_or_fileobj": text.encode(),
        "path_in_repo": "README.md",
    }
    if fault is None:
        huggingface_hub.upload_file(**upload)
        assert hub.files(f"{USER}/card", kind)["README.md"].decode() == text
        return
    with pytest.raises(ValueError, match=rf"Invalid metadata in README.md.\n- .*{fault}"):
        huggingface_hub.upload_file(**upload)
    assert "README.md" not in hub.files(f"{USER}/card", kind)


def test_front_matter_is_found_as_the_client_finds_it() -> None:
    for text in (CARD, "---\r\na: 1\r\n---\r\nx", "no metadata", "---\na: 1\n---", "text\n---\na: 1\n---\n"):
        found = huggingface_hub.repocard.RepoCard(text, ignore_metadata_errors=True).data.to_dict()
        assert (front_matter(text)[0] or {}) == found
    assert validate_card("no metadata", "model") == ([], ["empty or missing yaml metadata in repo card"])


# ---- faults ----


def test_a_download_that_breaks_is_resumed_and_ends_right(hub: HubServer, folder: Path) -> None:
    hub.add_model("google/tiny", folder)
    hub.truncate_next(1, "/cdn/", keep=0.4)
    path = huggingface_hub.hf_hub_download("google/tiny", "model.safetensors")
    assert Path(path).read_bytes() == (folder / "model.safetensors").read_bytes()
    assert sum(a.method == "GET" and a.path.startswith("/cdn/") for a in hub.asked) == 2


def test_a_failing_server_recovers_after_n_requests(hub: HubServer, folder: Path) -> None:
    hub.add_model("google/tiny", folder)
    hub.fail_next(2, 503, "/api/models/google")
    for _ in range(2):
        with pytest.raises(HfHubHTTPError) as failed:
            huggingface_hub.model_info("google/tiny")
        assert failed.value.response.status_code == 503
    assert huggingface_hub.model_info("google/tiny").id == "google/tiny"


def test_offline_refuses_connections_and_comes_back(hub: HubServer, folder: Path) -> None:
    hub.add_model("google/tiny", folder)
    snapshot = huggingface_hub.snapshot_download("google/tiny")
    with hub.offline():
        assert huggingface_hub.snapshot_download("google/tiny") == snapshot  # the client's own fallback
        with pytest.raises(LocalEntryNotFoundError):
            huggingface_hub.snapshot_download("google/other")
    assert huggingface_hub.model_info("google/tiny").id == "google/tiny"


def test_latency_slows_every_answer(hub: HubServer) -> None:
    hub.latency = 0.2
    start = time.perf_counter()
    huggingface_hub.whoami()
    assert time.perf_counter() - start >= 0.2


def test_another_process_talks_to_the_hub(hub: HubServer, folder: Path) -> None:
    hub.add_model("google/tiny", folder)
    code = "import huggingface_hub as h; print(h.whoami()['name'], h.hf_hub_download('google/tiny', 'README.md'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=hub.env, capture_output=True, text=True, timeout=60, check=True
    )
    name, path = done.stdout.strip().split(" ", 1)
    assert name == USER
    assert path.startswith(str(hub.home))
    assert Path(path).read_text() == CARD


def test_the_catalogue_of_requests_is_complete(hub: HubServer) -> None:
    """A request for something that the hub does not have is refused and recorded: the tests above check for none."""
    from huggingface_hub.utils import get_session

    answer = get_session().get(f"{hub.url}/api/nothing-here")
    assert answer.status_code == 404
    assert json.loads(answer.text) == {"error": "Not Found"}
    assert hub.unknown == ["GET /api/nothing-here"]
