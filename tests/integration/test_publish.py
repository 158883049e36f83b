"""Publishing a run against the hub on loopback, through the real client."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import get_session

from pipelines.errors import HubError
from pipelines.publishing.publish import publish
from tests.support import tiny
from tests.support.hub import OTHER_TOKEN, READ_TOKEN, TOKEN, USER, HubServer, hub
from tests.support.publishing import REPO, finished, impatient, local, published, remote, run

__all__ = ["finished", "hub", "impatient", "run"]

pytestmark = [pytest.mark.usefixtures("impatient"), pytest.mark.quick]


# ---- what is uploaded ----


def test_the_model_folder_arrives_in_one_commit(hub: HubServer, run: Path) -> None:
    messages: list[str] = []
    report = publish(run, REPO, say=messages.append)
    assert remote(hub) == local(run)
    assert published(hub) == 1
    assert report["space"] is None
    assert report["model"]["commit"] == hub.commits(REPO)[-1].sha
    assert (report["model"]["private"], report["model"]["deleted"]) == (False, [])
    assert set(report["model"]["uploaded"]) == set(local(run))
    assert f"published {hub.url}/{REPO}: {len(local(run))} files" in messages[-1]
    assert hub.repo(REPO).head.files["model.safetensors"].large
    assert hub.unknown == []


def test_the_card_names_the_repo_and_its_index_holds_the_scores(hub: HubServer, run: Path) -> None:
    assert REPO not in (run / "model" / "README.md").read_text()
    publish(run, REPO, say=str)
    card = ModelCard.load(REPO)
    assert f'"{REPO}"' in card.text
    results = json.loads(hub.files(REPO)["results.json"])
    found = {r.metric_type: (r.metric_value, r.metric_args) for r in card.data.eval_results}
    expected = results["test"]["metrics"]
    assert {name: value for name, (value, _) in found.items()} == expected
    assert len(expected) >= 3
    assert found["accuracy"][1]["ci95"] == results["test"]["ci95"]["accuracy"]


def test_a_published_model_gives_the_same_answers(hub: HubServer, run: Path) -> None:
    import torch
    from transformers import AutoModelForImageClassification

    publish(run, REPO, say=str)
    here = AutoModelForImageClassification.from_pretrained(run / "model").eval()
    there = AutoModelForImageClassification.from_pretrained(REPO).eval()
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(there(pixel_values=pixels).logits, here(pixel_values=pixels).logits)
    assert there.config.id2label == {0: "cat", 1: "dog"}


@pytest.mark.integration
def test_graft_predicts_by_hub_id_on_another_machine(hub: HubServer, run: Path, tmp_path: Path) -> None:
    from pipelines.inference.loading import load

    publish(run, REPO, say=str)
    photo = tmp_path / "photo.png"
    tiny.picture(1, 2, 48, np.random.default_rng(0)).save(photo)
    command = [sys.executable, "-m", "pipelines", "predict", REPO, str(photo), "--json"]
    there = hub.env | {"HF_HOME": str(tmp_path / "other_machine")}
    done = subprocess.run(command, env=there, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    expected = load(run).infer(photo)
    assert [a["label"] for a in answer["output"]] == [e["label"] for e in expected]
    assert [a["score"] for a in answer["output"]] == pytest.approx([e["score"] for e in expected], rel=1e-5)


def test_repeating_makes_no_commit_and_says_so(hub: HubServer, run: Path) -> None:
    first = publish(run, REPO, say=str)
    messages: list[str] = []
    again = publish(run, REPO, say=messages.append)
    assert published(hub) == 1
    assert again["model"] == {**first["model"], "commit": None, "uploaded": [], "deleted": []}
    assert "nothing has changed, no new commit" in messages[-1]


def test_only_what_changed_is_sent_and_what_vanished_goes(hub: HubServer, run: Path) -> None:
    (run / "model" / "merges.txt").write_text("a leftover")
    publish(run, REPO, say=str)
    (run / "model" / "merges.txt").unlink()
    (run / "model" / "vocab.txt").write_text("something else")
    tiny.vit(run / "model", labels=("cat", "dog"), seed=1)
    messages: list[str] = []
    report = publish(run, REPO, say=messages.append)["model"]
    assert published(hub) == 2
    assert (report["uploaded"], report["deleted"]) == (["model.safetensors", "vocab.txt"], ["merges.txt"])
    assert remote(hub) == local(run)
    assert ".gitattributes" in hub.files(REPO)
    assert messages[-1].endswith("deleted merges.txt")


def test_hidden_files_stay_at_home(hub: HubServer, run: Path) -> None:
    (run / "model" / ".DS_Store").write_bytes(b"\0")
    (run / "model" / ".cache").mkdir()
    (run / "model" / ".cache" / "x.json").write_text("{}")
    publish(run, REPO, say=str)
    assert not [name for name in remote(hub) if name.startswith(".")]


# ---- a hub that fails ----


@pytest.mark.parametrize("path", ["/whoami-v2", "/validate-yaml", "/repos/create", "/commit/", f"/api/models/{REPO}"])
def test_a_failing_server_is_asked_again(hub: HubServer, run: Path, path: str) -> None:
    hub.fail_next(2, 503, path)
    messages: list[str] = []
    publish(run, REPO, say=messages.append)
    assert remote(hub) == local(run)
    assert published(hub) == 1
    assert sum("503" in line and "trying again" in line for line in messages) == 2


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub: HubServer, run: Path) -> None:
    hub.truncate_next(1, "/commit/", keep=0, method="POST")
    messages: list[str] = []
    report = publish(run, REPO, say=messages.append)
    assert published(hub) == 1
    assert report["model"]["commit"] == hub.commits(REPO)[-1].sha
    assert "published" in messages[-1]


def test_somebody_else_commits_meanwhile(hub: HubServer, run: Path) -> None:
    hub.fail_next(1, 412, "/commit/")
    publish(run, REPO, say=str)
    assert remote(hub) == local(run)


def test_a_server_that_keeps_failing_is_given_up(hub: HubServer, run: Path) -> None:
    hub.fail_next(100, 500, "/commit/")
    with pytest.raises(HubError, match=f"fails at {REPO}.*500.*try again later"):
        publish(run, REPO, say=str)
    assert published(hub) == 0
    assert sum("/commit/" in asked.path for asked in hub.asked) == 4


def test_a_hub_that_is_down(hub: HubServer, run: Path) -> None:
    with hub.offline(), pytest.raises(HubError, match=f"hub at {hub.url} cannot be reached.*check the network"):
        publish(run, REPO, say=str)


# ---- permissions ----


def test_without_a_token_nothing_is_even_asked(hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="no token: type `hf auth login`"):
        publish(run, REPO)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        ("hf_" + "expired" * 5, REPO, "does not accept the token .401.*settings/tokens"),
        (READ_TOKEN, REPO, "no right to write to tester/pets .403.*write role"),
        (TOKEN, "google/pets", "no right to write to google/pets .403.*namespace.*publish to tester/"),
        (OTHER_TOKEN, REPO, "no right to write to tester/pets .403"),
        (OTHER_TOKEN, f"{USER}/there", "no right to write to tester/there .403.*publish to stranger/"),
    ],
)
def test_a_repo_that_is_not_ours(
    hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, token: str, repo: str, message: str
) -> None:
    hub.add_model(f"{USER}/there", run / "model")
    before = len(hub.commits(f"{USER}/there"))
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=message):
        publish(run, repo, say=str)
    assert [id for _, id in hub.repos] == [f"{USER}/there"]
    assert len(hub.commits(f"{USER}/there")) == before
    assert not [asked for asked in hub.asked if asked.method == "PUT"]


@pytest.mark.parametrize(
    "repo", ["pets", "a/b/c", "/pets", "me/pets--2", "me/p ts", "me/pets.git", "", "me/" + "x" * 97]
)
def test_names_that_no_repo_can_have(hub: HubServer, run: Path, repo: str) -> None:
    with pytest.raises(HubError, match="is no name for a hub repo"):
        publish(run, repo)
    assert hub.asked == []


def test_a_card_that_the_hub_refuses(hub: HubServer, run: Path) -> None:
    card = run / "model" / "README.md"
    card.write_text(f"---\nbase_model: ./my_weights\nlicense: mit\n---\n# {REPO}\n")
    with pytest.raises(HubError, match=r"refuses the card.*base_model.*my_weights.*nothing was published"):
        publish(run, REPO)
    card.write_text(f"---\nlicense: [\n---\n# {REPO}\n")
    with pytest.raises(HubError, match=r"refuses the card"):
        publish(run, REPO)
    assert hub.repos == {}


def test_a_repo_with_something_else_in_it(hub: HubServer, run: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("---\nlicense: mit\n---\n")
    hub.add_model(REPO, tmp_path / "other")  # a user edited it on the hub's pages: this is allowed
    publish(run, REPO, say=str)
    (tmp_path / "other" / "pytorch_model.bin").write_bytes(b"x")
    hub.add_model(f"{USER}/other", tmp_path / "other")
    with pytest.raises(HubError, match=r"did not publish .pytorch_model.bin.: choose another name"):
        publish(run, f"{USER}/other", say=str)
    assert published(hub, f"{USER}/other") == 1


# ---- private repositories ----


def test_private_is_private(hub: HubServer, run: Path) -> None:
    messages: list[str] = []
    assert publish(run, REPO, private=True, say=messages.append)["model"]["private"]
    assert hub.repo(REPO).private
    assert "(private)" in messages[-1]
    # the command asks for public, but a private repository stays private
    assert publish(run, REPO, say=messages.append)["model"]["private"]
    assert hub.repo(REPO).private


def test_the_recipe_may_ask_for_private(hub: HubServer, run: Path) -> None:
    path = run / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["hub"]["private"] = True
    path.write_text(yaml.safe_dump(recipe))
    assert publish(run, REPO, say=str)["model"]["private"]
    assert hub.repo(REPO).private


def test_what_others_put_there_stays(hub: HubServer, run: Path, tmp_path: Path) -> None:
    publish(run, REPO, say=str)
    (tmp_path / "theirs").mkdir()
    for name in ("LICENSE", "evaluation.md", "pytorch_model.bin", "old.safetensors"):
        (tmp_path / "theirs" / name).write_bytes(b"theirs")
    HfApi().upload_folder(repo_id=REPO, folder_path=tmp_path / "theirs")
    assert publish(run, REPO, say=str)["model"]["deleted"] == [
        "old.safetensors"
    ]  # weights from Graft: two formats in one repository would be ambiguous
    assert {"LICENSE", "evaluation.md", "pytorch_model.bin"} <= set(hub.files(REPO))


def test_a_public_repo_is_not_silently_used_for_private(hub: HubServer, run: Path) -> None:
    publish(run, REPO, say=str)
    with pytest.raises(HubError, match="there already and public"):
        publish(run, REPO, private=True, say=str)


# ---- dry run ----


def test_a_dry_run_sends_nothing_and_needs_no_token(hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    before = local(run)
    messages: list[str] = []
    report = publish(run, REPO, private=True, space=f"{USER}/demo", dry_run=True, say=messages.append)
    assert hub.asked == []
    assert local(run) == before
    assert messages[0].startswith(f"would publish the model {REPO} (private) in one commit: {len(before)} files, ")
    assert any(line.startswith(f"would publish the space {USER}/demo (private)") for line in messages)
    assert [n for n in before if not any(line.endswith(f"  {n}") for line in messages)] == []
    weights = next(line for line in messages if line.endswith("model.safetensors"))
    assert f"{(run / 'model' / 'model.safetensors').stat().st_size / 1000:.1f} kB" in weights
    assert set(report["model"]["uploaded"]) == set(before)
    assert report["model"]["commit"] is None


def test_this_process_talks_to_nobody_else(hub: HubServer) -> None:
    """The tests above rely on this: their client is the one that the fixture pointed at the hub."""
    assert get_session().get(f"{os.environ['HF_ENDPOINT']}/api/whoami-v2").status_code == 401
    assert hub.asked[-1].path == "/api/whoami-v2"
