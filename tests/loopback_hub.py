"""A small Hugging Face Hub on 127.0.0.1, for tests that drive the real `huggingface_hub` client.

It answers what the client asks of a model repository: who am I, create, branch, preupload, LFS batch (basic transfer),
LFS upload with its sha256 checked, commit (NDJSON, all or nothing), repository info, tree, and download with ETag and
commit.
Point a process at it with `LoopbackHub.environment`: the client reads `HF_ENDPOINT` when it is imported.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"
USER = "tester"
LFS_SUFFIXES = {".safetensors", ".bin", ".png", ".pt"}


@dataclass(frozen=True)
class Blob:
    """One file of a commit: its bytes, and whether it lives in large file storage."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        """The oid that the client compares: sha256 for LFS files, git's blob hash for the others."""
        return self.sha256 if self.lfs else hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    def entry(self, path: str) -> dict:
        entry = {"type": "file", "path": path, "size": len(self.data), "oid": self.etag}
        if self.lfs:
            entry["oid"] = hashlib.sha1(self.sha256.encode()).hexdigest()
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 128}
        return entry


@dataclass
class Repo:
    """A model repository: branches point to commits, a commit is a mapping from paths to blobs."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, Blob], message: str) -> str:
        text = json.dumps([branch, len(self.commits), message, sorted((p, b.etag) for p, b in files.items())])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)


@dataclass
class Failure:
    """Answer `status` instead of doing the work, or after doing it, from the `nth` matching request, `times` times.

    A status of 0 closes the connection without an answer.
    """

    method: str
    path: str
    status: int
    nth: int = 1
    times: int = 10**9
    after: bool = False
    seen: int = 0

    def hits(self, method: str, path: str) -> bool:
        if method != self.method or not re.search(self.path, path):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


class LoopbackHub:
    """The server and its state; a context manager that listens on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.failures: list[Failure] = []
        self.requests: list[tuple[str, str]] = []
        self.unknown: list[tuple[str, str]] = []
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "LoopbackHub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Variables for a client process whose cache is the fresh folder `home`."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }
        return variables if token is None else {**variables, "HF_TOKEN": token}

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """What the repository holds at a revision."""
        repo = self.repos[repo_id]
        sha = repo.resolve(revision)
        return {path: blob.data for path, blob in repo.commits[sha].items()} if sha else {}


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", commit: str = "") -> None:
        self.status, self.code, self.message, self.commit = status, code, message, commit


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, or the client waits for its delayed acknowledgement
    instead: Failure | None = None

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output quiet."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            self.instead = next((failure for failure in self.hub.failures if failure.hits(self.command, path)), None)
            if self.instead and not self.instead.after:
                self._send(self.instead.status, {})
                return
            try:
                for method, pattern, route in ROUTES:
                    match = re.fullmatch(pattern, path)
                    if match and self.command in method:
                        route(self, body, **match.groupdict())
                        return
                self.hub.unknown.append((self.command, path))
                raise _Refused(404, message=f"no route for {self.command} {path}")
            except _Refused as refused:
                headers = {"X-Error-Code": refused.code} if refused.code else {}
                if refused.message:
                    headers["X-Error-Message"] = refused.message
                if refused.commit:
                    headers["X-Repo-Commit"] = refused.commit
                self._send(refused.status, {"error": refused.message}, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, payload: object, headers: dict[str, str] | None = None) -> None:
        if self.instead:
            status, payload, headers = self.instead.status, {"error": "refused by the test"}, {}
            if status == 0:
                self.close_connection = True
                return
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        if not isinstance(payload, bytes):
            self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _signed_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _require_sign_in(self) -> None:
        if not self._signed_in():
            raise _Refused(401, message="Invalid username or password.")

    def _repo(self, repo_id: str) -> Repo:
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and not self._signed_in()):
            raise _Refused(404, "RepoNotFound", "Repository not found")
        return repo

    def _commit(self, repo_id: str, revision: str) -> tuple[Repo, str, dict[str, Blob]]:
        repo = self._repo(repo_id)
        sha = repo.resolve(revision)
        if sha is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, sha, repo.commits[sha]

    def whoami(self, body: bytes) -> None:
        self._require_sign_in()
        self._send(200, {"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token"}})

    def nothing(self, body: bytes) -> None:
        """What the client asks of its own accord and can do without; an answer would land in the user's cache."""
        raise _Refused(404)

    def validate_yaml(self, body: bytes) -> None:
        text = json.loads(body)["content"]
        errors = [] if re.match(r"---\n.*?\n---\n", text, re.S) else [{"message": "no metadata at the top"}]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def create(self, body: bytes) -> None:
        self._require_sign_in()
        wanted = json.loads(body)
        repo_id = f"{wanted.get('organization') or USER}/{wanted['name']}"
        answer = {"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id, "id": repo_id}
        if repo_id in self.hub.repos:
            self._send(409, {**answer, "error": "You already created this model repo"})
            return
        self.hub.repos[repo_id] = repo = Repo(private=wanted.get("visibility") == "private")
        repo.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", lfs=False)}, "initial commit")
        self._send(200, answer)

    def branch(self, body: bytes, repo_id: str, revision: str) -> None:
        self._require_sign_in()
        repo = self._repo(repo_id)
        if revision in repo.branches:
            raise _Refused(409, message="Reference already exists")
        repo.branches[revision] = repo.branches["main"]
        self._send(201, {})

    def info(self, body: bytes, repo_id: str, revision: str = "main") -> None:
        repo, sha, files = self._commit(repo_id, revision)
        siblings = [{"rfilename": path} for path in sorted(files)]
        self._send(200, {"id": repo_id, "modelId": repo_id, "sha": sha, "private": repo.private, "siblings": siblings})

    def tree(self, body: bytes, repo_id: str, revision: str, folder: str | None = None) -> None:
        _, sha, files = self._commit(repo_id, revision)
        inside = {path: blob for path, blob in files.items() if not folder or path.startswith(folder + "/")}
        if folder and not inside:
            raise _Refused(404, "EntryNotFound", f"{folder} does not exist on {revision}", sha)
        self._send(200, [blob.entry(path) for path, blob in sorted(inside.items())])

    def preupload(self, body: bytes, repo_id: str, revision: str) -> None:
        self._require_sign_in()
        _, _, files = self._commit(repo_id, revision)
        answers = []
        for wanted in json.loads(body)["files"]:
            path = wanted["path"]
            mode = "lfs" if Path(path).suffix in LFS_SUFFIXES else "regular"
            oid = files[path].etag if path in files else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send(200, {"files": answers})

    def lfs_batch(self, body: bytes, repo_id: str) -> None:
        self._require_sign_in()
        self._repo(repo_id)
        objects = []
        for wanted in json.loads(body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.lfs:
                answer["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{wanted['oid']}", "header": {}}}
            objects.append(answer)
        self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_upload(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refused(400, message="the content's sha256 is not the announced one")
        self.hub.lfs[oid] = body
        self._send(200, b"")

    def commit(self, body: bytes, repo_id: str, revision: str) -> None:
        self._require_sign_in()
        repo, _, current = self._commit(repo_id, revision)
        files, message = dict(current), ""
        for line in body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise _Refused(400, message=f"{value['path']}: its LFS object was never uploaded")
                files[value["path"]] = Blob(self.hub.lfs[value["oid"]], lfs=True)
            elif key == "deletedFile":
                files.pop(value["path"], None)
            else:
                raise _Refused(400, message=f"unknown operation {key}")
        sha = repo.commit(revision, files, message)
        self._send(200, {"commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{sha}", "commitOid": sha})

    def resolve(self, body: bytes, repo_id: str, revision: str, file: str) -> None:
        _, sha, files = self._commit(repo_id, revision)
        if file not in files:
            raise _Refused(404, "EntryNotFound", f"{file} does not exist on {revision}", sha)
        blob = files[file]
        self._send(200, blob.data, {"X-Repo-Commit": sha, "ETag": f'"{blob.etag}"', "Accept-Ranges": "none"})


_REPO = r"(?P<repo_id>[^/]+/[^/]+?)"
_REVISION = r"(?P<revision>[^/]+)"
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("GET",), r"/api/whoami-v2", _Handler.whoami),
    (("GET",), r"/api/agent-harnesses", _Handler.nothing),
    (("POST",), r"/api/validate-yaml", _Handler.validate_yaml),
    (("POST",), r"/api/repos/create", _Handler.create),
    (("POST",), rf"/api/models/{_REPO}/branch/{_REVISION}", _Handler.branch),
    (("POST",), rf"/api/models/{_REPO}/preupload/{_REVISION}", _Handler.preupload),
    (("POST",), rf"/api/models/{_REPO}/commit/{_REVISION}", _Handler.commit),
    (("GET",), rf"/api/models/{_REPO}/tree/{_REVISION}(?:/(?P<folder>.+))?", _Handler.tree),
    (("GET",), rf"/api/models/{_REPO}/revision/{_REVISION}", _Handler.info),
    (("GET",), rf"/api/models/{_REPO}", _Handler.info),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_upload),
    (("GET", "HEAD"), rf"/{_REPO}/resolve/{_REVISION}/(?P<file>.+)", _Handler.resolve),
]
