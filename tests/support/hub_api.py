"""What the hub on loopback (tests/support/hub.py) answers: one handler for each request that the clients make."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.hub_store import Blob, Commit, Repo, git_oid, is_large, validate_card

if TYPE_CHECKING:
    from tests.support.hub import HubServer

USER = "tester"
ORGS = ("graft-tests",)
TOKEN = "hf_" + "writeTokenOfTheTestsOnLoopback0000"
READ_TOKEN = "hf_" + "readsTokenOfTheTestsOnLoopback0000"
OTHER_TOKEN = "hf_" + "otherUserOfTheTestsOnLoopback00000"
ACCOUNTS = {TOKEN: (USER, ORGS, "write"), READ_TOKEN: (USER, ORGS, "read"), OTHER_TOKEN: ("stranger", (), "write")}


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **body: object) -> None:
        headers = {"X-Error-Message": message.splitlines()[0]} | ({"X-Error-Code": code} if code else {})
        self.response = JSONResponse({"error": message, **body}, status, headers)


@dataclass
class Call:
    """One request, as its handler gets it."""

    hub: "HubServer"
    request: Request
    body: bytes
    token: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The namespaces in which the caller may read private repositories and, with a write token, write."""
        user, orgs, _ = ACCOUNTS[self.token] if self.token else ("", (), "")
        return (user, *orgs)

    def json(self) -> dict:
        return json.loads(self.body)

    def repo(self, kind: str, id: str, write: bool = False) -> Repo:
        repo = self.hub.repos.get((kind, id))
        if repo is None or (repo.private and repo.owner not in self.names):  # the hub gives the same answer for both
            raise Refused(404 if self.token else 401, "Repository not found", "RepoNotFound")
        if write:
            self.may_write(repo.owner, f"You don't have write access to {id}")
        return repo

    def may_write(self, owner: str, otherwise: str) -> None:
        if self.token is None:
            raise Refused(401, "Invalid username or password.")
        if ACCOUNTS[self.token][2] != "write":
            raise Refused(403, "This token has the read role: use one with the write role")
        if owner not in self.names:
            raise Refused(403, otherwise)

    def commit(self, repo: Repo, revision: str | None) -> Commit:
        commit = repo.at(revision or "main")
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit


# ---- handlers: (call, words of the path) -> response ----


def whoami(call: Call) -> Response:
    if call.token is None:
        raise Refused(401, "Invalid username or password.")
    user, orgs, role = ACCOUNTS[call.token]
    auth = {"type": "access_token", "accessToken": {"displayName": "tests", "role": role}}
    known = [{"type": "org", "name": o, "fullname": o, "roleInOrg": "write"} for o in orgs]
    return JSONResponse({"type": "user", "id": "0", "name": user, "fullname": user, "orgs": known, "auth": auth})


def harnesses(call: Call) -> Response:
    return JSONResponse({"standardEnvVars": [], "harnesses": {}})


def validate_yaml(call: Call) -> Response:
    errors, warnings = validate_card(call.json()["content"], call.json().get("repoType") or "model")
    body = {"errors": [{"message": m} for m in errors], "warnings": [{"message": m} for m in warnings]}
    return JSONResponse(body, 400 if errors else 200)


def create(call: Call) -> Response:
    asked = call.json()
    kind = asked.get("type") or "model"
    owner = asked.get("organization") or (call.names[0] if call.token else "")
    repo_id = f"{owner}/{asked['name']}"
    call.may_write(owner, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
    url = f"{call.hub.url}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
    if (kind, repo_id) in call.hub.repos:
        return JSONResponse({"error": f"You already created this {kind} repo", "url": url}, 409)
    private = asked.get("private") or asked.get("visibility") == "private"
    call.hub.repos[kind, repo_id] = Repo(kind, repo_id, private=bool(private), sdk=asked.get("sdk"))
    return JSONResponse({"url": url, "name": repo_id, "id": git_oid(repo_id.encode())[:24]})


def delete(call: Call) -> Response:
    asked = call.json()
    repo = call.repo(
        asked.get("type") or "model", f"{asked.get('organization') or call.names[0]}/{asked['name']}", write=True
    )
    del call.hub.repos[repo.kind, repo.id]
    return Response()


def info(call: Call, kind: str, id: str, rev: str | None = None) -> Response:
    repo = call.repo(kind, id)
    return JSONResponse(repo.info(call.commit(repo, rev), blobs="blobs" in call.request.query_params))


def settings(call: Call, kind: str, id: str) -> Response:
    repo = call.repo(kind, id, write=True)
    repo.private = call.json().get("private", call.json().get("visibility") == "private")
    return JSONResponse({"private": repo.private})


def refs(call: Call, kind: str, id: str) -> Response:
    repo = call.repo(kind, id)
    tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": sha} for n, sha in repo.tags.items()]
    branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.sha}]
    return JSONResponse({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


def tag(call: Call, kind: str, id: str, rev: str) -> Response:
    repo = call.repo(kind, id, write=True)
    repo.tags[call.json()["tag"]] = call.commit(repo, rev).sha
    return Response()


def log(call: Call, kind: str, id: str, rev: str) -> Response:
    repo = call.repo(kind, id)
    until = repo.history.index(call.commit(repo, rev)) + 1
    entries = [
        {"id": c.sha, "title": c.title, "message": "", "authors": [], "date": c.date} for c in repo.history[:until]
    ]
    return JSONResponse(entries[::-1])


def tree(call: Call, kind: str, id: str, rev: str, path: str | None = None) -> Response:
    repo = call.repo(kind, id)
    recursive = call.request.query_params.get("recursive", "").lower() in ("true", "1")
    entries = repo.tree(call.commit(repo, rev), path or "", recursive)
    if entries is None:
        raise Refused(404, f"{path} does not exist on {rev}", "EntryNotFound")
    return JSONResponse(entries)


def paths_info(call: Call, kind: str, id: str, rev: str) -> Response:
    repo = call.repo(kind, id)
    commit = call.commit(repo, rev)
    form = call.request.headers.get("content-type", "").startswith("application/x-www-form")
    paths = parse_qs(call.body.decode()).get("paths", []) if form else call.json()["paths"]
    entries = [repo.entry(commit, p.strip("/")) for p in paths]
    return JSONResponse([e for e in entries if e])


def preupload(call: Call, kind: str, id: str, rev: str) -> Response:
    repo = call.repo(kind, id, write=True)
    files = call.commit(repo, rev).files
    answer = []
    for asked in call.json()["files"]:
        path, large = asked["path"], is_large(asked["path"], asked["size"], base64.b64decode(asked["sample"]))
        known = {"oid": files[path].etag} if path in files else {}
        answer.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **known})
    return JSONResponse({"files": answer})


def batch(call: Call, kind: str, id: str) -> Response:
    call.repo(kind, id, write=True)
    objects = []
    for asked in call.json()["objects"]:
        entry = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
        if asked["oid"] not in call.hub.large:
            entry["actions"] = {"upload": {"href": f"{call.hub.url}/lfs-store/{asked['oid']}", "header": {}}}
        objects.append(entry)
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")


def store(call: Call, oid: str) -> Response:
    if hashlib.sha256(call.body).hexdigest() != oid:
        raise Refused(400, "the bytes do not have this sha256")
    call.hub.large[oid] = call.body
    return Response()


def commit(call: Call, kind: str, id: str, rev: str) -> Response:
    repo = call.repo(kind, id, write=True)
    head = call.commit(repo, rev)
    header, changes = {}, {}
    for line in map(json.loads, call.body.splitlines()):
        key, value = line["key"], line["value"]
        if key == "header":
            header = value
        elif key == "file":
            changes[value["path"]] = Blob(base64.b64decode(value["content"]), large=False)
        elif key == "lfsFile":
            if value["oid"] not in call.hub.large:
                raise Refused(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
            changes[value["path"]] = Blob(call.hub.large[value["oid"]], large=True)
        else:
            gone = [p for p in head.files if p == value["path"] or p.startswith(value["path"].rstrip("/") + "/")]
            if not gone:
                raise Refused(404, f"A file with this name doesn't exist: {value['path']}", "EntryNotFound")
            changes |= dict.fromkeys(gone)
    if header.get("parentCommit") not in (None, head.sha):
        raise Refused(412, "The repository changed since the parent commit")
    if changes.get("README.md"):
        errors, _ = validate_card(changes["README.md"].data.decode(), kind)
        if errors:
            raise Refused(400, "Invalid metadata in README.md", errors=[{"message": m} for m in errors])
    new = repo.commit(header["summary"], changes)
    prefix = "" if kind == "model" else f"{kind}s/"
    url = f"{call.hub.url}/{prefix}{id}/commit/{new.sha}"
    return JSONResponse({"success": True, "commitUrl": url, "commitOid": new.sha, "hookOutput": ""})


def resolve(call: Call, id: str, rev: str, path: str, kind: str = "model") -> Response:
    repo = call.repo(kind, id)
    if repo.gated and repo.owner not in call.names:
        raise Refused(403 if call.token else 401, f"Access to {kind} {id} is restricted", "GatedRepo")
    at = call.commit(repo, rev)
    headers = {"X-Repo-Commit": at.sha, "Accept-Ranges": "bytes"}
    blob = at.files.get(path)
    if blob is None:
        refusal = Refused(404, "Entry not found", "EntryNotFound")
        refusal.response.headers.update(headers)
        raise refusal
    if blob.large:  # from another host, as on the hub: the client must not send its token there
        call.hub.large[blob.sha256] = blob.data
        headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
        headers |= {"Location": f"http://localhost:{call.hub.port}/cdn/{blob.sha256}"}
        return Response(status_code=302, headers=headers)
    return ranged(call.request, blob.data, headers | {"ETag": f'"{blob.etag}"'})


def cdn(call: Call, oid: str) -> Response:
    return ranged(call.request, call.hub.large[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


def ranged(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not asked:
        return Response(data, 200, headers, "application/octet-stream")
    first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
    if first >= len(data):
        return Response(b"", 416, headers | {"Content-Range": f"bytes */{len(data)}"})
    headers |= {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
    return Response(data[first : last + 1], 206, headers, "application/octet-stream")


ID = r"(?P<id>[\w.-]+/[\w.-]+|[\w.-]+)"
API = r"/api/(?P<kind>model|dataset|space)s/" + ID
REV, PATH = r"(?P<rev>[^/]+)", r"(?P<path>.+)"
REPO = r"/(?:(?P<kind>dataset|space)s/)?" + ID


def by_page(handler):
    """URLs of models do not begin with `models/`: there `kind` is missing."""
    return lambda call, kind=None, **words: handler(call, kind=kind or "model", **words)


ROUTES = [
    (method, re.compile(pattern), handler)
    for method, pattern, handler in [
        ("GET", "/api/whoami-v2", whoami),
        ("GET", "/api/agent-harnesses", harnesses),
        ("POST", "/api/validate-yaml", validate_yaml),
        ("POST", "/api/repos/create", create),
        ("DELETE", "/api/repos/delete", delete),
        ("GET", f"{API}(?:/revision/{REV})?", info),
        ("PUT", f"{API}/settings", settings),
        ("GET", f"{API}/refs", refs),
        ("POST", f"{API}/tag/{REV}", tag),
        ("GET", f"{API}/commits/{REV}", log),
        ("GET", f"{API}/tree/{REV}(?:/{PATH})?", tree),
        ("POST", f"{API}/paths-info/{REV}", paths_info),
        ("POST", f"{API}/preupload/{REV}", preupload),
        ("POST", f"{API}/commit/{REV}", commit),
        ("POST", rf"{REPO}\.git/info/lfs/objects/batch", by_page(batch)),
        ("PUT", "/lfs-store/(?P<oid>[0-9a-f]{64})", store),
        ("GET HEAD", "/cdn/(?P<oid>[0-9a-f]{64})", cdn),
        ("GET HEAD", f"{REPO}/resolve/{REV}/{PATH}", by_page(resolve)),
    ]
]
