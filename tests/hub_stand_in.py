"""A stand-in for the Hugging Face Hub: as much of its protocol as creating a repository and uploading files need."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

TOKEN = "hf_of_the_test"


@dataclass
class Repository:
    """A repository: what it was created with, and its files."""

    created: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        return hashlib.sha1(json.dumps(sorted(self.files)).encode()).hexdigest()


@dataclass
class HubStandIn:
    """The Hub's state.

    Attributes:
        address: where it listens.
        repositories: by kind and id, such as `spaces/me/steer`.
        refuses: status with which creating is refused; 0 to take everything.
    """

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    refuses: int = 0
    unknown: list[str] = field(default_factory=list)

    async def create(self, request: Request) -> JSONResponse:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid token"}, 401)
        if self.refuses:
            return JSONResponse({"error": "refused by the test"}, self.refuses)
        asked = await request.json()
        id = f"{asked.get('organization') or 'me'}/{asked['name']}"
        key = f"{asked.get('type', 'model')}s/{id}"
        answer = {"url": f"{self.address}/{key}", "id": id, "name": id}
        if key in self.repositories:
            return JSONResponse({"error": "You already created this repository", **answer}, 409)
        self.repositories[key] = Repository(asked)
        return JSONResponse(answer)

    def repository(self, request: Request) -> Repository | None:
        parts = request.path_params
        return self.repositories.get(f"{parts['kind']}/{parts['owner']}/{parts['name']}")

    async def info(self, request: Request) -> JSONResponse:
        found = self.repository(request)
        if found is None:
            return JSONResponse({"error": "Repository not found"}, 404, headers={"X-Error-Code": "RepoNotFound"})
        id = f"{request.path_params['owner']}/{request.path_params['name']}"
        siblings = [{"rfilename": name} for name in found.files]
        return JSONResponse({"_id": id, "id": id, "sha": found.sha, "private": False, "tags": [], "siblings": siblings})

    async def tree(self, request: Request) -> JSONResponse:
        found = self.repository(request)
        files = found.files.items() if found else ()
        return JSONResponse(
            [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in files
            ]
        )

    async def preupload(self, request: Request) -> JSONResponse:
        asked = await request.json()
        files = [
            {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
            for each in asked["files"]
        ]
        return JSONResponse({"files": files})

    async def commit(self, request: Request) -> JSONResponse:
        found, parts = self.repository(request), request.path_params
        assert found is not None
        for line in (await request.body()).splitlines():
            step = json.loads(line)
            if step["key"] == "file":
                found.files[step["value"]["path"]] = base64.b64decode(step["value"]["content"])
            if step["key"] == "deletedFile":
                found.files.pop(step["value"]["path"], None)
        return JSONResponse(
            {
                "success": True,
                "commitUrl": f"{self.address}/{parts['kind']}/{parts['owner']}/{parts['name']}/commit/{found.sha}",
                "commitOid": found.sha,
                "hookOutput": "",
            }
        )

    async def valid(self, request: Request) -> JSONResponse:
        return JSONResponse({"errors": [], "warnings": []})

    async def anything_else(self, request: Request) -> JSONResponse:
        self.unknown.append(f"{request.method} {request.url.path}")
        return JSONResponse({"error": "the stand-in does not know this"}, 404)


@contextmanager
def hub_stand_in() -> Iterator[HubStandIn]:
    """Serve a stand-in on a free port."""
    hub = HubStandIn()
    repository = "/api/{kind}/{owner}/{name}"
    routes = [
        Route("/api/repos/create", hub.create, methods=["POST"]),
        Route("/api/validate-yaml", hub.valid, methods=["POST"]),
        Route(f"{repository}/preupload/{{revision}}", hub.preupload, methods=["POST"]),
        Route(f"{repository}/commit/{{revision}}", hub.commit, methods=["POST"]),
        Route(f"{repository}/revision/{{revision}}", hub.info),
        Route(f"{repository}/tree/{{revision}}", hub.tree),
        Route(repository, hub.info),
        Route("/{path:path}", hub.anything_else, methods=["GET", "POST", "HEAD", "PUT", "DELETE"]),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    hub.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield hub
    server.should_exit = True
    thread.join()
