"""What the hub on loopback (tests/support/hub.py) stores: repositories with commits, and the hub's rules for cards.

A file is known by the same two hashes as on the hub: git's blob id, and the sha256 of a large file.
"""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import yaml

LARGE = re.compile(
    r"\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|onnx|parquet|arrow|npy|npz|zip|gz|jpg|jpeg|png|webp|gif|wav|flac|mp3)$"
)
GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"  # the hub adds this file to every new repository

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
LICENSE = re.compile(
    r"apache-2\.0|mit|afl-3\.0|artistic-2\.0|bsl-1\.0|bsd(-[23]-clause(-clear)?)?|c-uda|cc|cc0-1\.0|cc-by(-sa|-nc|-nd|-nc-nd|-nc-sa)?-[234]\.[05]"
    r"|cdla-(sharing-1\.0|permissive-[12]\.0)|wtfpl|ecl-2\.0|epl-[12]\.0|eupl-1\.[12]|etalab-2\.0|a?gpl(-[23]\.0)?|lgpl(-2\.1|-3\.0)?|gfdl|isc"
    r"|lppl-1\.3c|ms-pl|mpl-2\.0|odc-by|odbl|open(rail(\+\+)?|mdw)|(bigscience-|bigcode-|creativeml-)openrail-m|osl-3\.0|postgresql|ofl-1\.1"
    r"|ncsa|unlicense|zlib|pddl|deepfloyd-if-license|apple-ascl|llama[234](\.[1-9])?|gemma|unknown|other"
)  # https://huggingface.co/docs/hub/repositories-licenses
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Blob:
    data: bytes
    large: bool

    @classmethod
    def of(cls, path: str, data: bytes) -> "Blob":
        return cls(data, is_large(path, len(data), data[:512]))

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def oid(self) -> str:
        """Git's id. For a large file, it is the id of its pointer."""
        return git_oid(self.pointer if self.large else self.data)

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.oid


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Empty files never are: the client sends them inline whatever the hub answers."""
    return size > 0 and (bool(LARGE.search(path.lower())) or size > 10_000_000 or b"\0" in sample)


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    files: dict[str, Blob]
    date: str


@dataclass
class Repo:
    kind: str  # model, dataset or space
    id: str
    private: bool = False
    gated: bool = False
    sdk: str | None = None
    history: list[Commit] = field(default_factory=list)  # the commits of main, oldest first
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("initial commit", {".gitattributes": Blob(GITATTRIBUTES, False)})

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    @property
    def head(self) -> Commit:
        return self.history[-1]

    def at(self, revision: str) -> Commit | None:
        """The commit of `main`, of a tag, or of a commit id."""
        sha = self.head.sha if revision in ("main", "refs/heads/main") else self.tags.get(revision, revision)
        return next((c for c in self.history if c.sha == sha), None)

    def commit(self, title: str, changes: dict[str, Blob | None]) -> Commit:
        """Append a commit to main; None deletes a file."""
        merged = {**(self.history[-1].files if self.history else {}), **changes}
        files = {path: blob for path, blob in sorted(merged.items()) if blob is not None}
        seed = f"{self.kind} {self.id} {len(self.history)} {title} {[(p, b.oid) for p, b in files.items()]}"
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.history.append(Commit(hashlib.sha1(seed.encode()).hexdigest(), title, files, date))
        return self.head

    def tree(self, commit: Commit, folder: str = "", recursive: bool = False) -> list[dict] | None:
        """Entries of a folder as the hub lists them, folders first; None if there is no such folder."""
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        inside = {p: b for p, b in commit.files.items() if p.startswith(prefix)}
        if prefix and not inside:
            return None
        names = {"/".join(p.split("/")[: n + 1]) for p in inside for n in range(prefix.count("/"), p.count("/"))}
        folders = [self.entry(commit, n) for n in sorted(names)]
        entries = folders + [self.entry(commit, p) for p in inside]
        return [e for e in entries if e and (recursive or "/" not in e["path"][len(prefix) :])]

    def entry(self, commit: Commit, path: str) -> dict | None:
        """One file or folder, with the fields that `expand` asks for."""
        last = {"id": commit.sha, "title": commit.title, "date": commit.date}
        if path in commit.files:
            blob = commit.files[path]
            entry = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.data), "lastCommit": last}
            if blob.large:
                entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
            return entry
        if any(p.startswith(f"{path}/") for p in commit.files):
            return {"type": "directory", "path": path, "oid": git_oid(path.encode()), "size": 0, "lastCommit": last}
        return None

    def info(self, commit: Commit, blobs: bool = False) -> dict:
        card, _ = front_matter(commit.files["README.md"].data.decode()) if "README.md" in commit.files else ({}, None)
        siblings: list[dict] = [{"rfilename": p} for p in commit.files]
        for sibling, blob in zip(siblings, commit.files.values(), strict=True):
            if blobs:
                sibling |= {"size": len(blob.data), "blobId": blob.oid}
            if blobs and blob.large:
                sibling["lfs"] = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
        info: dict[str, Any] = {
            "_id": git_oid(self.id.encode())[:24],
            "id": self.id,
            "author": self.owner,
            "sha": commit.sha,
        }
        info |= {
            "lastModified": commit.date,
            "createdAt": self.history[0].date,
            "private": self.private,
            "disabled": False,
        }
        info |= {
            "gated": "manual" if self.gated else False,
            "downloads": 0,
            "likes": 0,
            "cardData": card,
            "siblings": siblings,
        }
        info["tags"] = [str(t) for t in (card or {}).get("tags") or []]
        if self.kind == "model":
            info |= {"modelId": self.id, "pipeline_tag": (card or {}).get("pipeline_tag")}
            info |= {"library_name": (card or {}).get("library_name"), "model-index": (card or {}).get("model-index")}
        if self.kind == "space":
            info |= {
                "sdk": (card or {}).get("sdk", self.sdk),
                "runtime": {"stage": "BUILDING", "hardware": {}, "storage": None},
            }
        return info


# ---- cards ----


def front_matter(text: str) -> tuple[dict | None, str | None]:
    """The YAML between the first two `---` lines: (mapping or None, what is wrong with it or None)."""
    match = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    if not match:
        return None, None
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return None, f"bad YAML: {error}"
    return (data, None) if isinstance(data, dict) else (None, "the metadata is no mapping")


def validate_card(text: str, kind: str) -> tuple[list[str], list[str]]:
    """(errors, warnings) about a README's front matter, in the hub's words."""
    card, broken = front_matter(text)
    if broken:
        return [broken], []
    if not card:
        return [], ["empty or missing yaml metadata in repo card"]
    errors = []
    for key in ("base_model", "models", "datasets"):
        for value in card[key] if isinstance(card.get(key), list) else [card[key]] if key in card else []:
            if not isinstance(value, str) or not HUB_ID.fullmatch(value) or "--" in value or ".." in value:
                page = "datasets" if key == "datasets" else "models"
                errors.append(
                    f'"{key}" with value "{value}" is not valid. Use a {page[:-1]} id from https://hf.co/{page}.'
                )
    for value in (
        card["license"] if isinstance(card.get("license"), list) else [card["license"]] if "license" in card else []
    ):
        if not LICENSE.fullmatch(str(value)):
            errors.append(f'"license" must be one of the known identifiers, got "{value}"')
    if "tags" in card and not (isinstance(card["tags"], list) and all(isinstance(t, str) for t in card["tags"])):
        errors.append('"tags" must be an array of strings')
    if kind == "space":
        errors += _space(card)
    if "model-index" in card:
        errors += _model_index(card["model-index"])
    return errors, []


def _space(card: dict) -> list[str]:
    errors = []
    if card.get("sdk") not in ("gradio", "docker", "static", "streamlit"):
        errors.append('"sdk" must be one of [gradio, docker, static, streamlit]')
    for key in ("sdk_version", "app_file", "python_version", "title"):
        if key in card and not isinstance(card[key], str):
            errors.append(f'"{key}" must be a string')
    errors += [
        f'"{k}" must be one of {sorted(COLORS)}' for k in ("colorFrom", "colorTo") if card.get(k, "red") not in COLORS
    ]
    if len(str(card.get("short_description", ""))) > 60:
        errors.append('"short_description" length must be less than or equal to 60 characters long')
    return errors


def _model_index(index: Any) -> list[str]:
    if not isinstance(index, list) or not all(
        isinstance(m, dict) and isinstance(m.get("results"), list) for m in index
    ):
        return ['"model-index" must be an array of objects with "results"']
    errors = ['"model-index[0].name" is required' for model in index if not model.get("name")]
    for number, result in enumerate(r for model in index for r in model["results"]):
        where = f"model-index[0].results[{number}]"
        wanted = [("task", "type"), ("dataset", "type"), ("dataset", "name")]
        errors += [
            f'"{where}.{a}.{b}" is required' for a, b in wanted if not isinstance((result.get(a) or {}).get(b), str)
        ]
        for metric in result.get("metrics") or [{}]:
            if "type" not in metric or metric.get("value") is None:
                errors.append(f'"{where}.metrics" needs type and value')
    return errors
