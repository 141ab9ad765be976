"""The way to one API server: the official client's pool with our TLS, and answers that end.

The TLS context is made once and in memory, where the official client leaves keys in temporary files.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import os
import ssl
import tempfile
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit
from zlib import decompressobj
from zlib import error as ZlibError  # noqa: N812 - zlib's name says nothing in an except clause

from providers import bounded, proxies
from providers.bounded import Endless, Limit, pool_classes
from providers.kubernetes.credentials import Endpoint
from providers.kubernetes.errors import ConfigError
from scanner.plain import plain

_STEP = 16 * 1024 * 1024  # one read, so that most bodies are one bytes object that is never copied


def _tls_context(endpoint: Endpoint, certificate: bytes) -> ssl.SSLContext:
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
    try:
        context = _trust(endpoint, bundle)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        source = "its certificate-authority" if endpoint.ca else plain(bundle or "the system's store")
        raise ConfigError(f"{endpoint.server}: {source} holds no usable PEM certificates") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # it refuses the authorities of many clusters that kubectl takes
    if certificate:
        _load_certificate(context, certificate, endpoint.server)
    return context


def _trust(endpoint: Endpoint, bundle: str) -> ssl.SSLContext:
    if endpoint.insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    if endpoint.ca is not None:
        context = ssl.create_default_context(cadata=endpoint.ca.decode("ascii", "ignore"))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the given authority may be an intermediate one
        return context
    if os.path.isdir(bundle):
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle or None)  # OpenSSL itself looks at SSL_CERT_FILE


def _load_certificate(context: ssl.SSLContext, pem: bytes, server: str) -> None:
    """OpenSSL reads certificates only from files: this one lives for a moment, and only its owner can read it."""
    handle, path = tempfile.mkstemp(prefix="kubeposture-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path, password="")  # without one, OpenSSL asks on the terminal
    except (OSError, ValueError):
        raise ConfigError(f"{server}: the client certificate or its key is not valid PEM, or is encrypted") from None
    finally:
        os.unlink(path)


def open_pool(endpoint: Endpoint, certificate: bytes, limit: Limit) -> Any:
    """The official client's pool manager with our TLS context, bounded answers, and only GET to this one server."""
    from kubernetes import client

    configuration = client.Configuration(host=endpoint.server)
    configuration.retries = False
    configuration.verify_ssl = not endpoint.insecure
    configuration.tls_server_name = endpoint.tls_server_name
    configuration.connection_pool_maxsize = 1
    _set_proxy(configuration, endpoint)
    pool = client.ApiClient(configuration).rest_client.pool_manager
    if endpoint.server.startswith("https:"):
        pool.connection_pool_kw["ssl_context"] = _tls_context(endpoint, certificate)
    pool.pool_classes_by_scheme = pool_classes(pool.pool_classes_by_scheme, lambda: limit)
    pool.urlopen = functools.partial(_get_only, pool.urlopen, endpoint.server + "/")
    return pool


def _get_only(urlopen: Callable[..., Any], prefix: str, method: str, url: str, **kwargs: Any) -> Any:
    """The guard: whatever is built on this pool, only reading requests to the one server leave it."""
    if method != "GET" or not url.startswith(prefix):
        raise PermissionError(f"{method} is refused: this program only reads, and only from {prefix}")
    return urlopen(method, url, **kwargs)


def _set_proxy(configuration: Any, endpoint: Endpoint) -> None:
    if endpoint.proxy:
        configuration.proxy, configuration.no_proxy = endpoint.proxy, ""  # as for kubectl, it outranks the environment
    elif endpoint.loopback:
        configuration.proxy = None
    if not configuration.proxy:
        return
    if not proxies.has_usable_login(configuration.proxy):
        raise ConfigError(f"{endpoint.server}: the proxy cannot be used: {proxies.ADVICE}")
    url = configuration.proxy if "://" in configuration.proxy else f"http://{configuration.proxy}"
    parts = urlsplit(url)
    host = plain(parts.hostname or "")
    try:
        usable = bool(host) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable or parts.scheme not in ("http", "https", "socks5", "socks5h"):
        raise ConfigError(f"{endpoint.server}: the proxy must be an http, https or socks5 URL")
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socks") is None:
        raise ConfigError(f"{endpoint.server}: proxy {host} speaks SOCKS: install the package PySocks")
    if parts.username and not parts.scheme.startswith("socks"):
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        configuration.proxy_headers = {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    configuration.proxy = url


def read_body(response: Any) -> bytes:
    """The decoded body. Not compressed, it is the very object that the socket's bytes were read into."""
    body = b"".join(iter(functools.partial(response.read, _STEP, decode_content=False), b""))
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity" or not body:
        return body
    if encoding != "gzip":
        raise ValueError("its encoding was not asked for")
    return _gunzip(body)


def _gunzip(data: bytes) -> bytes:
    decoder = decompressobj(wbits=31)
    try:
        body = decoder.decompress(data, bounded.MAX_BODY + 1)
    except ZlibError:
        raise ValueError("it is not valid gzip") from None
    if len(body) > bounded.MAX_BODY:
        raise Endless(slow=False)
    if not decoder.eof:
        raise ValueError("its gzip stream is not complete")
    return body
