"""Azure Blob Storage and Google Cloud Storage on a loopback socket, for obstore: objects that are only ever created.

    with ObjectServer(knows) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        ...
    assert list(server.objects) == ["container/prefix/day=2026-09-01/…ndjson.gz"]

A request that is no upload, has no valid token, or might overwrite, ends the block with an error. `answers` holds what
is said in place of the next answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from registryserver import Reply, Request, Server

SEEN = ("Last-Modified", "Tue, 01 Sep 2026 12:30:15 GMT")
BLOB, OBJECT = (
    (("ETag", '"0x8DBC0A"'), SEEN),
    (("ETag", '"5d41402abc"'), ("x-goog-generation", "1788265815123456"), SEEN),
)


@dataclass
class ObjectServer:
    knows: Callable[[str], bool]  # whether a token is one that was given
    objects: dict[str, bytes] = field(default_factory=dict)
    answers: list[Reply] = field(default_factory=list)

    def __enter__(self) -> ObjectServer:
        self.server = Server(self._answer)
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()

    @property
    def environment(self) -> dict[str, str]:
        """With which obstore comes here."""
        url = self.server.url
        return {"AZURE_STORAGE_ENDPOINT": url, "AZURE_ALLOW_HTTP": "true", "GOOGLE_BASE_URL": url}

    def _answer(self, request: Request) -> Reply:
        assert (request.method, request.query) == ("PUT", "")
        assert self.knows(request.headers["authorization"].removeprefix("Bearer ")), "a token that nobody gave"
        azure = "x-ms-version" in request.headers
        if azure:
            assert request.headers["if-none-match"] == "*"
            assert request.headers["x-ms-blob-type"] == "BlockBlob"
        else:
            assert request.headers["x-goog-if-generation-match"] == "0"
        name = unquote(request.path).removeprefix("/")
        if self.answers:
            return self.answers.pop(0)
        if name in self.objects:
            return failure(409, "BlobAlreadyExists") if azure else failure(412, "PreconditionFailed")
        self.objects[name] = request.body
        return Reply(201, b"", BLOB) if azure else Reply(200, b"", OBJECT)


def failure(status: int, code: str) -> Reply:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>secret-of-a-body</Message></Error>'
    return Reply(status, body.encode(), (("Content-Type", "application/xml"),))
