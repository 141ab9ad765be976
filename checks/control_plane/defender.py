"""What Microsoft Defender for Cloud may do in accounts of other clouds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from scanner.aws import DEFENDER_ROLES, DISCOVERY_ROLE, PIPELINE_ROLES, EksCluster, stated
from scanner.check import check
from scanner.cloud import Facts, expect, labelled, malformed
from scanner.iam import about_action, allows, denies, one_or_more, statements
from scanner.model import Collected, Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, not_applicable

_CHECK = "aws-eks-defender-permissions"
_LEFT_OUT = tuple(f"ms_defender_container_exclude_{what}" for what in ("agents", "agentless", "sensors"))  # tags
# By names that earlier templates let it pass on, where roles of today's names are not found.
_FORMER_ROLES = ("DefenderForCloud-Containers-K8s-kinesis-to-s3", "azuredefender-kinesis-to-s3")
_DEFAULT_ACCESS = tuple(
    f"eks:{what}"
    for what in ("CreateAccessEntry", "ListAccessEntries", "AssociateAccessPolicy", "ListAssociatedAccessPolicies")
)
_SIGN_IN = "sts:AssumeRoleWithWebIdentity"
_ISSUER = re.compile(r"arn:[\w-]+:iam::(\d{12}):oidc-provider/(sts\.windows\.net/[^/]+/?)")
_COMPARISONS = {"stringequals", "stringequalsignorecase", "stringlike"}
_OF_TOKENS = ("aud", "sub")  # what a token says of itself, under the name of its issuer


@check(
    _CHECK,
    Severity.HIGH,
    controls=("Enable enhanced security features",),
    fix="In Defender for Cloud, Environment settings, open the AWS connector, download the CloudFormation template of "
    "its Containers plan again and update the stack in the account.",
    refs=("mdc:7d3a977e-46f1-419a-9046-4bd44db80aac",),
    needs=("defenderRoles", "templateRoles", "oidcProviders", "subscriptionFilters", "accessEntries", "connectors"),
)
def eks_defender_permissions(
    c: EksCluster,
    *,
    role_names: Annotated[tuple[str, ...], "names that the role of Defender for Containers may have"] = DEFENDER_ROLES,
    skip_excluded: Annotated[bool, "leave out clusters that a tag keeps away from Defender"] = False,
) -> Verdict:
    """EKS clusters should grant the required AWS permissions to Microsoft Defender for Cloud

    With them Defender switches the audit log of the control plane on and builds the pipeline that brings it to Azure:
    without one of them nobody looks at the log. Required is what Microsoft documents and the CloudFormation template
    of the plan grants: eks:UpdateClusterConfig and eks:DescribeCluster on the cluster; four actions on its log group;
    iam:PassRole on the roles of the pipeline; all of firehose, sqs and s3 on the stream, queue and bucket of the
    cluster, whose names start with azuredefender-. Which of the latter are really used Microsoft does not publish.

    An account in which neither a connector nor a role is found is not onboarded. Without Azure in the same scan the
    names of roles decide. Policies of an organization are not seen: they may take away what the role allows. Where a
    condition decides on a permission the answer is unknown.

    Of the trust policy counts that it trusts an identity provider of Entra ID. Which tenant that is, and which audience
    and subject its conditions ask for, is not compared with anything: a tenant or an application that is not
    Microsoft's passes too.
    """
    roles = _roles(c, role_names)
    if not roles:
        return not_applicable("not_onboarded")
    tags = [Evidence(f"tags.{k}", v) for k, v in c.tags.items() if k.casefold() in _LEFT_OUT and v.casefold() == "true"]
    if tags:
        left_out = expect(False, "a tag keeps Defender away from the cluster", *tags, reason="left_out_by_tag")
        return not_applicable("left_out_by_tag") if skip_excluded else left_out
    verdicts = [_judged(c, role) for role in roles]
    if len({verdict.status for verdict in verdicts}) > 1:
        names = ", ".join(role.text("roleName").value for role in roles)
        option = f"--param {_CHECK}.role_names=NAME"
        raise _undecided("defenderRoles", f"the roles {names} differ: say which of them counts, {option}")
    return verdicts[0]


def _undecided(what: str, detail: str) -> MissingEvidence:
    return MissingEvidence(Gap(what=what, reason=GapReason.NOT_CONFIGURED, detail=detail))


# ---------------------------------------------------------------------------------------------------------------------
# Whether Defender is on board, and by which role


def _roles(c: EksCluster, names: tuple[str, ...]) -> list[Facts]:
    """The roles by which Defender acts in the account, or should; none where it is not onboarded."""
    read = {role.text("roleName").value: role for role in c.named("defenderRoles", "roleName")}
    if unread := [name for name in names if name not in read]:
        raise _undecided("defenderRoles", f"the role {unread[0]} was not looked for: read the account again")
    existing = [read[name] for name in names if stated(read[name].flag("exists")).value]
    own = _own_connectors(c)
    offerings = _offerings(own)
    if not offerings:
        if not existing and not own:
            _exclude_unseen(c)
        return existing
    told = list(dict.fromkeys(filter(None, (_told(c, offering, "kubernetesService") for offering in offerings))))
    for arn in told:
        if arn.rpartition("/")[2] not in names:
            option = f"--param {_CHECK}.role_names={arn.rpartition('/')[2]}"
            raise _undecided("defenderRoles", f"the connector names the role {arn}, which was not looked for: {option}")
    return [read[arn.rpartition("/")[2]] for arn in told] or existing or [read[name] for name in names]


def may_be_onboarded(c: EksCluster) -> bool:
    """False only where the account certainly has neither a connector with the plan nor a role of Defender."""
    try:
        roles = c.named("defenderRoles", "roleName")
        if any(role.flag("exists").value for role in roles) or _offerings(_own_connectors(c)):
            return True
        _exclude_unseen(c)
    except MissingEvidence:
        return True
    return False


def _told(c: EksCluster, offering: Facts, part: str) -> str:
    """The ARN of the role that a connector names for a part of its plan, "" where it names none."""
    setting = offering.text(f"{part}.cloudRoleArn")
    if setting.value and setting.value.split(":")[4:5] != [c.account]:
        raise malformed(setting.path, f"a role of account {c.account}: {setting.value[:60]!r}")
    return setting.value


def _own_connectors(c: EksCluster) -> list[Facts]:
    """Those of the account. None where Azure is not part of the scan."""
    if "connectors" not in c.related:
        return []
    listed = labelled(c.related["connectors"].items, "connectors", "name")
    return [one for one in listed if _is_of(one, c.account)]


def _is_of(connector: Facts, account: str) -> bool:
    """Whether it is AWS's with this account: numbers of projects look alike. Raises MissingEvidence where it does not
    say, and could be."""
    number, cloud = connector.text("properties.hierarchyIdentifier"), connector.text("properties.environmentName")
    if number.value.strip() not in ("", account) or cloud.value.strip().casefold() not in ("", "aws"):
        return False
    if unset := [setting.path for setting in (cloud, number) if not setting.value.strip()]:
        raise malformed(unset[0], "set")
    return True


def _offerings(connectors: Iterable[Facts]) -> list[Facts]:
    """Their plans for containers."""
    offerings = [o for one in connectors for o in one.parts("properties.offerings", "offeringType")]
    return [o for o in offerings if o.text("offeringType").equals("DefenderForContainersAws")]


def _exclude_unseen(c: EksCluster) -> None:
    """Raises MissingEvidence where a connector that is not seen, or one of an organization, may be the account's."""
    if "connectors" not in c.related:
        return
    for one in labelled(c.related["connectors"].all(), "connectors", "name"):
        data = one.part("properties.environmentData.organizationalData")
        whole = data.text("organizationMembershipType").equals("Organization")
        if whole and _offerings([one]) and c.account not in data.words("excludedAccountIds").value:
            detail = f"{one.path} is for an organization: whether account {c.account} belongs to it is not known"
            raise _undecided("connectors", detail)


# ---------------------------------------------------------------------------------------------------------------------
# What the role may do


def _judged(c: EksCluster, role: Facts) -> Verdict:
    exists, name = role.flag("exists"), role.text("roleName").value
    if not exists.value:
        return expect(False, f"the role {name} does not exist", exists)
    arn = stated(role.text("arn"))
    provider, why_not = _trust(c, role)
    if why_not:
        return expect(False, f"Defender cannot take the role {name}: {why_not}", arn, reason="not_trusted")
    answers = {action: _granted(role, action, resources) for action, resources in _required(c).items()}
    unread: tuple[Gap, ...] = ()
    try:
        answers["iam:PassRole"] = _may_pass(c, role)
    except MissingEvidence as why:
        unread = why.gaps
    missing = [action for action, answer in answers.items() if answer is False]
    if missing:
        lacks = Evidence(f"{role.path}.policies", f"do not allow {', '.join(missing)}")
        return expect(False, f"the role {name} is not allowed {', '.join(missing)}", arn, lacks, reason="not_granted")
    if open_ := [action for action, answer in answers.items() if answer is None]:
        where = f"{role.path}.policies"
        detail = f"whether they allow {', '.join(open_)} depends on a condition"
        raise MissingEvidence(Gap(what=where, reason=GapReason.BAD_DATA, detail=detail))
    if unread:
        raise MissingEvidence(*unread)
    trusted = Evidence(f"{role.path}.trustPolicy", f"trusts {provider}")
    return expect(True, "", arn, trusted, *_effects(c, role))


def _required(c: EksCluster) -> dict[str, tuple[str, ...]]:
    """Action -> the resources of this one cluster, under the names that Microsoft documents for them."""
    partition, region, account, name = c.id.split(":")[1], c.region, c.account, c.name
    log_group = f"arn:{partition}:logs:{region}:{account}:log-group:/aws/eks/{name}/cluster:log-stream:"
    bucket = f"arn:{partition}:s3:::azuredefender-{region}-{account}-{name.lower()}"
    logs = ("PutSubscriptionFilter", "DescribeSubscriptionFilters", "DescribeLogGroups", "PutRetentionPolicy")
    return {
        "eks:UpdateClusterConfig": (c.id,),
        "eks:DescribeCluster": (c.id,),
        **{f"logs:{what}": (log_group,) for what in logs},
        "firehose:*": (f"arn:{partition}:firehose:{region}:{account}:deliverystream/azuredefender-{name}",),
        "sqs:*": (f"arn:{partition}:sqs:{region}:{account}:azuredefender-{region}-{account}-{name}",),
        "s3:*": (bucket, f"{bucket}/*"),
    }


def _granted(role: Facts, action: str, resources: Iterable[str]) -> bool | None:
    """On all of the resources, by the role's policies, within its permissions boundary."""
    kinds = [role.parts("policies"), *([limit] if (limit := role.parts("boundary")) else [])]
    answers = [allows(policies, action, resource) for policies in kinds for resource in resources]
    return False if False in answers else None if None in answers else True


def _may_pass(c: EksCluster, role: Facts) -> bool | None:
    """iam:PassRole, on the roles that the connector names, else on those of the template that exist. Where there are
    none, on one that some template had. Raises MissingEvidence where that depends on a role that was not read."""
    offerings = _offerings(_own_connectors(c))
    told = [_told(c, offering, part) for offering in offerings for part in ("cloudWatchToKinesis", "kinesisToS3")]
    if named := list(filter(None, told)):
        return _granted(role, "iam:PassRole", named)
    start = f"arn:{c.id.split(':')[1]}:iam::{c.account}:role/"
    if _granted(role, "iam:PassRole", (f"{start}*",)):
        return True  # on any
    read = _template_roles(c)
    existing = [stated(one.text("arn")).value for one in read.values() if stated(one.flag("exists")).value]
    answer = _granted(role, "iam:PassRole", existing) if existing else _may_pass_one(role, start)
    if answer is not False and (unread := [name for name in PIPELINE_ROLES if name not in read]):
        c.listed("templateRoles")
        raise _undecided("templateRoles", f"the role {unread[0]} was not looked for: read the account again")
    return answer


def _may_pass_one(role: Facts, start: str) -> bool | None:
    answers = [_granted(role, "iam:PassRole", (start + name,)) for name in (*PIPELINE_ROLES, *_FORMER_ROLES)]
    return True if True in answers else None if None in answers else False


def _template_roles(c: EksCluster) -> dict[str, Facts]:
    """Those of the pipeline that were asked for, whether they exist or not."""
    found = c.related.get("templateRoles", Collected()).items
    roles = ((role.text("roleName").value, role) for role in labelled(found, "templateRoles", "roleName"))
    return {name: role for name, role in roles if name in PIPELINE_ROLES}


# ---------------------------------------------------------------------------------------------------------------------
# Who may take it


def _trust(c: EksCluster, role: Facts) -> tuple[str, str]:
    """Microsoft's identity provider that the role trusts, or why it trusts none. Raises MissingEvidence where that
    depends on more than what a token says of itself."""
    about = [s for s in statements(role.part("trustPolicy")) if about_action(s, _SIGN_IN, whole=True)]
    named = [(s, arn) for s in about if not denies(s) for arn in _issuers(s, c.account)]
    if not named:
        return "", "it does not trust Microsoft's identity provider, sts.windows.net"
    existing = {stated(provider.text("Arn")).value for provider in c.named("oidcProviders", "Arn")}
    trusted = [(s, arn) for s, arn in named if arn in existing]
    if not trusted:
        return "", f"the identity provider {named[0][1]} does not exist"
    denied = [s for s in about if denies(s) and _hits(s, [arn for _, arn in trusted])]
    if any(not s.part("Condition").wire and s.get("NotPrincipal") is None for s in denied):
        return "", "its trust policy denies that"
    sure = [arn for s, arn in trusted if _is_usual(s, arn)]
    if denied or not sure:
        detail = "who may take the role depends on a condition"
        raise MissingEvidence(Gap(what=f"{role.path}.trustPolicy", reason=GapReason.BAD_DATA, detail=detail))
    return sure[0], ""


def _issuers(statement: Facts, account: str) -> list[str]:
    """The providers of the account that a statement names and that are tenants of Entra ID."""
    if not isinstance(statement.get("Principal"), dict):
        return []
    found = (_ISSUER.fullmatch(arn) for arn in one_or_more(statement, "Principal.Federated"))
    return [match[0] for match in found if match and match[1] == account]


def _hits(statement: Facts, arns: list[str]) -> bool:
    """Whether a Deny may be about one of these."""
    principal = statement.get("Principal")
    if not isinstance(principal, dict):
        return True
    kinds = ("AWS", "Federated")
    return bool({"*", *arns} & {name for kind in kinds for name in one_or_more(statement, f"Principal.{kind}")})


def _is_usual(statement: Facts, arn: str) -> bool:
    """Whether its conditions, if any, are those of the template: on the token, and on the name of the session."""
    match = _ISSUER.fullmatch(arn)
    issuer = match[2].casefold() if match else ""
    usual = {"sts:rolesessionname", *(f"{issuer}:{claim}" for claim in _OF_TOKENS)}
    return all(
        operator.casefold() in _COMPARISONS and isinstance(tests, dict) and {key.casefold() for key in tests} <= usual
        for operator, tests in statement.part("Condition").wire.items()
    )


# ---------------------------------------------------------------------------------------------------------------------
# What is to be seen of it: no part of the verdict


def _effects(c: EksCluster, role: Facts) -> list[Evidence]:
    optional = [action for action in _DEFAULT_ACCESS if _granted(role, action, (c.id,)) is not True]
    access = f"least privilege, without {', '.join(optional)}" if optional else "default"
    found = [Evidence("pipeline_active", _pipeline(c)), Evidence("access", access), _others(c)]
    for offering in _offerings(_own_connectors(c)):
        if offering.flag("mdcContainersAgentlessDiscoveryK8s.enabled").value:
            found.append(Evidence("agentless_mapping_missing", _mapping_missing(c, offering)))
    return found


def _pipeline(c: EksCluster) -> str:
    if "audit" not in {name for setup in _log_setups(c) for name in setup.words("types").value}:
        return "false: the audit log is off"
    filters = c.related.get("subscriptionFilters", Collected(gaps=[_NOT_ASKED]))
    streams = [str(item.get("destinationArn")) for item in filters.items]
    if any(":deliverystream/azuredefender-" in arn for arn in streams):
        return "true"
    if filters.gaps:
        return f"not known: {filters.gaps[0].sentence}"
    return "false: the log is not sent to Defender, which sets that up within hours"


_NOT_ASKED = Gap(what="subscriptionFilters", reason=GapReason.NOT_CONFIGURED, detail="was not asked for")


def _log_setups(c: EksCluster) -> list[Facts]:
    return [setup for setup in c.parts("logging.clusterLogging") if setup.flag("enabled").value]


def _others(c: EksCluster) -> Evidence:
    found = c.related.get("templateRoles", Collected())
    missing = [str(item.get("roleName")) for item in found.items if not item.get("exists")]
    known = [f"missing: {', '.join(missing)}"] if missing else [] if found.gaps else ["none missing"]
    return Evidence("templateRoles", "; ".join([*known, *(f"not known: {gap.sentence}" for gap in found.gaps[:1])]))


def _mapping_missing(c: EksCluster, offering: Facts) -> str:
    """Whether the role for agentless discovery may enter the cluster, which is set up by hand."""
    name = offering.text("mdcContainersAgentlessDiscoveryK8s.cloudRoleArn").value.rpartition("/")[2] or DISCOVERY_ROLE
    mode = c.text("accessConfig.authenticationMode")
    entries = c.related.get("accessEntries", Collected())
    if any(str(entry.get("principalArn")).rpartition("/")[2] == name for entry in entries.items):
        return "false"
    if entries.gaps:
        return f"not known: {entries.gaps[0].sentence}"
    if mode.equals("API"):
        return f"true: {name} has no access entry"
    return f"not known: {name} has no access entry, and the ConfigMap aws-auth is not read"
