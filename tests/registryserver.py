"""A server on a loopback socket that answers as its `answer` function says, for tests of what reads registries."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Request(NamedTuple):
    method: str
    path: str
    query: str
    headers: dict[str, str]  # lower-case names
    body: bytes


@dataclass
class Reply:
    """`body` that is no bytes is sent as JSON; "hang" as the status says nothing at all, "reset" hangs up at once."""

    status: int | str = 200
    body: Any = b""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Server:
    """A context manager; `requests` is what came in."""

    def __init__(self, answer: Callable[[Request], Reply], tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self.errors: list[BaseException] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._http.daemon_threads = False
        self._http.handle_error = lambda *_: None  # clients that hang up are what the tests are about
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._http.server_address[1]
        self.host = f"{'localhost' if tls else '127.0.0.1'}:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        if self.errors:
            raise self.errors[0]

    def paths(self, method: str = "") -> list[str]:
        return [r.path for r in self.requests if method in ("", r.method)]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, parts.path, parts.query, headers, body)
                server.requests.append(request)
                try:
                    reply = server.answer(request)
                except Exception as error:
                    server.errors.append(error)
                    raise
                if reply.status == "hang":
                    server.stopping.wait()
                if isinstance(reply.status, str):
                    return
                self.send_response(int(reply.status))
                for name, value in (("Content-Length", str(len(reply.data))), *reply.headers):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.data)

            do_CONNECT = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - so that a write is seen

            def log_message(self, *_: object) -> None:
                pass

        return Handler
