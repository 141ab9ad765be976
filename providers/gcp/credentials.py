"""Who we are in Google Cloud: google-auth's own chain, or a service account that it may act as."""

from __future__ import annotations

import functools
import json
import re
import threading
import warnings
from typing import Any

from providers.gcp.errors import GcpError, refusal
from scanner.model import GapReason
from scanner.plain import plain

SCOPES = (
    "https://www.googleapis.com/auth/cloud-platform",
    # With this, API servers know a service account by its e-mail address: what bindings of roles name.
    "https://www.googleapis.com/auth/userinfo.email",
)
ACT_AS = "iam.serviceAccounts.getAccessToken"
ACCOUNT = re.compile(r"[\w.+-]{1,100}@[\w.-]{1,200}\.gserviceaccount\.com")
_HEADER = re.compile(r"[!-~]+(?: [!-~]+)?")  # what a header may hold, whoever minted the token
_NOT_UNDERSTOOD = (AttributeError, LookupError, OSError, TypeError, ValueError)
_HINT = "log in with `gcloud auth application-default login`, or name a file in GOOGLE_APPLICATION_CREDENTIALS"


class Credential:
    """Tokens of one identity. May be used by many threads."""

    def __init__(self, http: Any, *, impersonate: str | None, iam: str | None, request_timeout: float) -> None:
        """`http` is a session of requests; `iam` is where to act as others, if not at Google. Raises GcpError where no
        credential is configured."""
        from google.auth.transport.requests import Request

        self._request = functools.partial(Request(http), timeout=request_timeout)
        self._acts_as = impersonate
        self._lock = threading.Lock()
        self._credentials, self.project = self._found()
        if impersonate:
            self._credentials = self._impersonated(impersonate, iam)
        try:
            self.universe: str = self._credentials.universe_domain  # which the metadata server may have to be asked
        except _errors() as error:
            raise _failure(error, None) from None

    def headers(self) -> dict[str, str]:
        """What says who is asking, and to whom it is charged. Raises GcpError."""
        with self._lock:
            if not self._credentials.valid:
                self._refresh()
            headers = self._applied()
        if not all(isinstance(value, str) and _HEADER.fullmatch(value) for value in headers.values()):
            raise GcpError(GapReason.BAD_DATA, "the access token that Google gave cannot be sent in a header")
        return headers

    def token(self) -> str:
        """A bearer token. Raises GcpError."""
        return self.headers()["authorization"].removeprefix("Bearer ")

    def renew(self, refused: dict[str, str]) -> None:
        """In place of a token that was refused, unless another thread has done so. Raises GcpError."""
        with self._lock:
            if refused["authorization"] == f"Bearer {self._credentials.token}":
                self._refresh()

    @property
    def account(self) -> str:
        """The e-mail address of a service account, "" where Google's library does not tell who it is."""
        email = getattr(self._credentials, "service_account_email", None)
        return email if isinstance(email, str) and ACCOUNT.fullmatch(email) else ""

    def _found(self) -> tuple[Any, str | None]:
        import google.auth

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of credentials without a quota project, on standard error
                found: tuple[Any, str | None] = google.auth.default(scopes=list(SCOPES), request=self._request)
        except _errors() as error:
            raise _failure(error, None) from None
        return found

    def _impersonated(self, account: str, iam: str | None) -> Any:
        from google.auth import impersonated_credentials

        override = f"{iam}/v1/projects/-/serviceAccounts/{account}:generateAccessToken" if iam else None
        try:
            return impersonated_credentials.Credentials(
                source_credentials=self._credentials,
                target_principal=account,
                target_scopes=list(SCOPES),
                quota_project_id=self._credentials.quota_project_id,
                iam_endpoint_override=override,
            )
        except _errors() as error:
            raise _failure(error, account) from None

    def _applied(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        try:
            # Not before_request: that would also ask Google, in a thread of its own, in which regions we may act.
            self._credentials.apply(headers)
        except _errors() as error:
            raise _failure(error, None) from None
        return headers

    def _refresh(self) -> None:
        try:
            self._credentials.refresh(self._request)
        except _errors() as error:
            raise _failure(error, self._acts_as) from None


def _errors() -> tuple[type[Exception], ...]:
    """What google-auth raises: its own, and others for a file or an answer of another shape."""
    from google.auth.exceptions import GoogleAuthError

    return (GoogleAuthError, *_NOT_UNDERSTOOD)


def _failure(error: Exception, acts_as: str | None) -> GcpError:
    from google.auth import exceptions as auth

    said = plain(str(error.args[0]) if error.args else str(error))[:160]
    if isinstance(error, auth.DefaultCredentialsError):
        return GcpError(GapReason.NOT_CONFIGURED, f"no Google Cloud credentials: {said.rstrip('.')}; {_HINT}")
    if isinstance(error, auth.TransportError):
        reason = GapReason.TIMEOUT if "timed out" in str(error).lower() else GapReason.UNREACHABLE
        return GcpError(reason, f"who we are could not be asked: {said}")
    if acts_as and (refused := _may_not_act(error)):
        return GcpError(refused.reason, plain(f"cannot act as {acts_as}: {refused.detail}"), permission=ACT_AS)
    if isinstance(error, auth.GoogleAuthError):
        return GcpError(GapReason.NOT_CONFIGURED, f"Google does not accept these credentials: {said}; {_HINT}")
    what = type(error).__name__
    return GcpError(GapReason.NOT_CONFIGURED, f"the Google Cloud credentials are not understood ({what}); {_HINT}")


def _may_not_act(error: Exception) -> GcpError | None:
    """What IAM said; None where it is not IAM that did not let us."""
    try:
        answer = json.loads(error.args[1])["error"]
        return refusal(int(answer["code"]), str(answer.get("status", "")), str(answer.get("message", "")), ())
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return None
