"""One AWS account: boto3's calls that read, each answer as AWS sent it. Nothing that might change something leaves."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from providers import bounded, proxies
from providers.aws.errors import AwsError, UsageError, WriteRefused
from providers.bounded import Endless
from scanner import __project__, __version__
from scanner.model import GapReason
from scanner.plain import plain

Json = dict[str, Any]

ATTEMPTS = 8
WHOLE_ANSWER = 10  # times the read time-out: what a server that sends a byte now and then may take
HOME = "us-east-1"  # asked what is not of one region, where none is configured
# All that may leave. Of reads those that a scan needs, as there are others that hand out secrets: ecr's
# GetAuthorizationToken, sts' GetSessionToken and the like.
_ALLOWED: Mapping[str, frozenset[str]] = {
    service: frozenset(operations)
    for service, operations in {
        "ec2": ("DescribeRegions", "DescribeRouteTables", "DescribeSubnets"),
        "ecr": (
            *("BatchGetImage", "BatchGetRepositoryScanningConfiguration", "DescribeImageScanFindings"),
            *("DescribeImages", "DescribeRepositories", "GetLifecyclePolicy", "GetRepositoryPolicy"),
        ),
        "eks": (
            *("DescribeAddon", "DescribeCluster", "DescribeClusterVersions", "DescribeFargateProfile"),
            *("DescribeNodegroup", "ListAccessEntries", "ListAddons", "ListAssociatedAccessPolicies", "ListClusters"),
            *("ListFargateProfiles", "ListNodegroups"),
        ),
        "guardduty": ("GetDetector", "ListDetectors"),
        "iam": (
            *("GetOpenIDConnectProvider", "GetPolicy", "GetPolicyVersion", "GetRole", "GetRolePolicy"),
            *("ListAttachedRolePolicies", "ListOpenIDConnectProviders", "ListRolePolicies"),
        ),
        "inspector2": ("BatchGetAccountStatus", "ListCoverage", "ListFindings"),
        "logs": ("DescribeLogGroups", "DescribeSubscriptionFilters"),
        "organizations": ("ListAccounts",),
        # By these boto3 itself turns a profile, a pod's or a pipeline's token into credentials.
        "sts": ("AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity", "GetCallerIdentity"),
        "sso": ("GetRoleCredentials",),
        "sso-oidc": ("CreateToken",),
        "signin": ("CreateOAuth2Token",),
    }.items()
}
_REASONS = {
    GapReason.FORBIDDEN: (
        *("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure", "ForbiddenException"),
        *("UnauthorizedException", "NotAuthorizedException"),
    ),
    GapReason.THROTTLED: (
        *("Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException"),
        *("RequestLimitExceeded", "RequestThrottled", "RequestThrottledException", "SlowDown"),
    ),
}
REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-\d{1,2}")
_NOT_ENABLED = frozenset({"UnrecognizedClientException", "InvalidClientTokenId", "OptInRequired"})
_UNKNOWN = _NOT_ENABLED | {
    *("AuthFailure", "IncompleteSignature", "InvalidAccessKeyId", "InvalidIdentityToken", "SignatureDoesNotMatch")
}
# One sentence for every call, whatever each service says, so that the gaps can be told as one.
EXPIRED = "the AWS credentials have expired: log in again, with a session that lasts longer than the scan"
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
# Codes that are about who asks, and not about what is asked for.
NO_ACCESS = _UNKNOWN | _EXPIRED | frozenset(_REASONS[GapReason.FORBIDDEN])
_BY_POLICY = re.compile(r"explicit deny in a service control policy", re.IGNORECASE)


class AwsAccount:
    """The calls of one identity in one account. May be used by many threads; clients are kept by service and region."""

    def __init__(
        self, session: Any, *, request_timeout: float, connections: int, attempts: int = ATTEMPTS, guard: Any = None
    ) -> None:
        """`guard` stands in for refuse_writes."""
        from botocore.config import Config

        self._session = session
        # On the session, so that each client of it is guarded from its first call on.
        session.events.register("before-call", guard or refuse_writes)
        self._seconds = WHOLE_ANSWER * request_timeout
        self._config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=min(request_timeout, 5),
            read_timeout=request_timeout,
            max_pool_connections=connections,
            user_agent_extra=f"{__project__}/{__version__}",
        )
        self._clients: dict[tuple[str, str | None], Any] = {}
        self._lock = threading.Lock()  # making clients is not safe in threads, using them is
        self.profile: str | None = session._session.profile
        self.home: str = session.region_name or HOME
        self.id = ""
        self.partition = "aws"
        self.principal = ""  # the ARN of the user or role, as access entries want it

    def identify(self) -> None:
        """Who this is, and whose account it is. Raises AwsError."""
        try:
            answer = self.call("sts", self.home, "GetCallerIdentity")
        except AwsError as error:
            if error.code in _UNKNOWN:
                detail = f"AWS does not accept these credentials ({error.said or error.code})"
                raise AwsError(GapReason.NOT_CONFIGURED, detail, code=error.code) from None
            raise
        match = _WHO.fullmatch(str(answer.get("Arn")))
        if match is None or answer.get("Account") != match["account"]:
            raise AwsError(GapReason.BAD_DATA, "AWS did not say whose credentials these are")
        self.id, self.partition = match["account"], match["partition"]
        role = match["role"]
        self.principal = f"arn:{self.partition}:iam::{self.id}:role/{role}" if role else match[0]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def client(self, service: str, region: str | None) -> Any:
        from botocore.exceptions import BotoCoreError

        with self._lock:
            if (service, region) not in self._clients:
                try:
                    made = self._session.client(service, region_name=region, config=self._config)
                except (BotoCoreError, ValueError) as error:
                    raise AwsError(GapReason.NOT_CONFIGURED, plain(str(error))) from None
                limit = bounded.for_each_answer(self._seconds)
                http = made._endpoint.http_session  # botocore offers no other way to it
                http._pool_classes_by_scheme.update(bounded.pool_classes(http._pool_classes_by_scheme, limit))
                # For the client, as its own rules for retries come before those of the session.
                name = made.meta.service_model.service_id.hyphenize()
                made.meta.events.register_first(f"needs-retry.{name}", _give_up)
                self._clients[service, region] = made
            return self._clients[service, region]

    def credentials(self) -> Any:
        """Raises AwsError where there are none."""
        try:
            found = self._session.get_credentials()
        except OSError as error:
            raise unreadable(error) from None
        if found is None:
            raise AwsError(GapReason.NOT_CONFIGURED, "no AWS credentials were found")
        return found

    def keys(self) -> Any:
        """The credentials as they are now, renewed where that is due. Raises AwsError."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self.credentials().get_frozen_credentials()
        except ClientError as error:
            raise _no_login(_failure(error, "")) from None
        except BotoCoreError as error:
            raise _no_answer(error) from None
        except OSError as error:
            raise unreadable(error) from None

    def sts_host(self, region: str) -> str:
        """The regional STS, by botocore's own data. Raises AwsError for a region of which it knows no partition."""
        from botocore.regions import EndpointResolver

        data = self._session._session.get_component("data_loader").load_data("endpoints")
        known = EndpointResolver(data).construct_endpoint("sts", region)
        if not known:
            raise AwsError(GapReason.NOT_CONFIGURED, f"boto3 knows no region {plain(region)}: it may be too old")
        host: str = known["hostname"]
        return host

    def call(self, service: str, region: str | None, operation: str, **parameters: Any) -> Json:
        """One answer. Raises AwsError."""
        from botocore import xform_name
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        client = self.client(service, region)
        try:
            answer: Json = getattr(client, xform_name(operation))(**parameters)
        except (ClientError, BotoCoreError) as error:
            if endless := _endless(error):
                raise self._too_much(endless) from None
            raise _failure(error, f"{client.meta.service_model.signing_name}:{operation}") from None
        except OSError as error:
            raise unreadable(error) from None
        except (*_NOT_UNDERSTOOD, ResponseParserError) as error:
            # What botocore's parsers raise for an answer of a proxy, or one of another shape.
            detail = f"the answer to {operation} is not understood ({type(error).__name__})"
            raise AwsError(GapReason.BAD_DATA, detail) from None
        return answer

    def _too_much(self, error: Endless) -> AwsError:
        if error.slow:
            return AwsError(GapReason.TIMEOUT, f"AWS did not finish its answer within {self._seconds:g} s")
        return AwsError(GapReason.BAD_DATA, f"AWS sent an answer of more than {bounded.MAX_BODY >> 20} MiB")

    def pages(
        self, service: str, region: str | None, operation: str, items: str, **parameters: Any
    ) -> Iterator[list[Any]]:
        """Every page of a list. Raises AwsError, also for an answer that is no list: that is never an empty one."""
        for answer in self.answers(service, region, operation, **parameters):
            page = answer.get(items)
            if not isinstance(page, list):
                raise AwsError(GapReason.BAD_DATA, f"the answer to {operation} holds no list {items!r}")
            yield page

    def answers(self, service: str, region: str | None, operation: str, **parameters: Any) -> Iterator[Json]:
        """Every answer with a page in it. Raises AwsError."""
        token_in, token_out = _TOKENS.get(operation, ("nextToken", "nextToken"))
        seen: set[str] = set()
        while True:
            answer = self.call(service, region, operation, **parameters)
            yield answer
            token = answer.get(token_out)
            if (token is None or token == "") and not answer.get("IsTruncated"):
                return
            if not isinstance(token, str) or not token:
                raise AwsError(GapReason.BAD_DATA, f"the answer to {operation} names no page that could follow")
            if token in seen:
                raise AwsError(GapReason.BAD_DATA, f"the pages of {operation} go round in circles")
            seen.add(token)
            parameters[token_in] = token


_WHO = re.compile(
    r"arn:(?P<partition>[\w-]+):(?:iam|sts)::(?P<account>\d{12}):(?:assumed-role/(?P<role>[^/]+)/.+|[\w-]+(?:/.+)?)"
)
_NO_LOGIN = "Tunnel connection failed: 407"
_NOT_UNDERSTOOD = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)

# Where the names of page tokens differ from the usual ones.
_TOKENS = {
    "DescribeSubnets": ("NextToken", "NextToken"),
    "DescribeRouteTables": ("NextToken", "NextToken"),
    "ListAccounts": ("NextToken", "NextToken"),
    "ListDetectors": ("NextToken", "NextToken"),
    "ListAttachedRolePolicies": ("Marker", "Marker"),
    "ListRolePolicies": ("Marker", "Marker"),
}


def refuse_writes(model: Any, **_: Any) -> None:
    """A botocore event hook: raises WriteRefused before anything but a read that a scan needs, or a login, is sent."""
    if model.name not in _ALLOWED.get(model.service_model.service_name, ()):
        raise WriteRefused(f"refused to call {plain(model.name)}")


def _give_up(caught_exception: Exception | None, **_: Any) -> bool | None:
    """A botocore event hook: what never ends is not asked for again."""
    return False if _endless(caught_exception) else None


def _endless(error: Exception | None) -> Endless | None:
    cause = getattr(error, "kwargs", {}).get("error")  # where botocore keeps what it did not expect
    return cause if isinstance(cause, Endless) else None


def _failure(error: Any, action: str) -> AwsError:
    from botocore import exceptions as boto

    if not isinstance(error, boto.ClientError):
        return _no_answer(error)
    said = error.response.get("Error", {})
    code, message = str(said.get("Code", "")), str(said.get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    detail = plain(f"{code}: {message}" if message else code)
    by_policy = bool(_BY_POLICY.search(message))
    if code in _NOT_ENABLED:
        why = f"the region is not enabled for this account ({detail})"
        return AwsError(GapReason.FORBIDDEN, why, code=code, said=detail)
    if code in _EXPIRED:
        return AwsError(GapReason.FORBIDDEN, EXPIRED, code=code)
    if code in _REASONS[GapReason.THROTTLED] or status == 429:
        return AwsError(GapReason.THROTTLED, detail, code=code)
    if code in _REASONS[GapReason.FORBIDDEN] or status == 403:
        return AwsError(GapReason.FORBIDDEN, detail, code=code, action=action, by_policy=by_policy, said=detail)
    if "NotFound" in code or "NoSuch" in code or status == 404:
        return AwsError(GapReason.NOT_FOUND, detail, code=code, action=action)
    reason = GapReason.SERVER_ERROR if (status or 0) >= 500 else GapReason.BAD_DATA
    return AwsError(reason, detail, code=code)


def _no_login(error: AwsError) -> AwsError:
    """What an answer says that should have been credentials: where it is of no use, nothing but the login is wrong."""
    if error.reason is not GapReason.BAD_DATA:
        return error
    why = f"AWS does not accept these credentials ({plain(error.code)})"
    return AwsError(GapReason.NOT_CONFIGURED, why, code=error.code)


def unreadable(error: OSError) -> AwsError:
    """A file that the AWS configuration names, as a web identity's token. botocore wraps what comes of the network."""
    where = f" ({plain(str(error.filename))})" if error.filename else ""
    return AwsError(GapReason.NOT_CONFIGURED, f"no AWS credentials: {error.strerror or type(error).__name__}{where}")


def _no_answer(error: Exception) -> AwsError:
    from botocore import exceptions as boto

    detail = plain(str(error))
    no_credentials = (
        boto.NoRegionError,
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.SSOError,
    )
    if isinstance(error, no_credentials):
        return AwsError(GapReason.NOT_CONFIGURED, f"no AWS credentials: {detail}")
    if isinstance(error, boto.ProxyConnectionError) and _NO_LOGIN in str(error.kwargs.get("error")):
        return AwsError(GapReason.NOT_CONFIGURED, f"{detail}: check the login of the proxy")
    if isinstance(error, boto.ConnectTimeoutError | boto.ReadTimeoutError):
        return AwsError(GapReason.TIMEOUT, detail)
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError):
        return AwsError(GapReason.UNREACHABLE, detail)
    return AwsError(GapReason.BAD_DATA, detail)


def session(profile: str | None) -> Any:
    """boto3's own chain, or one profile of it. Raises UsageError for a profile that does not exist, and for proxies
    whose password would be shown."""
    import boto3
    from botocore.exceptions import BotoCoreError

    if problem := proxies.unusable():
        raise UsageError(problem)
    try:
        return boto3.Session(botocore_session=_botocore(profile))
    except BotoCoreError as error:
        raise UsageError(plain(str(error))) from None


def _botocore(profile: str | None) -> Any:
    """A session that shares the descriptions of AWS's services with all others: they are many megabytes each."""
    from botocore.session import Session

    made = Session(profile=profile)
    made.register_component("data_loader", _loader(made.get_config_variable("data_path")))
    return made


@functools.cache
def _loader(data_path: str | None) -> Any:
    from botocore.loaders import create_loader

    return create_loader(data_path)


def assumed(base: AwsAccount, role_arn: str, external_id: str | None) -> Any:
    """A session of a role that `base` may assume, renewed before it ends. Raises AwsError where it may not."""
    import boto3
    from botocore.credentials import DeferredRefreshableCredentials

    parameters = {"RoleArn": role_arn, "RoleSessionName": __project__}
    if external_id:
        parameters["ExternalId"] = external_id

    def renew() -> dict[str, str]:
        found = base.call("sts", base.home, "AssumeRole", **parameters)["Credentials"]
        return {
            "access_key": found["AccessKeyId"],
            "secret_key": found["SecretAccessKey"],
            "token": found["SessionToken"],
            "expiry_time": found["Expiration"].isoformat(),
        }

    inner = _botocore(base.profile)  # for what it says beside credentials: proxies, authorities, endpoints
    inner._credentials = DeferredRefreshableCredentials(refresh_using=renew, method="assume-role")
    return boto3.Session(botocore_session=inner, region_name=base.home)
