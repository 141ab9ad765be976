"""Objects: each batch of OCSF events is one gzipped NDJSON file in S3, Azure Blob Storage, Google Cloud Storage or a
directory, which is only ever created. docs/objects.md tells their names.

What a file is called follows from what is in it: a batch that is sent again finds that it is already there.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import hashlib
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from providers import proxies
from providers.errors import CloudError
from scanner.config import ConfigError
from scanner.kube import printable
from scanner.model import GapReason
from scanner.plain import plain
from scanner.report.ocsf_event import line
from scanner.sinks import Unavailable, Unusable

if TYPE_CHECKING:
    from scanner.report.ocsf_event import Event
    from scanner.sinks import Packed
    from scanner.sinks.settings import ObjectsSink

Write = Callable[[str, bytes], None]  # a path and what is to be there; raises Unavailable and Unusable
# Whether what obstore.put returns is what only a store says that has these bytes now. obstore is content with any 2xx
# and any ETag, also of the page that a 303 leads to.
Proof = Callable[[Mapping[str, str | None], bytes], bool]
Credential = Callable[[], dict[str, Any]]  # as obstore wants it; raises CloudError

_FORMS = (
    "s3://BUCKET/PREFIX, https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX, gs://BUCKET/PREFIX or file:///PATH"
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9_.-]{1,220}[a-z0-9]")
_PREFIX = re.compile(r"(?!\.\.?(?:/|$))[\w.=-]+(?:/(?!\.\.?(?:/|$))[\w.=-]+)*", re.ASCII)
_BLOBS = re.compile(r"(?P<account>[a-z0-9]{3,24})\.blob\.(?P<domain>[a-z.]+)")
_CLOUDS = {
    "core.windows.net": "AzureCloud",
    "core.usgovcloudapi.net": "AzureUSGovernment",
    "core.chinacloudapi.cn": "AzureChinaCloud",
}
_OF_AWS = re.compile(r"\.amazonaws\.[a-z.]+$")
_AZURE_SCOPE = "https://storage.azure.com/.default"
_ASKED_AGAIN = timedelta(minutes=1)  # who we are, as often; what keeps the tokens renews them in time
_TIMEOUT = 30.0  # seconds
_RETRIES = {"max_retries": 2, "retry_timeout": timedelta(seconds=60)}
_NOBODY_CAN = frozenset({GapReason.NOT_CONFIGURED, GapReason.FORBIDDEN, GapReason.NOT_FOUND})


class _Metadata(msgspec.Struct):
    correlation_uid: str


class _Event(msgspec.Struct):
    """What the name of a file needs to know. `time` is in milliseconds since 1970."""

    time: int
    metadata: _Metadata


class Objects:
    """A place for files."""

    most_events = 20_000
    most_bytes = 16 * 1024 * 1024  # about 1 MB as it is sent

    def __init__(self, write: Write, prefix: str) -> None:
        self._write, self._prefix = write, prefix

    def pack(self, event: Event) -> bytes | None:
        return line(event)[:-1]

    def send(self, batch: Sequence[Packed]) -> Mapping[str, str]:
        if batch:
            self._write(f"{self._prefix}{_name(batch)}", _zipped(batch))
        return {}

    def close(self) -> None:
        """Nothing is kept open."""


def open_sink(settings: ObjectsSink) -> Objects:
    """Asks nothing yet. Raises ConfigError."""
    if problem := proxies.unusable():
        raise ConfigError(f"objects: {problem}")
    place = _place(settings.url)
    if place.scheme != "s3" and (settings.region or settings.aws_profile):
        raise ConfigError("objects: region and aws_profile go with s3:// alone")
    if place.scheme == "file":
        return Objects(_Files(place.path).write, "")
    try:
        store = _store(place, settings)
    except ModuleNotFoundError as error:
        raise ConfigError(_missing(error, place.scheme)) from None
    return Objects(store.write, place.prefix)


class Place(NamedTuple):
    """`host` is an Azure account's, `path` a directory's; `prefix` is empty or ends with a slash."""

    scheme: str
    host: str
    bucket: str
    prefix: str
    path: str


def _place(url: str) -> Place:
    """Raises ConfigError, which does not show the URL: there may be a signature in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError(f"objects: url is none of {_FORMS}") from None
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(f"objects: url is {_FORMS}, with no signature or password in it")
    path = parts.path.strip("/")
    if parts.scheme == "file":
        if parts.netloc or not path:
            raise ConfigError("objects: the url of a directory is file:///PATH")
        return Place("file", "", "", "", _directory(unquote(parts.path)))
    host, bucket = "", parts.netloc
    if parts.scheme == "https":
        host = parts.netloc.lower()
        bucket, _, path = path.partition("/")
    known = _blobs(host) if host else parts.scheme in ("s3", "gs")
    if not known or not _BUCKET.fullmatch(bucket) or (path and not _PREFIX.fullmatch(path)):
        raise ConfigError(f"objects: url is {_FORMS}; a prefix has letters, digits and . _ - = in its parts")
    return Place(parts.scheme, host, bucket, f"{path}/" if path else "", "")


def _directory(path: str) -> str:
    """Raises ConfigError."""
    if not path.isprintable() or ".." in path.split("/") or not path.strip("/."):
        raise ConfigError("objects: the url of a directory is file:///PATH, without .. in it")
    return path


def _blobs(host: str) -> tuple[str, str] | None:
    """An Azure account, and the cloud that it is in."""
    match = _BLOBS.fullmatch(host)
    return (match["account"], _CLOUDS[match["domain"]]) if match and match["domain"] in _CLOUDS else None


def _store(place: Place, settings: ObjectsSink) -> _Store:
    from obstore.exceptions import BaseError

    try:
        return _s3(place, settings) if place.scheme == "s3" else _STORES[place.scheme](place)
    except BaseError as error:  # for a variable of the environment that obstore reads too
        raise ConfigError(f"objects: {plain(_said(error))}") from None


def _missing(error: ModuleNotFoundError, scheme: str) -> str:
    name, cloud = (error.name or "").partition(".")[0], {"s3": "aws", "https": "azure", "gs": "gcp"}[scheme]
    if name in ("providers", "scanner"):
        raise error
    return f"objects in {scheme}:// need more than is installed: pip install 'kubeposture[objects,{cloud}]'"


def _name(batch: Sequence[Packed]) -> str:
    first = msgspec.json.decode(batch[0].body, type=_Event)
    day = datetime.fromtimestamp(first.time / 1000, UTC).date()
    scan = re.sub(r"[^\w-]", "_", first.metadata.correlation_uid, flags=re.ASCII)[:64]
    digest = hashlib.sha256()
    for packed in batch:
        digest.update(packed.body + b"\n")
    return f"day={day}/{scan}-{digest.hexdigest()[:32]}.ndjson.gz"


def _zipped(batch: Sequence[Packed]) -> bytes:
    data = io.BytesIO()
    with gzip.GzipFile(fileobj=data, mode="wb", filename="", compresslevel=6, mtime=0) as file:
        for packed in batch:
            file.write(packed.body + b"\n")
    return data.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# Clouds


class _Store:
    """A bucket or container. `credential` is asked first, as what it raises would not come through obstore."""

    def __init__(self, label: str, store: Any, credential: Credential, advice: str, proof: Proof) -> None:
        self._label, self._store, self._credential, self._advice, self._proof = label, store, credential, advice, proof

    def write(self, path: str, data: bytes) -> None:
        import obstore
        from obstore.exceptions import BaseError

        try:
            self._credential()
            if self._proof(obstore.put(self._store, path, data, mode="create"), data):
                return
            # S3 that encrypts with a KMS key, or no object store at all: that would not find it there now.
            obstore.put(self._store, path, data, mode="create")
        except CloudError as error:
            raise (Unusable if error.reason in _NOBODY_CAN else Unavailable)(error.detail) from None
        except (BaseError, FileNotFoundError) as error:
            if failure := self._failure(error):
                raise failure from None
        else:
            raise Unusable(self._no_store())

    def _failure(self, error: Exception) -> Exception | None:
        """None where the object is there. obstore takes each answer 409 for that, whatever its reason."""
        from obstore.exceptions import AlreadyExistsError, UnauthenticatedError

        text = _said(error)
        status = int(match[1]) if (match := _STATUS.search(text)) else 0
        code = match[1] if (match := _CODE.search(text)) else ""
        if isinstance(error, AlreadyExistsError) and (status == 412 or code in _THERE):
            return None
        said = code or status or plain(text)
        if "Unable to extract metadata" in text:
            return Unusable(self._no_store())
        if 300 <= status < 400 or any(words in text for words in _REDIRECTED):
            shown = f" ({said})" if status else ""
            why = "it is in another region, or something else answers"
            return Unusable(f"{self._label} answered with a redirect{shown}, which is not followed: {why}")
        if status == 404:
            return Unusable(f"{self._label} does not exist ({said})")
        if code in _EXPIRED:
            return Unusable(f"{self._label}: the credentials have expired: log in again")
        if isinstance(error, UnauthenticatedError) or (400 <= status < 500 and status not in _LATER):
            return Unusable(f"{self._label} does not take objects ({said}): {self._advice}")
        return Unavailable(f"{self._label} did not take an object ({said})")

    def _no_store(self) -> str:
        return (
            f"{self._label} took an object as no object store does: something else answers, as a page to log in; check "
            "the url, the endpoint and the proxy"
        )


def _said(error: Exception) -> str:
    return str(error).partition("\n\nDebug source")[0]


# What obstore says of one without a Location, and of one that it does follow: 303.
_REDIRECTED = ("Received redirect without LOCATION", "error following redirect")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_THERE = frozenset({"BlobAlreadyExists", "BlobImmutableDueToPolicy"})
_EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired"})
_LATER = frozenset({408, 409, 425, 429})  # in the answers of object stores: in a while it may be another


def _s3(place: Place, settings: ObjectsSink) -> _Store:
    from obstore.store import S3Store

    from providers.aws.errors import AwsError, UsageError
    from providers.aws.session import REGION, AwsAccount, session

    try:
        found = session(settings.aws_profile)
        account = AwsAccount(found, request_timeout=_TIMEOUT, connections=1, attempts=1)
        region = settings.region or found.region_name
        if not region:
            raise ConfigError("objects: name the bucket's region, as in region: eu-west-1, or set AWS_DEFAULT_REGION")
        endpoint = account.client("s3", region).meta.endpoint_url
        if _OF_AWS.search(endpoint) and not REGION.fullmatch(region):
            raise ConfigError(f"objects: {printable(region)!r} is no region: eu-west-1 is one")
    except (UsageError, AwsError) as error:
        raise ConfigError(f"objects: {error}") from None

    def credential() -> dict[str, Any]:
        keys = account.keys()
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + _ASKED_AGAIN,
        }

    store = S3Store(
        place.bucket,
        endpoint=endpoint,
        region=region,
        conditional_put="etag",
        skip_signature=False,
        credential_provider=credential,
        retry_config=_RETRIES,
    )
    advice = f"grant s3:PutObject on arn:aws:s3:::{place.bucket}/*"
    return _Store(f"s3://{place.bucket}", store, credential, advice, _is_of_s3)


def _azure(place: Place) -> _Store:
    from obstore.store import AzureStore

    from providers.azure import credentials
    from providers.azure.errors import UsageError

    account, cloud = _blobs(place.host) or ("", "")
    try:
        who = credentials.Credential(credentials.CLOUDS[cloud], None)
    except UsageError as error:
        raise ConfigError(f"objects: {error}") from None
    # Elsewhere obstore does not know where accounts are.
    endpoint = {} if cloud == "AzureCloud" else {"endpoint": f"https://{place.host}"}
    credential = _token(lambda: who.token(_AZURE_SCOPE))
    store = AzureStore(
        place.bucket,
        account_name=account,
        skip_signature=False,
        credential_provider=credential,
        retry_config=_RETRIES,
        **endpoint,
    )
    label = f"https://{place.host}/{place.bucket}"
    advice = "grant the role Storage Blob Data Contributor on the container"
    return _Store(label, store, credential, advice, _is_of_azure)


def _gcs(place: Place) -> _Store:
    import google.auth  # noqa: F401 - missed now, not when there is something to send
    import requests
    from obstore.store import GCSStore

    from providers.gcp.credentials import Credential as Google

    @functools.cache
    def who() -> Google:  # the metadata server may be asked
        return Google(requests.Session(), impersonate=None, iam=None, request_timeout=_TIMEOUT)

    credential = _token(lambda: who().token())
    store = GCSStore(place.bucket, skip_signature=False, credential_provider=credential, retry_config=_RETRIES)
    advice = "grant roles/storage.objectCreator on the bucket"
    return _Store(f"gs://{place.bucket}", store, credential, advice, _is_of_google)


def _is_of_s3(stored: Mapping[str, str | None], data: bytes) -> bool:
    return stored["e_tag"] == f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _is_of_azure(stored: Mapping[str, str | None], data: bytes) -> bool:
    return bool(re.fullmatch(r'"0x[0-9A-F]+"', stored["e_tag"] or ""))


def _is_of_google(stored: Mapping[str, str | None], data: bytes) -> bool:
    return (stored["version"] or "").isdecimal()  # the generation


def _token(token: Callable[[], str]) -> Credential:
    return lambda: {"token": token(), "expires_at": datetime.now(UTC) + _ASKED_AGAIN}


_STORES = {"https": _azure, "gs": _gcs}


# ---------------------------------------------------------------------------------------------------------------------
# Directories


_NOBODY_CAN_WRITE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP}
)


class _Files:
    """A directory, which has to be there: a file system that is not mounted is not written below."""

    def __init__(self, path: str) -> None:
        self._root = Path(path)

    def write(self, path: str, data: bytes) -> None:
        """Written beside its place, for the owner alone, and there when it is on the disk."""
        target = self._root / path
        temporary = target.with_name(f".{secrets.token_hex(8)}")
        try:
            if not stat.S_ISDIR(self._root.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "no directory")
            target.parent.mkdir(mode=0o700, exist_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, target)
            _sync(target.parent)
            _sync(self._root)
        except OSError as error:
            kind = Unusable if error.errno in _NOBODY_CAN_WRITE else Unavailable
            raise kind(f"{plain(str(self._root))} cannot be written: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """What is in it is on the disk too."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
