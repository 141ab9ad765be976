"""Logs on standard error: ours, and not those of libraries, which show what nobody asked for."""

import json
import socket
import threading

import pytest
from cli import process
from hubserver import ROLE
from registryserver import Reply, Server

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a"},
    "spec": {"containers": [{"name": "c", "image": "nginx", "securityContext": {"privileged": True}}]},
}


def scan(tmp_path, sink, *args, **environment):
    (tmp_path / "kubeposture.yaml").write_text(json.dumps({"sinks": [sink]}))
    more = (
        "--config",
        tmp_path / "kubeposture.yaml",
        "--history",
        tmp_path / "h.db",
        "-o",
        f"json={tmp_path / 'report'}",
    )
    args = ("scan", "manifests", "-", "-c", "k8s-privileged-container", *more, "--deliver", "-q", *args)
    return process(*args, stdin=json.dumps(POD), **environment)


@pytest.fixture
def odd():
    """A server that sends a line that is no header."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    data = b""
                    while b"\r\n\r\n" not in data:
                        data += connection.recv(65536)
                    head, _, body = data.partition(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    while len(body) < length:
                        body += connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 204 No Content\r\nX-Ok: 1\r\nno header hunter2\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("args", [(), ("-v",), ("-v", "--log-format", "json")])
def test_no_library_tells_of_an_odd_answer(tmp_path, odd, args):
    result = scan(tmp_path, {"webhook": {"url": f"http://127.0.0.1:{odd}/hunter2?sig=hunter2"}}, *args)
    assert result.code == 0, result.stderr
    assert "webhook: 2 delivered" in result.stderr
    assert "hunter2" not in result.stderr
    assert "Traceback" not in result.stderr


def test_no_library_tells_of_credentials_that_do_not_work(tmp_path):
    body = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized</Message></Error></ErrorResponse>"
    (tmp_path / "token").write_text("eyJhbGciOiJub25lIn0.e30.x")
    with Server(lambda _: Reply(403, body, (("Content-Type", "text/xml"),))) as sts:
        environment = {
            "AWS_ENDPOINT_URL_STS": sts.url,
            "AWS_ROLE_ARN": ROLE,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        sink = {"objects": {"url": "s3://acme-events", "region": "eu-west-1"}}
        result = scan(tmp_path, sink, **environment)
    assert result.code == 5
    first, *others = result.stderr.splitlines()
    assert first == "kubeposture: objects: 0 delivered, 2 waiting: AccessDenied: Not authorized"
    assert others == ["kubeposture: the next scan with --deliver goes on, or `kubeposture deliver`"]
