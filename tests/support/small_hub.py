"""A Hugging Face hub on this machine: its protocol as far as huggingface_hub speaks it, files in folders."""

import base64
import hashlib
import http.server
import json
import shutil
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants as hub_constants
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""of a branch to which nothing was pushed"""
TOKEN = "hf_small"
Fault = Literal["", "html", "down", "short", "altered", "no commit"]


class Hub(http.server.ThreadingHTTPServer):
    """Serves ``root/branch/owner/name`` as the hub does, and takes commits from who has the token.

    ``fault`` is what is wrong with it: pages instead of answers, 503, files that end early or have another
    byte, or commits that fail. ``given`` are the files it gave away, ``asked`` counts requests.
    """

    def __init__(self, root: Path):
        self.root, self.given, self.asked = root, list[str](), 0
        self.withheld = ""
        self.fault: Fault = ""
        self.commits, self.private, self.objects = (
            dict[tuple[str, str], str](),
            set[str](),
            dict[str, bytes](),
        )
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def folder(self, repo: str, branch: str = "main") -> Path:
        return self.root / branch / repo

    def commit(self, repo: str, branch: str = "main") -> str:
        return self.commits.get((repo, branch), COMMIT)

    def branch(self, repo: str, revision: str) -> str | None:
        """By its name or its last commit."""
        branches = [path.name for path in self.root.iterdir() if (path / repo).is_dir()]
        return next((name for name in branches if revision in (name, self.commit(repo, name))), None)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.server.asked += 1
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.server.fault == "html":
            self.answer(200, b"<html>Welcome to this hotel's network</html>", {"Content-Type": "text/html"})
        elif self.server.fault == "down":
            self.answer(503, b"", {})
        elif parts == [""]:
            self.answer(200, b"", {})
        else:
            api = parts[0] == "api"  # api/models/owner/name[/revision/…], owner/name/resolve/…/file
            repo = "/".join(parts[2:4] if api else parts[:2])
            self.read(repo, "".join(parts[5:6] if api else parts[3:4]) or "main", "/".join(parts[4:]), api)

    do_HEAD = do_GET

    def read(self, repo: str, revision: str, file: str, api: bool) -> None:
        branch = self.server.branch(repo, revision)
        allowed = repo not in self.server.private or self.may_write()
        if not allowed or self.server.branch(repo, "main") is None:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif branch is None:
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif api and file.startswith("tree/"):
            self.say(self.tree(repo, branch))
        elif api:
            self.say(self.info(repo, branch))
        elif file == self.server.withheld:
            self.answer(403, b"", {})
        else:
            self.give(repo, branch, file)

    def info(self, repo: str, branch: str) -> dict[str, Any]:
        folder = self.server.folder(repo, branch)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        return {
            "id": repo, "sha": self.server.commit(repo, branch),
            "siblings": [{"rfilename": file} for file in files],
            "private": repo in self.server.private, "tags": [], "downloads": 0, "likes": 0,
        }  # fmt: skip

    def tree(self, repo: str, branch: str) -> list[dict[str, Any]]:
        folder = self.server.folder(repo, branch)
        return [
            {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": name}
            for name in (sibling["rfilename"] for sibling in self.info(repo, branch)["siblings"])
        ]

    def give(self, repo: str, branch: str, file: str) -> None:
        body = (self.server.folder(repo, branch) / file).read_bytes()
        etag = hashlib.sha256(body).hexdigest()
        if self.command == "GET":
            self.server.given.append(file)
            if self.server.fault == "short":
                body = body[: len(body) // 2]
            elif self.server.fault == "altered":
                body = body[:-1] + bytes([body[-1] ^ 1])
        self.answer(200, body, {"X-Repo-Commit": self.server.commit(repo, branch), "ETag": f'"{etag}"'})

    def do_POST(self) -> None:
        body = self.body()
        self.server.asked += 1
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.path == "/api/validate-yaml":
            self.say({})
        elif not self.may_write():
            self.answer(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            self.batch(json.loads(body))
        elif parts[4] == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            mode = {True: "lfs", False: "regular"}
            self.say(
                {
                    "files": [
                        {"path": f, "uploadMode": mode[f.endswith(".safetensors")], "shouldIgnore": False}
                        for f in files
                    ]
                }
            )
        elif parts[4] == "branch":
            self.make_branch("/".join(parts[2:4]), "/".join(parts[5:]))
        elif self.server.fault == "no commit":
            self.answer(500, b"", {"X-Error-Message": "out of order"})
        else:
            self.take("/".join(parts[2:4]), "/".join(parts[5:]), body)

    def do_PUT(self) -> None:
        body = self.body()
        self.server.objects[hashlib.sha256(body).hexdigest()] = body
        self.answer(200, b"", {})

    def create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        if self.server.folder(repo).is_dir():
            self.say({"url": f"{self.server.url}/{repo}", "error": "You already created this"}, 409)
            return
        self.server.folder(repo).mkdir(parents=True)
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(repo)
        self.say({"url": f"{self.server.url}/{repo}"})

    def make_branch(self, repo: str, name: str) -> None:
        if self.server.folder(repo, name).is_dir():
            self.answer(409, b"{}", {})
            return
        shutil.copytree(self.server.folder(repo), self.server.folder(repo, name))
        self.answer(200, b"", {})

    def batch(self, asked: dict[str, Any]) -> None:
        def put(entry: dict[str, Any]) -> dict[str, Any]:
            return {**entry, "actions": {"upload": {"href": f"{self.server.url}/objects/{entry['oid']}"}}}

        self.say({"transfer": "basic", "objects": [put(entry) for entry in asked["objects"]]})

    def take(self, repo: str, branch: str, body: bytes) -> None:
        """A commit: lines of JSON, with regular files inside and large ones by their hash."""
        folder = self.server.folder(repo, branch)
        for line in map(json.loads, body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "deletedFile":
                (folder / value["path"]).unlink()
            elif key in ("file", "lfsFile"):
                content = (
                    base64.b64decode(value["content"]) if key == "file" else self.server.objects[value["oid"]]
                )
                (folder / value["path"]).write_bytes(content)
        commit = hashlib.sha1(body).hexdigest()
        self.server.commits[repo, branch] = commit
        self.say({"commitUrl": f"{self.server.url}/{repo}/commit/{commit}", "commitOid": commit})

    def may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def say(self, answer: dict[str, Any] | list[dict[str, Any]], status: int = 200) -> None:
        self.answer(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def small_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    """A hub without repositories, which huggingface_hub asks, and an empty cache in ``folder/cache``."""
    (folder / "hub" / "main").mkdir(parents=True)
    with Hub(folder / "hub") as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        use(server.url, monkeypatch)
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(folder / "cache"))
        monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)  # its storage is another service
        yield server
        server.shutdown()


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub take this server for the hub."""
    monkeypatch.setattr(hub_constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"
