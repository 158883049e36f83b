"""Downloading a model by its id, from the hub on loopback with the real client."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from pipelines.errors import HubError, ModelError
from pipelines.hub.download import UNUSED, download, unneeded
from tests.support.hub import OTHER_TOKEN, USER, HubServer, hub
from tests.support.publishing import impatient

__all__ = ["hub", "impatient"]

pytestmark = pytest.mark.usefixtures("impatient")

VIT = "google/vit-base-patch16-224"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model repo with additional files, as repos on the hub have."""
    root = tmp_path / "content"
    root.mkdir()
    (root / "config.json").write_text("{}")
    (root / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    for name in (
        "model.safetensors",
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "onnx/model.onnx",
        "training_args.bin",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(name.encode() * 1000)
    (root / "modeling_mine.py").write_text("raise SystemExit('remote code ran')")
    (root / "checkpoint-500").mkdir()
    (root / "checkpoint-500" / "model.safetensors").write_bytes(b"x" * 1000)
    return root


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {".gitattributes"}


def test_only_what_is_needed_comes(hub: HubServer, folder: Path) -> None:
    sha = hub.add_model(VIT, folder)
    found = download(VIT)
    assert found.name == sha
    assert names(found) == {"config.json", "README.md", "model.safetensors"}
    assert (found / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert hub.unknown == []


def test_pickles_come_only_where_there_is_nothing_else(hub: HubServer, folder: Path) -> None:
    for weights in ("model.safetensors", "checkpoint-500/model.safetensors"):
        (folder / weights).unlink()
    hub.add_model(VIT, folder)
    assert names(download(VIT)) == {"config.json", "README.md", "pytorch_model.bin"}


SD15 = ["v1-5-pruned.safetensors", "v1-5-pruned.ckpt", "v1-5-pruned-emaonly.safetensors", "v1-5-pruned-emaonly.ckpt"]
SD3 = ["text_encoder_3/model-00001-of-00002.safetensors", "text_encoder_3/model-00002-of-00002.safetensors"]
SD3 += ["text_encoder_3/model.safetensors.index.json", "text_encoder_3/model.safetensors.index.fp16.json"]
LISTINGS: dict[str, tuple[list[str], list[str]]] = {
    "stable-diffusion-v1-5": (
        [f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "safety_checker")]
        + [f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")]
        + [f"{part}/model.safetensors" for part in ("text_encoder", "safety_checker")],
        SD15
        + [
            f"{part}/diffusion_pytorch_model.{end}"
            for part in ("unet", "vae")
            for end in ("bin", "fp16.bin", "fp16.safetensors")
        ]
        + [
            f"{part}/{end}"
            for part in ("text_encoder", "safety_checker")
            for end in ("pytorch_model.bin", "model.fp16.safetensors")
        ]
        + ["unet/diffusion_pytorch_model.non_ema.bin", "unet/diffusion_pytorch_model.non_ema.safetensors"],
    ),
    "stable-diffusion-3-medium-diffusers": (
        [
            "transformer/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
            "text_encoder/model.safetensors",
            *SD3,
        ],
        [
            "text_encoder/model.fp16.safetensors",
            "text_encoder_3/model.fp16-00001-of-00002.safetensors",
            "text_encoder_3/model.fp16-00002-of-00002.safetensors",
            "text_encoder_3/model-00001-of-00002.fp16.safetensors",
        ],
    ),
    "ddpm-cifar10-32": (
        ["config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"],
        ["diffusion_pytorch_model.bin"],
    ),
    "ddpm, pickled": (
        ["config.json", "diffusion_pytorch_model.bin"],
        ["checkpoint-500/unet/diffusion_pytorch_model.safetensors"],
    ),
    "fp16 only": (
        ["unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"],
        ["whole.fp16.safetensors"],
    ),
    "by part": (
        [
            "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.bin",
            "text_encoder/model.fp16.safetensors",
        ],
        ["unet/diffusion_pytorch_model.bin"],
    ),
}


@pytest.mark.parametrize("repo", LISTINGS)
def test_which_weights_of_a_pipeline_come(repo: str) -> None:
    from huggingface_hub.utils import filter_repo_objects

    wanted, left = LISTINGS[repo]
    wanted = [*wanted, "model_index.json"]
    assert set(filter_repo_objects([*left, *wanted], ignore_patterns=UNUSED + unneeded([*left, *wanted]))) == set(
        wanted
    )


def test_revisions_are_branches_tags_and_commits(hub: HubServer, folder: Path) -> None:
    first = hub.add_model(f"{USER}/vit", folder)
    HfApi().create_tag(f"{USER}/vit", tag="v1")
    (folder / "config.json").write_text(json.dumps({"second": True}))
    second = hub.add_model(f"{USER}/vit", folder)
    found = {revision: download(f"{USER}/vit", revision).name for revision in (None, "main", "v1", first, second)}
    assert found == {None: second, "main": second, "v1": first, first: first, second: second}
    with pytest.raises(ModelError, match=r"tester/vit has no revision 'v2': give a branch, a tag or a full commit"):
        download(f"{USER}/vit", "v2")


def test_a_broken_download_ends_right(hub: HubServer, folder: Path) -> None:
    hub.add_model(VIT, folder)
    hub.truncate_next(1, "/cdn/", keep=0.3)
    assert (download(VIT) / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_unknown_private_and_gated(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_model(f"{USER}/secret", folder, private=True)
    hub.add_model("meta/gated", folder, gated=True)
    assert names(download(f"{USER}/secret")) >= {"config.json"}
    with pytest.raises(ModelError, match="no model 'google/vitt' on the hub: check the spelling"):
        download("google/vitt")
    with pytest.raises(ModelError, match="meta/gated is gated: ask for access"):
        download("meta/gated")
    monkeypatch.setenv("HF_TOKEN", OTHER_TOKEN)
    with pytest.raises(ModelError, match=r"no model 'tester/secret'.*a private one needs `hf auth login`"):
        download(f"{USER}/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "expired" * 5)
    with pytest.raises(HubError, match="does not accept the token"):
        download("meta/gated")


@pytest.mark.parametrize("name", ["a/b/c", "google/vit base", "-vit", "google/vit--base"])
def test_what_is_no_hub_id(hub: HubServer, name: str) -> None:
    with pytest.raises(ModelError, match="is no hub id"):
        download(name)
    assert hub.asked == []


def test_without_the_hub_the_cached_copy_serves_and_is_named(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model(VIT, folder)
    found = download(VIT)
    for way in ("down", "failing", "offline mode"):
        messages: list[str] = []
        if way == "down":
            with hub.offline():
                assert download(VIT, say=messages.append) == found
        elif way == "failing":
            hub.fail_next(1, 503)
            assert download(VIT, say=messages.append) == found
        else:
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            assert download(VIT, say=messages.append) == found
        assert messages == [f"the hub cannot be asked: {VIT} comes from the cache (commit {found.name[:8]})"]


def test_without_the_hub_and_without_a_copy(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_model(VIT, folder)
    with hub.offline(), pytest.raises(HubError, match=f"hub at {hub.url} cannot be reached.*{VIT} is not in the cache"):
        download(VIT)
    hub.fail_next(1, 500)
    with pytest.raises(HubError, match=f"hub fails at {VIT}.*500"):
        download(VIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=f"HF_HUB_OFFLINE is set: unset it.*{VIT} is not in the cache"):
        download(VIT)


def test_a_full_disk(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_model(VIT, folder)
    monkeypatch.setattr("huggingface_hub.file_download.http_get", _full)
    with pytest.raises(HubError, match=f"no room left on the disk for {VIT}: free some"):
        download(VIT)


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_module_is_light_and_prints_to_stderr(hub: HubServer, folder: Path) -> None:
    hub.add_model(VIT, folder)
    code = "import sys; from pipelines.hub.download import download; "
    code += f"print(download({VIT!r}).name, [m for m in ('torch', 'gradio') if m in sys.modules])"
    runs = []
    for offline in (False, True):
        env = hub.env | ({"HF_HUB_OFFLINE": "1"} if offline else {})
        runs.append(
            subprocess.run(
                [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True
            )
        )
    sha = hub.repo(VIT).head.sha
    assert [done.stdout.split() for done in runs] == [[sha, "[]"], [sha, "[]"]]
    assert "comes from the cache" in runs[1].stderr
