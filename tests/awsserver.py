"""Amazon Web Services on a loopback socket, for the real boto3; it misbehaves on request.

    with AwsServer(sample_estate()) as aws:
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)  # AWS_ENDPOINT_URL leads every client here
        aws.deny("eks:ListNodegroups", account=DEV)
        aws.inject("^eks:DescribeCluster$", throttle(), times=2, where={"name": "eks-private"})
        names = boto3.client("eks", region_name=SEOUL).list_clusters()["clusters"]
        assert {r.action for r in aws.requests} == {"eks:ListClusters"}

Who answers: moto (in this process, started with the first request that needs it) has all of `iam`, `logs` and
`guardduty`, and of `ecr` GetRepositoryPolicy, GetLifecyclePolicy and GetRegistryScanningConfiguration, made from the
estate through boto3; and whatever the server does not know. The server itself answers, from the estate to the letter,
what moto lacks or bends:

- `eks`: moto has no add-ons, access entries or versions, drops the newer fields of a cluster and makes up others.
- `ec2` (DescribeRegions, DescribeSubnets, DescribeRouteTables): neither ids nor closed regions can be chosen there.
- `sts` (GetCallerIdentity, AssumeRole): there everybody may take any role, with any external id.
- `organizations` (ListAccounts, DescribeOrganization): the ids of accounts cannot be chosen there.
- `ecr` DescribeRepositories (no pages there) and BatchGetRepositoryScanningConfiguration (no limit of 25 names).
- `ecr` DescribeImages, BatchGetImage, DescribeImageScanFindings: no pages there, and one made-up finding for all.
- `inspector2` BatchGetAccountStatus (fails there unless accounts are named), ListCoverage (not there), ListFindings.

`from_moto` names actions that moto answers all the same, for a test that makes with boto3 what they tell of.

With `moto=False` the server answers everything itself: nothing has to be imported and set up (for moto, a log group
with its filter takes 20 ms), and ids and dates are those of the estate. Keys and session tokens are looked at,
signatures are not.

`python tests/awsserver.py --accounts 1 --regions 10 --clusters 1000` serves a large estate until standard input is
closed, from a process of its own, so that its CPU time and memory are not counted with the scanner's.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import binascii
import dataclasses
import fnmatch
import functools
import hashlib
import http.client
import json
import logging
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import apiserver
import botocore.exceptions
import botocore.loaders
import botocore.model
from apiserver import Fault, body, delay, drip, drip_chunks, drip_headers, flood, hang
from aws_data import ORGANIZATION, Account, Eks, Estate, Policy, Region, Role, arn, iam_arn, large_estate

__all__ = [
    "BOUNDARY",
    "IDENTITY",
    "SCP",
    "AwsServer",
    "Credentials",
    "Request",
    "amended",
    "body",
    "closed",
    "delay",
    "denied",
    "drip",
    "drip_chunks",
    "drip_headers",
    "empty",
    "expired",
    "flood",
    "gone",
    "hang",
    "opt_in_required",
    "reset",
    "status",
    "throttle",
]

Object = dict[str, Any]


class Request(NamedTuple):
    service: str
    operation: str
    region: str
    account: str  # whose credentials signed it; "" for keys that were not given out here
    parameters: Object  # under the names that boto3 takes
    method: str
    path: str

    @property
    def action(self) -> str:
        """What one has to be allowed: `eks:ListClusters`."""
        return f"{self.service}:{self.operation}"


class Credentials(NamedTuple):
    access_key: str
    secret_key: str
    token: str  # "" for those of a user, which last
    account: str
    principal: str  # the ARN that AWS shows
    expires: float = float("inf")


# --- what can go wrong ---
# A fault is a function of the handler. It answers the request itself, or returns "pass" to let the server answer.
# Those of apiserver.py serve here too. Each service words errors in the way of its protocol.

IDENTITY = "because no identity-based policy allows the {} action"
BOUNDARY = "because no permissions boundary allows the {} action"
SCP = "with an explicit deny in a service control policy"

_WORDS = {  # code and HTTP status, by protocol
    "denied": {
        "rest-json": ("AccessDeniedException", 403),
        "json": ("AccessDeniedException", 400),
        "query": ("AccessDenied", 403),
        "ec2": ("UnauthorizedOperation", 403),
    },
    "unrecognized": {
        "rest-json": ("UnrecognizedClientException", 403),
        "json": ("UnrecognizedClientException", 400),
        "query": ("InvalidClientTokenId", 403),
        "ec2": ("AuthFailure", 401),
    },
    "expired": {
        "rest-json": ("ExpiredTokenException", 403),
        "json": ("ExpiredTokenException", 400),
        "query": ("ExpiredToken", 403),
        "ec2": ("RequestExpired", 400),
    },
    "throttled": {
        "rest-json": ("TooManyRequestsException", 429),
        "json": ("ThrottlingException", 400),
        "query": ("Throttling", 400),
        "ec2": ("RequestLimitExceeded", 503),
    },
}
_INVALID_TOKEN = "The security token included in the request is invalid."


def status(code: int, error_code: str = "", message: str = "injected", *, retry_after: float | None = None) -> Fault:
    """An error in the service's own form."""
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}

    def answer(handler: _Handler) -> None:
        handler.reply_error(code, error_code or _ERROR_CODES.get(code, "InternalFailure"), message, headers)

    return answer


def denied(because: str = IDENTITY) -> Fault:
    """Not authorized, for this reason."""

    def answer(handler: _Handler) -> None:
        handler.reply_words("denied", _not_authorized(handler.call, because))

    return answer


def throttle() -> Fault:
    return lambda handler: handler.reply_words("throttled", "Rate exceeded")


def closed() -> Fault:
    """What a region answers that the account did not opt into."""
    return lambda handler: handler.reply_unrecognized()


def opt_in_required() -> Fault:
    """What a service answers that the account may not use at all."""
    text = "You are not subscribed to this service. Please go to http://aws.amazon.com to subscribe."
    return status(403, "OptInRequired", text)


def expired() -> Fault:
    return lambda handler: handler.reply_words("expired", "The security token included in the request is expired")


def gone() -> Fault:
    """As if the cluster had been deleted in the meantime."""

    def answer(handler: _Handler) -> None:
        asked = handler.call.asked.parameters
        handler.reply_refused(_no_cluster(asked.get("name") or asked.get("clusterName", "")))

    return answer


def empty() -> Fault:
    """Nothing, in the form of the operation: all its lists are empty, and all else is absent."""

    def answer(handler: _Handler) -> None:
        wire, operation = handler.call.wire, handler.call.asked.operation
        lists = {name: [] for name, shape in wire.output(operation).members.items() if shape.type_name == "list"}
        handler.reply_wire(wire.encode(operation, lists))

    return answer


def amended(change: Callable[[Object], None]) -> Fault:
    """What moto answers to a GET request of a JSON service, with this change."""

    def answer(handler: _Handler) -> None:
        found = _moto().answer(handler, b"")
        said = json.loads(found.body)
        if found.status == 200:
            change(said)
        handler.reply(found.status, json.dumps(said).encode(), handler.call.wire.content_type)

    return answer


def reset() -> Fault:
    """Half an answer, then RST."""
    return apiserver.reset(b'{"clusters":[')


_ERROR_CODES = {
    400: "ValidationException",
    404: "ResourceNotFoundException",
    429: "TooManyRequestsException",
    503: "ServiceUnavailableException",
}


class Refused(Exception):
    """An answer of a service that is an error; `members` are what the error has besides its message."""

    def __init__(self, code: str, message: str, status: int = 400, **members: Any) -> None:
        super().__init__(code, message)
        self.code, self.message, self.status, self.members = code, message, status, members


@dataclass
class _Rule:
    pattern: re.Pattern[str]
    fault: Fault
    account: str | None
    region: str | None
    where: Mapping[str, Any]
    after: int = 0
    times: int | None = None
    seen: int = 0

    def takes(self, asked: Request) -> bool:
        here = self.account in (None, asked.account) and self.region in (None, asked.region)
        same = all(asked.parameters.get(name) == value for name, value in self.where.items())
        if not (here and same and self.pattern.search(asked.action)):
            return False
        self.seen += 1
        return self.seen > self.after and (self.times is None or self.seen <= self.after + self.times)


@dataclass
class AwsServer:
    """A context manager. Call `load` after changes to the estate.

    After the block, whatever broke inside the server or in moto (not what tests injected) is raised.
    """

    estate: Estate
    moto: bool = True
    from_moto: frozenset[str] = frozenset()  # more actions that moto answers: a test made there what they tell of
    page_size: int | None = None  # instead of each service's own; moto pages as it likes
    latency: float = 0.0
    session_seconds: int | None = None  # boto3 renews a session in its last fifteen minutes
    requests: list[Request] = field(default_factory=list)
    sessions: list[Credentials] = field(default_factory=list)  # what AssumeRole gave out
    errors: list[BaseException] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    tls = None  # what the transport asks of an ApiServer
    chunked = False
    gzip_from = sys.maxsize

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[_Rule] = []
        self._denials: list[_Rule] = []
        self._keys: dict[str, Credentials] = {}  # by access key
        self.load(self.estate)
        self._http = _Http(self)
        self.port: int = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> AwsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.drop_connections()
        self._http.server_close()  # joins the handlers
        self._thread.join()
        if self.errors:
            raise self.errors[0]

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which boto3 comes here as a user of the estate's home account, and looks nowhere else."""
        return self.environment_of(self.estate.home)

    def environment_of(self, account: str) -> dict[str, str]:
        user = self.user(account)
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": user.access_key,
            "AWS_SECRET_ACCESS_KEY": user.secret_key,
            "AWS_DEFAULT_REGION": next(iter(self.estate.accounts[account].regions)),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def user(self, account: str) -> Credentials:
        """Credentials that last, of a user in this account."""
        return self._keys[_access_key("AKIA", account)]

    def load(self, estate: Estate) -> None:
        """Serve this from now on."""
        self.estate = estate
        users = [_user(account) for account in estate.accounts]
        sessions = {key: found for key, found in self._keys.items() if found.token}
        self._keys = sessions | {found.access_key: found for found in users}
        self._bodies: dict[str, bytes] = {}
        self._contents: dict[tuple[str, str, str], str] = {}

    def empty_moto(self) -> None:
        """Leave nothing in moto, before a test makes something there by itself."""
        _moto().empty()

    def warm(self) -> None:
        """Encode now what is asked about each cluster with the least parameters, so that requests cost little."""
        for region, item in self.estate.clusters():
            for operation, parameters in _questions(item):
                asked = Request("eks", operation, region.name, region.account, parameters, "GET", "")
                self.answer(Call(asked, _wire("eks"), self.estate, self.user(region.account), self.page_size))

    def deny(
        self,
        action: str,
        *,
        account: str | None = None,
        region: str | None = None,
        where: Mapping[str, Any] | None = None,
        because: str = IDENTITY,
    ) -> None:
        """Refuse an action ("eks:List*") everywhere, in one account or region, or for these parameters only.

        `because` is the reason that the message gives: IDENTITY, BOUNDARY, SCP, or one's own.
        """
        pattern = re.compile(fnmatch.translate(action), re.IGNORECASE)
        with self._lock:
            self._denials.append(_Rule(pattern, denied(because), account, region, where or {}))

    def inject(
        self,
        action: str,
        fault: Fault,
        times: int | None = None,
        *,
        after: int = 0,
        account: str | None = None,
        region: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> None:
        """Answer the requests whose "service:Operation" matches with `fault`, except the first `after`, at most
        `times`; `where` are parameters that they have to have."""
        with self._lock:
            pattern = re.compile(action, re.IGNORECASE)
            self._faults.append(_Rule(pattern, fault, account, region, where or {}, after, times))

    def heal(self) -> None:
        """From now on nothing is denied, and no fault injected."""
        with self._lock:
            self._faults.clear()
            self._denials.clear()

    def revoke(self) -> None:
        """Refuse the sessions given out so far, as expired."""
        with self._lock:
            self._keys = {key: found._replace(expires=0) if found.token else found for key, found in self._keys.items()}

    # --- called by the handler, from many threads ---

    def fault(self, asked: Request) -> Fault | None:
        return self._first(self._faults, asked)

    def denial(self, asked: Request) -> Fault | None:
        return self._first(self._denials, asked)

    def _first(self, rules: list[_Rule], asked: Request) -> Fault | None:
        if not rules:
            return None
        with self._lock:
            return next((rule.fault for rule in rules if rule.takes(asked)), None)

    def credentials(self, access_key: str) -> Credentials | None:
        return self._keys.get(access_key)

    def issue(self, account: str, role: str, session: str, seconds: int) -> Credentials:
        """A session such as AssumeRole gives out."""
        lifetime = seconds if self.session_seconds is None else self.session_seconds
        found = Credentials(
            _access_key("ASIA", account, secrets.token_hex(8)),
            secrets.token_urlsafe(30),
            secrets.token_urlsafe(120),
            account,
            f"arn:aws:sts::{account}:assumed-role/{role}/{session}",
            time.time() + lifetime,
        )
        with self._lock:
            self.sessions.append(found)
            self._keys = self._keys | {found.access_key: found}
        return found

    def answer(self, call: Call) -> bytes:
        """The body of an answer; encoded once, as long as it is the same for everybody."""
        asked = call.asked
        if asked.service == "sts":
            return call.wire.encode(asked.operation, _STS[asked.operation](self, call))
        key = json.dumps((asked[:5], call.page_size), default=str)
        found = self._bodies.get(key)
        if found is None:
            found = self._bodies[key] = call.wire.encode(asked.operation, _ANSWERS[asked.action](call))
        return found

    def is_ours(self, asked: Request) -> bool:
        """Whether the server answers this itself."""
        known = asked.action in _ANSWERS or (asked.service == "sts" and asked.operation in _STS)
        theirs = _MOTO | self.from_moto
        return known and not (self.moto and (asked.service in theirs or asked.action in theirs))

    def content(self, service: str, account: str, region: str) -> str:
        """What moto has to know, as a text by which one sees whether it changed."""
        key = (service, account, region)
        if key not in self._contents:
            parts = _moto_parts(self.estate.accounts[account], service, region)
            self._contents[key] = json.dumps([dataclasses.asdict(part) for part in parts], default=str)
        return self._contents[key]


def _user(account: str) -> Credentials:
    secret = hashlib.sha256(f"secret of {account}".encode()).hexdigest()[:40]
    return Credentials(_access_key("AKIA", account), secret, "", account, iam_arn(account, "user/scanner"))


def _access_key(kind: str, *parts: str) -> str:
    return kind + base64.b32encode(hashlib.sha256("/".join(parts).encode()).digest()).decode()[:16]


# --- HTTP ---


class _Http(apiserver._Http):
    def __init__(self, aws: AwsServer) -> None:
        super().__init__(aws)  # it has all that the transport asks of an ApiServer
        self.RequestHandlerClass = _Handler


class _Handler(apiserver._Handler):
    """The transport of the Kubernetes server, with AWS's answers."""

    call: Call

    @property
    def aws(self) -> AwsServer:
        return self.server.api

    def do_GET(self) -> None:  # noqa: N802
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.call = self._read(urlsplit(self.path), data)
        self.aws.requests.append(self.call.asked)
        if self.aws.latency:
            self.aws.stopping.wait(self.aws.latency)
        fault = self.aws.fault(self.call.asked)
        if fault is None or fault(self) == "pass":
            self._answer(data)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815 - so that a write is seen

    def _read(self, url: SplitResult, data: bytes) -> Call:
        query = parse_qs(url.query, keep_blank_values=True)
        signature = self.headers.get("Authorization") or "Credential=" + query.get("X-Amz-Credential", [""])[0]
        match = _CREDENTIAL.search(signature)
        key, region, service = match.groups() if match else ("", "", "")
        wire = _wire(service)
        operation, parameters = wire.read(self.command, url.path, query, self.headers, data)
        who = self.aws.credentials(key)
        account = who.account if who else ""
        asked = Request(service, operation, region, account, parameters, self.command, url.path)
        return Call(asked, wire, self.aws.estate, who, self.aws.page_size)

    def _answer(self, data: bytes) -> None:
        call, asked = self.call, self.call.asked
        if call.who is None or call.who.token != self._token():
            self.reply_unrecognized()
        elif call.who.expires <= time.time():
            self.reply_words("expired", "The security token included in the request is expired")
        elif asked.service not in _GLOBAL and not call.region.enabled:
            self.reply_unrecognized()
        elif refuse := self.aws.denial(asked):
            refuse(self)
        elif self.aws.is_ours(asked):
            self._own_answer()
        elif self.aws.moto:
            self._forward(data)
        else:
            self.reply_error(404, "UnknownOperationException", f"Nobody here knows {asked.action}.")

    def _token(self) -> str:
        in_query = parse_qs(urlsplit(self.path).query).get("X-Amz-Security-Token", [""])[0]
        return self.headers.get("X-Amz-Security-Token", in_query)

    def _own_answer(self) -> None:
        try:
            data = self.aws.answer(self.call)
        except Refused as error:
            self.reply_refused(error)
        else:
            self.reply_wire(data)

    def _forward(self, data: bytes) -> None:
        answer = _moto().answer(self, data)
        if answer.status >= 500:
            text = answer.body.decode(errors="replace")
            self.aws.errors.append(RuntimeError(f"moto: {self.call.asked.action}: {answer.status}: {text[:300]}"))
        headers = {name: value for name, value in answer.headers.items() if name.lower().startswith("x-amzn-")}
        self.reply(answer.status, answer.body, answer.headers.get("Content-Type", ""), headers)

    # --- replies ---

    def reply_wire(self, data: bytes) -> None:
        self.reply(200, data, self.call.wire.content_type, {"x-amzn-RequestId": _REQUEST_ID})

    def reply_refused(self, error: Refused) -> None:
        self.reply_error(error.status, error.code, error.message, members=error.members)

    def reply_words(self, kind: str, message: str) -> None:
        code, number = _WORDS[kind][self.call.wire.protocol]
        self.reply_error(number, code, message)

    def reply_unrecognized(self) -> None:
        ec2 = "AWS was not able to validate the provided access credentials"
        self.reply_words("unrecognized", ec2 if self.call.wire.protocol == "ec2" else _INVALID_TOKEN)

    def reply_error(
        self,
        number: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        wire = self.call.wire
        extra = {"x-amzn-RequestId": _REQUEST_ID, **(headers or {})}
        if wire.protocol == "rest-json":
            extra["x-amzn-ErrorType"] = code
        self.reply(number, wire.encode_error(code, message, members or {}), wire.content_type, extra)

    def reply(self, code: int, data: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Head and body in one piece: there are thousands of these, and they are small."""
        head = [f"HTTP/1.1 {code} {http.client.responses.get(code, '')}", f"Content-Type: {content_type}"]
        head += [f"Content-Length: {len(data)}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        self.wfile.write("\r\n".join([*head, "", ""]).encode() + (b"" if self.command == "HEAD" else data))


_CREDENTIAL = re.compile(r"Credential=([^/,]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
_REQUEST_ID = "b3c0f7d2-5a0e-4f4e-9d57-0d9c6f0f4711"
_GLOBAL = {"iam", "organizations"}

# --- protocols ---

LOADER = botocore.loaders.create_loader()  # keeps what it has parsed; sessions of tests may share it


@functools.cache
def _wire(service: str) -> _Wire:
    try:
        description = LOADER.load_service_model(service, "service-2") if service else {}
    except botocore.exceptions.UnknownServiceError:
        description = {}
    return _Wire(botocore.model.ServiceModel(description, service) if description else None)


class _Wire:
    """A service as botocore's model describes it: what its requests ask, and how answers and errors look."""

    def __init__(self, model: botocore.model.ServiceModel | None) -> None:
        self._model = model
        known = model and model.resolved_protocol
        self.protocol: str = known if known in _CONTENT_TYPES else "rest-json"
        self.content_type = _CONTENT_TYPES[self.protocol]
        self._routes = list(_routes(model)) if model and known == "rest-json" else []

    def read(
        self, method: str, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str], data: bytes
    ) -> tuple[str, Object]:
        """Operation and parameters of a request."""
        if self.protocol == "rest-json":
            return self._read_rest(method, path, query, data)
        if self.protocol == "json":
            operation = headers.get("X-Amz-Target", "").rpartition(".")[2]
            return operation, self._read_json(operation, data)
        form = {name: values[0] for name, values in (parse_qs(data.decode(), keep_blank_values=True) | query).items()}
        operation = form.get("Action", "")
        shape = self._input(operation)
        return operation, (_from_query(shape, form, "", self.protocol == "ec2") or {}) if shape else {}

    def _read_rest(self, method: str, path: str, query: Mapping[str, list[str]], data: bytes) -> tuple[str, Object]:
        for route_method, pattern, operation in self._routes:
            match = pattern.fullmatch(path)
            if match and route_method == method:
                given = self._read_json(operation, data)
                names = _labels(self._uri(operation))
                labels = {name: unquote(value) for name, value in zip(names, match.groups(), strict=True)}
                return operation, given | _from_uri(self._input(operation), labels, query)
        return f"{method} {path}", {}

    def _read_json(self, operation: str, data: bytes) -> Object:
        shape = self._input(operation)
        return _from_json(shape, json.loads(data)) if data and shape else {}

    def encode(self, operation: str, answer: Object) -> bytes:
        shape = self.output(operation)
        if self.protocol in ("json", "rest-json"):
            return json.dumps(_to_json(shape, answer), separators=(",", ":")).encode()
        inner = "".join(_to_xml(shape.members[name], value, name) for name, value in answer.items())
        space, tail = f' xmlns="{self._namespace()}"', f"<requestId>{_REQUEST_ID}</requestId>"
        if self.protocol == "query":
            tail = f"<ResponseMetadata><RequestId>{_REQUEST_ID}</RequestId></ResponseMetadata>"
            inner = f"<{operation}Result>{inner}</{operation}Result>"
        return f"<{operation}Response{space}>{inner}{tail}</{operation}Response>".encode()

    def encode_error(self, code: str, message: str, members: Mapping[str, Any]) -> bytes:
        if self.protocol == "rest-json":
            return json.dumps({"message": message, **members}).encode()
        if self.protocol == "json":
            return json.dumps({"__type": code, "message": message, **members}).encode()
        words = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
        if self.protocol == "ec2":
            inner = f"<Errors><Error>{words}</Error></Errors><RequestID>{_REQUEST_ID}</RequestID>"
            return f"<Response>{inner}</Response>".encode()
        inner = f"<Error><Type>Sender</Type>{words}</Error><RequestId>{_REQUEST_ID}</RequestId>"
        return f'<ErrorResponse xmlns="{self._namespace()}">{inner}</ErrorResponse>'.encode()

    def output(self, operation: str) -> Any:
        return self._model.operation_model(operation).output_shape

    def _input(self, operation: str) -> Any:
        known = self._model is not None and operation in self._model.operation_names
        return self._model.operation_model(operation).input_shape if known else None

    def _uri(self, operation: str) -> str:
        return self._model.operation_model(operation).http["requestUri"]

    def _namespace(self) -> str:
        metadata = self._model.metadata if self._model else {}
        return metadata.get("xmlNamespace", "")


_CONTENT_TYPES = {
    "rest-json": "application/json",
    "json": "application/x-amz-json-1.1",
    "query": "text/xml",
    "ec2": "text/xml;charset=UTF-8",
}
_LABEL = re.compile(r"\{(\w+)(\+?)\}")


def _routes(model: botocore.model.ServiceModel) -> Iterator[tuple[str, re.Pattern[str], str]]:
    """Method, path and operation, those without labels first."""
    for name in sorted(
        model.operation_names, key=lambda name: model.operation_model(name).http["requestUri"].count("{")
    ):
        rest = model.operation_model(name).http
        path = re.escape(rest["requestUri"].split("?")[0]).replace(r"\{", "{").replace(r"\}", "}").replace(r"\+", "+")
        yield rest["method"], re.compile(_LABEL.sub(lambda label: "(.+)" if label[2] else "([^/]+)", path)), name


def _labels(uri: str) -> list[str]:
    return [name for name, _ in _LABEL.findall(uri.split("?")[0])]


def _from_uri(shape: Any, labels: Mapping[str, str], query: Mapping[str, list[str]]) -> Object:
    found: Object = {}
    for key, member in (shape.members if shape else {}).items():
        place, name = member.serialization.get("location"), member.serialization.get("name", key)
        if place == "uri" and name in labels:
            found[key] = labels[name]
        elif place == "querystring" and name in query:
            values = [_scalar(getattr(member, "member", member), text) for text in query[name]]
            found[key] = values if member.type_name == "list" else values[0]
    return found


def _from_json(shape: Any, value: Any) -> Any:
    if shape.type_name == "structure" and isinstance(value, dict):
        keys = {member.serialization.get("name", key): key for key, member in shape.members.items()}
        named = {keys[name]: item for name, item in value.items() if name in keys}
        return {key: _from_json(shape.members[key], item) for key, item in named.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [_from_json(shape.member, item) for item in value]
    return value


def _from_query(shape: Any, form: Mapping[str, str], prefix: str, ec2: bool) -> Any:
    """A parameter of the query protocols: `Filter.1.Value.2`, `Tags.member.1.Key`. None if it is not there."""
    if shape.type_name == "structure":
        names = {key: _query_name(key, member, ec2) for key, member in shape.members.items()}
        start = f"{prefix}." if prefix else ""
        found = {key: _from_query(shape.members[key], form, start + name, ec2) for key, name in names.items()}
        return {key: value for key, value in found.items() if value is not None} or None
    if shape.type_name == "list":
        flat = ec2 or shape.serialization.get("flattened")
        start = prefix if flat else f"{prefix}.{shape.member.serialization.get('name', 'member')}"
        items = []
        while (item := _from_query(shape.member, form, f"{start}.{len(items) + 1}", ec2)) is not None:
            items.append(item)
        return items or None
    return _scalar(shape, form[prefix]) if prefix in form else None


def _query_name(key: str, member: Any, ec2: bool) -> str:
    name = str(member.serialization.get("name", key))
    return member.serialization.get("queryName") or name[0].upper() + name[1:] if ec2 else name


def _scalar(shape: Any, text: str) -> Any:
    if shape.type_name == "boolean":
        return text == "true"
    return int(text) if shape.type_name in ("integer", "long") else text


def _to_json(shape: Any, value: Any) -> Any:
    if isinstance(value, dict) and shape.type_name == "structure":
        members = shape.members  # what botocore does not know yet goes out as it is
        known = {key: (members[key].serialization.get("name", key), members[key]) for key in value if key in members}
        return {
            known[key][0] if key in known else key: _to_json(known[key][1], item) if key in known else item
            for key, item in value.items()
        }
    if isinstance(value, dict) and shape.type_name == "map":
        return {key: _to_json(shape.value, item) for key, item in value.items()}
    if isinstance(value, list) and shape.type_name == "list":
        return [_to_json(shape.member, item) for item in value]
    if isinstance(value, datetime):
        return value.timestamp()
    return json.dumps(value) if isinstance(value, dict) else value  # a policy


def _to_xml(shape: Any, value: Any, key: str) -> str:
    tag = shape.serialization.get("name", key)
    if value is None:
        return ""
    if shape.type_name == "structure":
        inner = "".join(_to_xml(shape.members[name], item, name) for name, item in value.items())
    elif shape.type_name == "list":
        inner = "".join(_to_xml(shape.member, item, "member") for item in value)
    else:
        inner = escape(_xml_text(value))
    return f"<{tag}>{inner}</{tag}>"


def _xml_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return quote(json.dumps(value)) if isinstance(value, dict) else str(value)  # IAM quotes its policies


# --- the estate's answers ---


@dataclass
class Call:
    """A request, with what one needs to answer it."""

    asked: Request
    wire: _Wire
    estate: Estate
    who: Credentials | None
    page_size: int | None

    def __getitem__(self, parameter: str) -> Any:
        return self.asked.parameters.get(parameter)

    @property
    def account(self) -> Account:
        return self.estate.accounts[self.asked.account]

    @property
    def region(self) -> Region:
        """The region; one that the estate does not have is closed."""
        missing = Region(self.asked.region, self.asked.account, opt_in="not-opted-in")
        return self.account.regions.get(self.asked.region, missing)

    @property
    def eks(self) -> Eks:
        name = self["name"] or self["clusterName"]
        found = next((item for item in self.region.clusters if item.name == name), None)
        if found is None:
            raise _no_cluster(name)
        return found

    def page(
        self, key: str, items: list[Any], size: int, names: tuple[str, str] = ("maxResults", "nextToken")
    ) -> Object:
        """A page of an answer, with the token of the next one."""
        limit, token = names
        start = _offset(self[token] or "")
        if start is None or start > len(items):
            raise Refused("InvalidParameterException", "The pagination token is not valid.")
        stop = start + min(self.page_size or size, self[limit] or sys.maxsize)
        answer: Object = {key: items[start:stop]}
        if stop < len(items):
            answer[token] = base64.urlsafe_b64encode(f"offset:{stop}".encode()).decode()
        elif self.asked.service == "eks":
            answer[token] = None  # null, where others leave it out
        return answer


def _offset(token: str) -> int | None:
    """Where a token leads; None if this server never gave it out."""
    if not token:
        return 0
    try:
        name, _, number = base64.urlsafe_b64decode(token).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return int(number) if name == "offset" and number.isdecimal() else None


_Answer = Callable[[Call], Object]
_ANSWERS: dict[str, _Answer] = {}


def _answers(action: str) -> Callable[[_Answer], _Answer]:
    def register(function: _Answer) -> _Answer:
        _ANSWERS[action] = function
        return function

    return register


# EKS


def _no_cluster(name: str) -> Refused:
    return _not_found(f"No cluster found for name: {name}.", clusterName=name)


def _not_found(message: str, **named: str) -> Refused:
    names = dict.fromkeys(("clusterName", "nodegroupName", "fargateProfileName", "addonName", "subscriptionId"))
    return Refused("ResourceNotFoundException", message, 404, **(names | named))


@_answers("eks:ListClusters")
def _list_clusters(call: Call) -> Object:
    everything = "all" in (call["include"] or ())
    names = [item.name for item in call.region.clusters if everything or "connectorConfig" not in item.cluster]
    return call.page("clusters", names, 100)


@_answers("eks:DescribeCluster")
def _describe_cluster(call: Call) -> Object:
    return {"cluster": call.eks.cluster}


class _Part(NamedTuple):
    """A kind of thing that belongs to a cluster: where the estate has it, and what EKS calls it."""

    attribute: str
    listed: str
    name: str
    described: str
    missing: str


_PARTS = {
    "Nodegroup": _Part(
        "nodegroups", "nodegroups", "nodegroupName", "nodegroup", "No node group found for name: {name}."
    ),
    "FargateProfile": _Part(
        "fargate_profiles",
        "fargateProfileNames",
        "fargateProfileName",
        "fargateProfile",
        "No Fargate Profile found with name: {name}.",
    ),
    "Addon": _Part("addons", "addons", "addonName", "addon", "No addon: {name} found in cluster: {cluster}"),
}


def _list_part(part: _Part, call: Call) -> Object:
    return call.page(part.listed, [item[part.name] for item in getattr(call.eks, part.attribute)], 100)


def _describe_part(part: _Part, call: Call) -> Object:
    name, cluster = call[part.name], call.eks.name
    for item in getattr(call.eks, part.attribute):
        if item[part.name] == name:
            return {part.described: item}
    raise _not_found(part.missing.format(name=name, cluster=cluster), clusterName=cluster, **{part.name: name})


for _kind, _part in _PARTS.items():
    _ANSWERS[f"eks:List{_kind}s"] = functools.partial(_list_part, _part)
    _ANSWERS[f"eks:Describe{_kind}"] = functools.partial(_describe_part, _part)


def _entries(call: Call) -> list[Object]:
    mode = call.eks.cluster.get("accessConfig", {}).get("authenticationMode")
    if mode == "CONFIG_MAP":
        modes = "[API, API_AND_CONFIG_MAP]"
        text = f"The cluster's authentication mode must be set to one of {modes} to perform this operation."
        raise Refused("InvalidRequestException", text)
    return call.eks.access_entries


def _entry(call: Call) -> Object:
    for item in _entries(call):
        if item["principalArn"] == call["principalArn"]:
            return item
    hint = "You can view your available access entries with 'list-access-entries'."
    raise _not_found(f"The specified principalArn could not be found. {hint}")


@_answers("eks:ListAccessEntries")
def _list_access_entries(call: Call) -> Object:
    found = [item["principalArn"] for item in _entries(call)]
    if wanted := call["associatedPolicyArn"]:
        policies = call.eks.access_policies
        found = [who for who in found if wanted in [item["policyArn"] for item in policies.get(who, [])]]
    return call.page("accessEntries", found, 100)


@_answers("eks:DescribeAccessEntry")
def _describe_access_entry(call: Call) -> Object:
    return {"accessEntry": _entry(call)}


@_answers("eks:ListAssociatedAccessPolicies")
def _list_associated_access_policies(call: Call) -> Object:
    who = _entry(call)["principalArn"]
    page = call.page("associatedAccessPolicies", call.eks.access_policies.get(who, []), 100)
    return {"clusterName": call.eks.name, "principalArn": who} | page


@_answers("eks:DescribeClusterVersions")
def _describe_cluster_versions(call: Call) -> Object:
    """Versions whose support has ended are shown to those who ask for them."""
    found = call.region.versions
    if wanted := call["clusterVersions"]:
        found = [item for item in found if item["clusterVersion"] in wanted]
    elif state := call["versionStatus"] or call["status"]:
        found = [item for item in found if item["versionStatus"] == state.upper().replace("-", "_")]
    elif not call["includeAll"]:
        found = [item for item in found if item["versionStatus"] != "UNSUPPORTED"]
    if call["defaultOnly"]:
        found = [item for item in found if item["defaultVersion"]]
    return call.page("clusterVersions", found, 100)


def _questions(item: Eks) -> Iterator[tuple[str, Object]]:
    """What can be asked about a cluster, with the least parameters."""
    own = {"clusterName": item.name}
    yield "DescribeCluster", {"name": item.name}
    for kind, part in _PARTS.items():
        yield f"List{kind}s", own
        for entry in getattr(item, part.attribute):
            yield f"Describe{kind}", own | {part.name: entry[part.name]}
    if item.cluster.get("accessConfig", {}).get("authenticationMode") == "CONFIG_MAP":
        return
    yield "ListAccessEntries", own
    for entry in item.access_entries:
        for operation in ("DescribeAccessEntry", "ListAssociatedAccessPolicies"):
            yield operation, own | {"principalArn": entry["principalArn"]}


# STS and Organizations


def _caller(_: AwsServer, call: Call) -> Object:
    who = call.who
    key = who.principal.rpartition("/")[2] if who.token else ""
    user = f"{_access_key('AROA', who.principal)}:{key}" if key else _access_key("AIDA", who.account)
    return {"UserId": user, "Account": who.account, "Arn": who.principal}


def _assume_role(aws: AwsServer, call: Call) -> Object:
    account, name = call["RoleArn"].split(":")[4], call["RoleArn"].rpartition("/")[2]
    target = call.estate.accounts.get(account)
    needed = target.assumable.get(name) if target else None
    if needed is None or needed not in ("", call["ExternalId"]):
        who = f"User: {call.who.principal} is not authorized to perform: sts:AssumeRole"
        raise Refused("AccessDenied", f"{who} on resource: {call['RoleArn']}", 403)
    found = aws.issue(account, name, call["RoleSessionName"], call["DurationSeconds"] or 3600)
    return {
        "Credentials": {
            "AccessKeyId": found.access_key,
            "SecretAccessKey": found.secret_key,
            "SessionToken": found.token,
            "Expiration": datetime.fromtimestamp(found.expires, UTC),
        },
        "AssumedRoleUser": {
            "AssumedRoleId": f"{_access_key('AROA', account, name)}:{call['RoleSessionName']}",
            "Arn": found.principal,
        },
    }


_STS: dict[str, Callable[[AwsServer, Call], Object]] = {"GetCallerIdentity": _caller, "AssumeRole": _assume_role}


def _organization(call: Call) -> str:
    if not call.estate.management:
        raise Refused("AWSOrganizationsNotInUseException", "Your account is not a member of an organization.")
    return call.estate.management


@_answers("organizations:DescribeOrganization")
def _describe_organization(call: Call) -> Object:
    management = _organization(call)
    home = f"arn:aws:organizations::{management}:"
    found = {
        "Id": ORGANIZATION,
        "Arn": f"{home}organization/{ORGANIZATION}",
        "FeatureSet": "ALL",
        "MasterAccountArn": f"{home}account/{ORGANIZATION}/{management}",
        "MasterAccountId": management,
        "MasterAccountEmail": call.estate.accounts[management].wire(management)["Email"],
        "AvailablePolicyTypes": [],
    }
    return {"Organization": found}


@_answers("organizations:ListAccounts")
def _list_accounts(call: Call) -> Object:
    management = _organization(call)
    if call.asked.account != management:
        raise Refused("AccessDeniedException", "You don't have permissions to access this resource.")
    found = [account.wire(management) for account in call.estate.accounts.values()]
    return call.page("Accounts", found, 20, ("MaxResults", "NextToken"))


# EC2


def _matching(call: Call, items: list[Object], fields: Mapping[str, Callable[[Object], list[str]]]) -> list[Object]:
    for wanted in call["Filters"] or ():
        if wanted["Name"] not in fields:
            raise Refused("InvalidParameterValue", f"The filter '{wanted['Name']}' is invalid")
        values, of = set(wanted["Values"]), fields[wanted["Name"]]
        items = [item for item in items if values & set(of(item))]
    return items


def _chosen(call: Call, items: list[Object], parameter: str, key: str, what: str) -> list[Object]:
    by_id = {item[key]: item for item in items}
    for wanted in call[parameter] or ():
        if wanted not in by_id:
            raise Refused(f"Invalid{what}ID.NotFound", f"The {what.lower()} ID '{wanted}' does not exist")
    return [by_id[wanted] for wanted in call[parameter]] if call[parameter] else items


@_answers("ec2:DescribeRegions")
def _describe_regions(call: Call) -> Object:
    regions = call.account.regions.values()
    found = [region.wire() for region in regions if call["AllRegions"] or region.enabled]
    if wanted := call["RegionNames"]:
        found = [item for item in found if item["RegionName"] in wanted]
    fields = {"opt-in-status": lambda item: [item["OptInStatus"]], "region-name": lambda item: [item["RegionName"]]}
    return {"Regions": _matching(call, found, fields)}


@_answers("ec2:DescribeSubnets")
def _describe_subnets(call: Call) -> Object:
    found = _chosen(call, call.region.subnets, "SubnetIds", "SubnetId", "Subnet")
    fields = {"vpc-id": lambda item: [item["VpcId"]], "subnet-id": lambda item: [item["SubnetId"]]}
    return call.page("Subnets", _matching(call, found, fields), 1000, ("MaxResults", "NextToken"))


@_answers("ec2:DescribeRouteTables")
def _describe_route_tables(call: Call) -> Object:
    found = _chosen(call, call.region.route_tables, "RouteTableIds", "RouteTableId", "RouteTable")
    fields = {
        "vpc-id": lambda item: [item["VpcId"]],
        "route-table-id": lambda item: [item["RouteTableId"]],
        "association.subnet-id": lambda item: [entry.get("SubnetId", "") for entry in item["Associations"]],
        "association.main": lambda item: [str(entry["Main"]).lower() for entry in item["Associations"]],
    }
    return call.page("RouteTables", _matching(call, found, fields), 1000, ("MaxResults", "NextToken"))


# IAM


def _no_entity(message: str) -> Refused:
    return Refused("NoSuchEntity", message, 404)


def _role(call: Call) -> Role:
    name = call["RoleName"]
    if name not in call.account.roles:
        raise _no_entity(f"The role with name {name} cannot be found.")
    return call.account.roles[name]


def _policy(call: Call) -> Policy:
    own = call["PolicyArn"]
    if own not in call.account.policies:
        raise _no_entity(f"Policy {own} was not found.")
    return call.account.policies[own]


def _iam_page(call: Call, key: str, items: list[Any]) -> Object:
    page = call.page(key, items, 100, ("MaxItems", "Marker"))
    return page | {"IsTruncated": "Marker" in page}


@_answers("iam:GetRole")
def _get_role(call: Call) -> Object:
    return {"Role": _role(call).role}


@_answers("iam:ListAttachedRolePolicies")
def _list_attached_role_policies(call: Call) -> Object:
    found = [{"PolicyName": own.rpartition("/")[2], "PolicyArn": own} for own in _role(call).attached]
    return _iam_page(call, "AttachedPolicies", found)


@_answers("iam:ListRolePolicies")
def _list_role_policies(call: Call) -> Object:
    return _iam_page(call, "PolicyNames", list(_role(call).inline))


@_answers("iam:GetRolePolicy")
def _get_role_policy(call: Call) -> Object:
    name = call["PolicyName"]
    if name not in _role(call).inline:
        raise _no_entity(f"The role policy with name {name} cannot be found.")
    return {"RoleName": call["RoleName"], "PolicyName": name, "PolicyDocument": _role(call).inline[name]}


@_answers("iam:GetPolicy")
def _get_policy(call: Call) -> Object:
    return {"Policy": _policy(call).policy}


@_answers("iam:GetPolicyVersion")
def _get_policy_version(call: Call) -> Object:
    found, version = _policy(call), call["VersionId"]
    if version not in found.versions:
        raise _no_entity(f"Policy {call['PolicyArn']} version {version} does not exist or is not attachable.")
    default = version == found.policy["DefaultVersionId"]
    more = {"VersionId": version, "IsDefaultVersion": default, "CreateDate": found.policy["UpdateDate"]}
    return {"PolicyVersion": {"Document": found.versions[version]} | more}


@_answers("iam:ListOpenIDConnectProviders")
def _list_oidc_providers(call: Call) -> Object:
    return {"OpenIDConnectProviderList": [{"Arn": own} for own in call.account.oidc_providers]}


@_answers("iam:GetOpenIDConnectProvider")
def _get_oidc_provider(call: Call) -> Object:
    own = call["OpenIDConnectProviderArn"]
    if own not in call.account.oidc_providers:
        raise _no_entity(f"OpenIDConnect Provider not found for arn {own}")
    return call.account.oidc_providers[own]


# Logs


@_answers("logs:DescribeLogGroups")
def _describe_log_groups(call: Call) -> Object:
    start = call["logGroupNamePrefix"] or ""
    found = [group for group in call.region.log_groups if group["logGroupName"].startswith(start)]
    found = [group for group in found if (call["logGroupNamePattern"] or "") in group["logGroupName"]]
    found.sort(key=lambda group: group["logGroupName"])
    return call.page("logGroups", found, 50, ("limit", "nextToken"))


@_answers("logs:DescribeSubscriptionFilters")
def _describe_subscription_filters(call: Call) -> Object:
    name = call["logGroupName"]
    if name not in [group["logGroupName"] for group in call.region.log_groups]:
        raise Refused("ResourceNotFoundException", "The specified log group does not exist.")
    return call.page("subscriptionFilters", call.region.subscription_filters.get(name, []), 50, ("limit", "nextToken"))


# ECR


def _repository(call: Call, name: str) -> Object:
    for item in call.region.repositories:
        if item["repositoryName"] == name:
            return item
    text = f"The repository with name '{name}' does not exist in the registry with id '{call.asked.account}'"
    raise Refused("RepositoryNotFoundException", text)


def _of_repository(call: Call, documents: Mapping[str, Object], what: str) -> Object:
    name = call["repositoryName"]
    _repository(call, name)
    if name in documents:
        return {"registryId": call.asked.account, "repositoryName": name, "document": documents[name]}
    where = f"for the repository with name '{name}' in the registry with id '{call.asked.account}'"
    raise Refused(f"{what.title().replace(' ', '')}NotFoundException", f"{what.capitalize()} does not exist {where}")


@_answers("ecr:DescribeRepositories")
def _describe_repositories(call: Call) -> Object:
    if names := call["repositoryNames"]:
        return {"repositories": [_repository(call, name) for name in names]}
    return call.page("repositories", call.region.repositories, 100)


@_answers("ecr:GetRepositoryPolicy")
def _get_repository_policy(call: Call) -> Object:
    found = _of_repository(call, call.region.repository_policies, "repository policy")
    return found | {"policyText": found.pop("document")}


@_answers("ecr:GetLifecyclePolicy")
def _get_lifecycle_policy(call: Call) -> Object:
    found = _of_repository(call, call.region.lifecycle_policies, "lifecycle policy")
    return found | {"lifecyclePolicyText": found.pop("document")}


@_answers("ecr:GetRegistryScanningConfiguration")
def _get_registry_scanning_configuration(call: Call) -> Object:
    return {"registryId": call.asked.account, "scanningConfiguration": call.region.registry_scanning}


@_answers("ecr:BatchGetRepositoryScanningConfiguration")
def _batch_get_repository_scanning_configuration(call: Call) -> Object:
    names, known = call["repositoryNames"], call.region.repository_scanning
    if len(names) > 25:
        at = "Member must have length less than or equal to 25"
        text = f"Invalid parameter at 'repositoryNames' failed to satisfy constraint: '{at}'"
        raise Refused("InvalidParameterException", text)
    lost = "REPOSITORY_NOT_FOUND"
    failures = [
        {"repositoryName": name, "failureCode": lost, "failureReason": lost} for name in names if name not in known
    ]
    return {"scanningConfigurations": [known[name] for name in names if name in known], "failures": failures}


@_answers("ecr:DescribeImages")
def _describe_images(call: Call) -> Object:
    name = call["repositoryName"]
    _repository(call, name)
    return call.page("imageDetails", call.region.images.get(name, []), 100 if call["maxResults"] is None else 1000)


@_answers("ecr:BatchGetImage")
def _batch_get_image(call: Call) -> Object:
    name, asked, known = call["repositoryName"], call["imageIds"], call.region.manifests
    _repository(call, name)
    if len(asked) > 100:
        at = "Member must have length less than or equal to 100"
        raise Refused(
            "InvalidParameterException", f"Invalid parameter at 'imageIds' failed to satisfy constraint: '{at}'"
        )
    kinds = {item["imageDigest"]: item.get("imageManifestMediaType") for item in call.region.images.get(name, [])}
    own = {"registryId": call.asked.account, "repositoryName": name}
    digests = [item["imageDigest"] for item in asked]
    images = [
        {"imageId": {"imageDigest": one}, "imageManifest": known[one], "imageManifestMediaType": kinds.get(one), **own}
        for one in digests
        if one in known
    ]
    why = {"failureCode": "ImageNotFound", "failureReason": "Requested image not found"}
    return {
        "images": images,
        "failures": [{"imageId": {"imageDigest": one}, **why} for one in digests if one not in known],
    }


@_answers("ecr:DescribeImageScanFindings")
def _describe_image_scan_findings(call: Call) -> Object:
    name, digest = call["repositoryName"], call["imageId"]["imageDigest"]
    _repository(call, name)
    own = {"registryId": call.asked.account, "repositoryName": name, "imageId": {"imageDigest": digest}}
    if digest not in call.region.image_scans:
        text = f"Image scan does not exist for the image with '{{imageDigest:'{digest}'}}' in the repository '{name}'"
        raise Refused("ScanNotFoundException", text)
    scan = call.region.image_scans[digest]
    found = scan.get("imageScanFindings")
    listed = next((what for what in ("enhancedFindings", "findings") if what in (found or {})), "")
    if not listed:
        return own | scan
    page = call.page(listed, found[listed], 100 if call["maxResults"] is None else 1000)
    token = {"nextToken": page["nextToken"]} if "nextToken" in page else {}
    return own | scan | token | {"imageScanFindings": found | {listed: page[listed]}}


# GuardDuty and Inspector


@_answers("guardduty:ListDetectors")
def _list_detectors(call: Call) -> Object:
    return call.page("DetectorIds", list(call.region.detectors), 50, ("MaxResults", "NextToken"))


@_answers("guardduty:GetDetector")
def _get_detector(call: Call) -> Object:
    own = call["DetectorId"]
    if own not in call.region.detectors:
        text = "The request is rejected because the input detectorId is not owned by the current account."
        raise Refused("BadRequestException", text, __type="InvalidInputException")
    return call.region.detectors[own]


@_answers("inspector2:BatchGetAccountStatus")
def _batch_get_account_status(call: Call) -> Object:
    own, denied_code = call.asked.account, "ACCESS_DENIED"
    asked = call["accountIds"] or [own]
    found = [call.region.inspector] if call.region.inspector and own in asked else []
    others = [account for account in asked if account != own]
    return {"accounts": found, "failedAccounts": [{"accountId": text, "errorCode": denied_code} for text in others]}


def _filtered(call: Call, items: list[Object], fields: Mapping[str, Callable[[Object], list[str]]]) -> list[Object]:
    for name, wanted in (call["filterCriteria"] or {}).items():
        values = {each["value"] for each in wanted}
        items = [item for item in items if values & set(fields[name](item))]
    return items


@_answers("inspector2:ListCoverage")
def _list_coverage(call: Call) -> Object:
    fields = {"resourceType": lambda item: [item["resourceType"]], "accountId": lambda item: [item["accountId"]]}
    return call.page("coveredResources", _filtered(call, call.region.inspector_coverage, fields), 200)


@_answers("inspector2:ListFindings")
def _list_findings(call: Call) -> Object:
    fields = {
        "resourceType": lambda item: [each["type"] for each in item["resources"]],
        "awsAccountId": lambda item: [item["awsAccountId"]],
        "findingStatus": lambda item: [item["status"]],
    }
    return call.page("findings", _filtered(call, call.region.inspector_findings, fields), 100)


# --- refusals ---


def _not_authorized(call: Call, because: str) -> str:
    """AWS's words, which name what one would need; those of EC2 have no resource."""
    asked, principal = call.asked, call.who.principal if call.who else "anonymous"
    text = f"User: {principal} is not authorized to perform: {asked.action}"
    reason = because.format(asked.action)
    if asked.service == "ec2":
        return f"You are not authorized to perform this operation. {text} {reason}"
    return f"{text} on resource: {_resource(call)} {reason}"


def _resource(call: Call) -> str:
    asked, given = call.asked, call.asked.parameters
    if asked.service == "iam":
        return f"role {given['RoleName']}" if "RoleName" in given else f"policy {given.get('PolicyArn', '*')}"
    if asked.service == "sts":
        return str(given.get("RoleArn", "*"))
    make = _RESOURCES.get(asked.service)
    if make is None:
        return "*"
    of_all = asked.operation == "DescribeClusterVersions"
    return arn(asked.service, asked.region, asked.account, "*" if of_all else make(given))


def _eks_resource(given: Mapping[str, Any]) -> str:
    name = given.get("name") or given.get("clusterName", "*")
    for part in _PARTS.values():
        if part.name in given:
            return f"{part.described.lower()}/{name}/{given[part.name]}/*"
    if "principalArn" in given:
        _, _, _, _, account, principal = given["principalArn"].split(":", 5)
        kind, _, short = principal.partition("/")
        return f"access-entry/{name}/{kind}/{account}/{short}/*"
    return f"cluster/{name}"


_RESOURCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "eks": _eks_resource,
    "logs": lambda given: f"log-group:{given.get('logGroupName', '')}:log-stream:",
    "ecr": lambda given: f"repository/{given.get('repositoryName', '*')}",
    "guardduty": lambda given: f"detector/{given.get('DetectorId', '*')}",
}


# --- moto ---

_MOTO = {
    "iam",
    "logs",
    "guardduty",
    "ecr:GetRepositoryPolicy",
    "ecr:GetLifecyclePolicy",
    "ecr:GetRegistryScanningConfiguration",
}


class _MotoAnswer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


_STARTING = threading.Lock()


def _moto() -> _Moto:
    with _STARTING:
        return _the_moto()


@functools.cache
def _the_moto() -> _Moto:
    return _Moto()


class _Moto:
    """The one moto of this process. What it has to know is made when it is first asked about, through boto3, and kept
    for the next server with the same content, as making it takes longer than most tests; different content of an
    account resets it."""

    def __init__(self) -> None:
        from moto.core.config import default_user_config
        from moto.server import ThreadedMotoServer

        default_user_config["iam"]["load_aws_managed_policies"] = True
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else it writes a line for each request
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self._host, self._port = self._server.get_host_and_port()
        atexit.register(self._stop)
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str, str], str] = {}
        self._clients: dict[tuple[str, str], Any] = {}
        self._account = ""

    def _stop(self) -> None:
        self._server.stop()
        self._server._server.server_close()

    def answer(self, handler: _Handler, data: bytes) -> _MotoAnswer:
        asked = handler.call.asked
        with self._lock:  # one at a time, as what is made for one server is reset for another
            self._make(handler.aws, asked.service, asked.account, asked.region)
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP}
            return self._ask(handler.command, handler.path, headers | {"x-moto-account-id": asked.account}, data)

    def empty(self) -> None:
        with self._lock:
            self._reset()

    def _ask(self, method: str, path: str, headers: Mapping[str, str], data: bytes) -> _MotoAnswer:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
        try:
            connection.request(method, path, data, dict(headers))
            response = connection.getresponse()
            return _MotoAnswer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def _make(self, aws: AwsServer, service: str, account: str, region: str) -> None:
        make = _MAKERS.get(service)
        if make is None:
            return
        key = (service, account, "" if service in _GLOBAL else region)
        content = aws.content(service, account, region)
        if self._made.get(key) == content:
            return
        if key in self._made:
            self._reset()
        self._account = account
        try:
            for part in _moto_parts(aws.estate.accounts[account], service, region):
                make(functools.partial(self._client, region=region), part)
        except BaseException:
            self._reset()  # half of it would be in the way of the next test
            raise
        self._made[key] = content

    def _reset(self) -> None:
        self._ask("POST", "/moto-api/reset", {}, b"")
        self._made.clear()

    def _client(self, service: str, region: str) -> Any:
        if (service, region) not in self._clients:
            client = self._session.client(
                service,
                region_name=region,
                endpoint_url=f"http://{self._host}:{self._port}",
                aws_access_key_id="moto",
                aws_secret_access_key="moto",
            )
            client.meta.events.register("before-sign.*.*", self._sign)
            self._clients[service, region] = client
        return self._clients[service, region]

    def _sign(self, request: Any, **_: Any) -> None:
        request.headers["x-moto-account-id"] = self._account

    @functools.cached_property
    def _session(self) -> Any:
        """A session that no variable and no file has a say in."""
        import boto3
        import botocore.session

        files = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
        alone = {"profile": (None, None, None, None)} | files
        return boto3.Session(botocore_session=botocore.session.Session(alone))


_HOP = {"host", "connection", "content-length", "expect"}


def _moto_parts(account: Account, service: str, region: str) -> list[Any]:
    """The part of the estate that a service of moto is made from."""
    if service in _GLOBAL:
        parts: list[Any] = [dataclasses.replace(account, regions={})]
    else:
        kept = account.regions.get(region)
        parts = [dataclasses.replace(kept, clusters=[], subnets=[], route_tables=[], versions=[])] if kept else []
    return parts if service in _MAKERS else []


def _make_iam(client: Callable[[str], Any], account: Account) -> None:
    iam = client("iam")
    for own, entry in account.policies.items():
        if ":iam::aws:" in own:
            continue  # moto has these already
        for number, (version, text) in enumerate(entry.versions.items()):
            words = {"PolicyDocument": json.dumps(text)}
            if number:
                default = version == entry.policy["DefaultVersionId"]
                iam.create_policy_version(PolicyArn=own, SetAsDefault=default, **words)
            else:
                iam.create_policy(PolicyName=entry.policy["PolicyName"], Path=entry.policy["Path"], **words)
    for item in account.roles.values():
        given = {
            key: item.role[key]
            for key in ("Path", "RoleName", "Description", "MaxSessionDuration", "Tags")
            if key in item.role
        }
        if limit := item.role.get("PermissionsBoundary"):
            given["PermissionsBoundary"] = limit["PermissionsBoundaryArn"]
        iam.create_role(AssumeRolePolicyDocument=json.dumps(item.role["AssumeRolePolicyDocument"]), **given)
        name = item.role["RoleName"]
        for own in item.attached:
            iam.attach_role_policy(RoleName=name, PolicyArn=own)
        for policy, text in item.inline.items():
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(text))
    for entry in account.oidc_providers.values():
        lists = {key: entry[key] for key in ("ClientIDList", "ThumbprintList")}
        iam.create_open_id_connect_provider(Url=f"https://{entry['Url']}", **lists)


def _make_logs(client: Callable[[str], Any], region: Region) -> None:
    logs = client("logs")
    for group in region.log_groups:
        name = group["logGroupName"]
        logs.create_log_group(logGroupName=name)
        if "retentionInDays" in group:
            logs.put_retention_policy(logGroupName=name, retentionInDays=group["retentionInDays"])
        for item in region.subscription_filters.get(name, []):
            _make_stream(client, region, item["destinationArn"].rpartition("/")[2])
            given = {key: item[key] for key in ("logGroupName", "filterName", "filterPattern", "destinationArn")}
            logs.put_subscription_filter(**given, roleArn=item["roleArn"], distribution=item["distribution"])


def _make_stream(client: Callable[[str], Any], region: Region, name: str) -> None:
    """The stream of Firehose that a filter sends to, and the bucket behind it: moto tries whether they are there."""
    bucket = f"{name}-{region.account}-{region.name}"
    elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": region.name}}
    client("s3").create_bucket(Bucket=bucket, **({} if region.name == "us-east-1" else elsewhere))
    target = {"RoleARN": iam_arn(region.account, "role/firehose"), "BucketARN": f"arn:aws:s3:::{bucket}"}
    client("firehose").create_delivery_stream(DeliveryStreamName=name, ExtendedS3DestinationConfiguration=target)


def _make_ecr(client: Callable[[str], Any], region: Region) -> None:
    ecr = client("ecr")
    for item in region.repositories:
        name = item["repositoryName"]
        ecr.create_repository(repositoryName=name)
        if name in region.repository_policies:
            ecr.set_repository_policy(repositoryName=name, policyText=json.dumps(region.repository_policies[name]))
        if name in region.lifecycle_policies:
            text = json.dumps(region.lifecycle_policies[name])
            ecr.put_lifecycle_policy(repositoryName=name, lifecyclePolicyText=text)
    ecr.put_registry_scanning_configuration(**region.registry_scanning)


def _make_guardduty(client: Callable[[str], Any], region: Region) -> None:
    for item in region.detectors.values():
        features = [_without_time(feature) for feature in item.get("Features", [])]
        client("guardduty").create_detector(Enable=item["Status"] == "ENABLED", Features=features)


def _without_time(feature: Object) -> Object:
    kept = {key: value for key, value in feature.items() if key not in ("UpdatedAt", "AdditionalConfiguration")}
    more = [_without_time(part) for part in feature.get("AdditionalConfiguration", [])]
    return kept | ({"AdditionalConfiguration": more} if more else {})


_MAKERS: dict[str, Callable[[Callable[[str], Any], Any], None]] = {
    "iam": _make_iam,
    "logs": _make_logs,
    "ecr": _make_ecr,
    "guardduty": _make_guardduty,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a large estate until standard input is closed.")
    parser.add_argument("--accounts", type=int, default=1)
    parser.add_argument("--regions", type=int, default=10)
    parser.add_argument("--clusters", type=int, default=1000, help="in all accounts together")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    args = parser.parse_args()
    estate = large_estate(args.accounts, args.regions, args.clusters)
    with AwsServer(estate, moto=False, latency=args.latency) as aws:
        aws.warm()
        roles = [iam_arn(found.id, f"role/{name}") for found in estate.accounts.values() for name in found.assumable]
        print(json.dumps({"url": aws.url, "environment": aws.environment, "roles": roles}), flush=True)
        sys.stdin.read()
        print(len(aws.requests))  # for the benchmark, which divides by its rounds


if __name__ == "__main__":
    main()
