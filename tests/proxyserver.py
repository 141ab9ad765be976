"""A proxy on a loopback socket that sends everything to one server."""

from __future__ import annotations

import select
import socket
import socketserver
import threading


class Proxy(socketserver.ThreadingTCPServer):
    """Sends everything to one port, whatever host was asked for: CONNECT, and absolute URLs of plain http."""

    daemon_threads = False

    def __init__(self, port: int, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.port, self.answer = port, answer
        self.heads: list[str] = []
        self.url = f"127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Proxy:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class _ProxyHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.request.recv(4096)
        self.server.heads.append(head.decode())
        with socket.create_connection(("127.0.0.1", self.server.port)) as upstream:
            if head.startswith(b"CONNECT"):
                self.request.sendall(self.server.answer)
            else:
                method, url, rest = head.split(b" ", 2)
                upstream.sendall(b" ".join((method, b"/" + url.split(b"/", 3)[3], rest)))
            _pump(self.request, upstream)


def _pump(one: socket.socket, other: socket.socket) -> None:
    while True:
        for ready in select.select([one, other], [], [], 5)[0]:
            data = ready.recv(65536)
            if not data:
                return
            (other if ready is one else one).sendall(data)
