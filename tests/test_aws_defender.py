"""What Microsoft Defender may do in an AWS account: what is asked of IAM, and what becomes of the answers."""

import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from apiserver import body
from aws_data import (
    DEV,
    DISCOVERY_ROLE,
    ISSUER,
    K8S_POLICY,
    K8S_ROLE,
    OLD_K8S_ROLE,
    PROD,
    SEOUL,
    VIRGINIA,
    Account,
    Estate,
    Role,
    allow,
    defender_trust,
    document,
    eks,
    iam_arn,
    kubernetes_policy,
    policy,
    region_of,
    role,
)
from awsserver import AwsServer, status
from botocore.retries.standard import ExponentialBackoff
from cli import kubeposture
from support import settings

import checks
from providers.aws.reader import Reader
from providers.aws.session import AwsAccount
from scanner.aws import DEFENDER_ROLES, TEMPLATE_ROLES, EksCluster
from scanner.inventory import Counts
from scanner.model import Collected, Gap, GapReason, MissingEvidence, Status

CHECK = "aws-eks-defender-permissions"
FACTS = {"AWS::EKS::Cluster", "defenderRoles", "templateRoles", "oidcProviders", "subscriptionFilters"}
PROVIDER = iam_arn(PROD, f"oidc-provider/{ISSUER}")


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "BOTO", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


@pytest.fixture
def serve(monkeypatch):
    """Starts AWS; several may follow each other in a test."""
    started = []

    def start(estate, *, moto=False, **options):
        server = AwsServer(estate, moto=moto, **options).__enter__()
        started.append(server)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        return server

    yield start
    for server in started:
        server.__exit__()
        assert all(request.operation.startswith(("List", "Describe", "Get")) for request in server.requests)


def home(*clusters, onboard=True, **others):
    """The account, with the clusters in Seoul; more regions by name."""
    regions = [region_of(PROD, SEOUL, *clusters), *others.values()]
    account = Account(PROD, "Production", regions={region.name: region for region in regions})
    if onboard:
        account.onboard()
    return account


class Read:
    """The clusters of a region, read; they share what holds for the account."""

    def __init__(self, reader=None, region=SEOUL):
        account = AwsAccount(boto3.Session(), request_timeout=5, connections=8)
        account.identify()
        self.counts = Counts()
        *_, self.region = (reader or Reader(FACTS)).read(account, region)
        self.clusters = self.region.clusters.items
        for cluster in self.clusters:
            (reader or Reader(FACTS)).complete(cluster, self.region, self.counts)
        account.close()

    def roles(self):
        found = self.clusters[0].related["defenderRoles"]
        return {item["roleName"]: item for item in found.items}

    def gaps(self, what):
        return [(gap.reason.value, gap.permission) for gap in self.clusters[0].related[what].gaps]


def bare(document):
    """Without what conditions compare with."""
    statements = [
        {**one, "Condition": {how: dict.fromkeys(tests) for how, tests in one["Condition"].items()}}
        for one in document["Statement"]
    ]
    return {**document, "Statement": statements}


def asked(aws, *services):
    return [request.operation for request in aws.requests if request.service in services]


# ---------------------------------------------------------------------------------------------------------------------
# What is asked


@pytest.mark.parametrize("moto", [False, True])
def test_a_role_is_read_with_all_that_decides(serve, moto):
    account = home(eks("a"), eks("b"))
    main = account.roles[K8S_ROLE]
    main.inline["Extra Grants"] = document(allow("eks:CreateAccessEntry", on="arn:aws:eks:*:*:cluster/100%/?+ü"))
    limit = policy("limit", document(allow("*")))
    account.policies[limit.policy["Arn"]] = limit
    main.role["PermissionsBoundary"] = {
        "PermissionsBoundaryType": "Policy",
        "PermissionsBoundaryArn": limit.policy["Arn"],
    }
    serve(Estate.of(account), moto=moto)
    found = Read()
    assert found.roles() == {
        OLD_K8S_ROLE: {"roleName": OLD_K8S_ROLE, "exists": False},
        K8S_ROLE: {
            "roleName": K8S_ROLE,
            "exists": True,
            "arn": iam_arn(PROD, f"role/{K8S_ROLE}"),
            "trustPolicy": {"document": bare(defender_trust(PROD))},
            "policies": [
                {"name": iam_arn(PROD, f"policy/{K8S_POLICY}"), "document": kubernetes_policy(PROD)},
                {"name": "Extra Grants", "document": main.inline["Extra Grants"]},
            ],
            "boundary": [{"name": limit.policy["Arn"], "document": document(allow("*"))}],
        },
    }
    one, two = (cluster.related for cluster in found.clusters)
    assert all(one[what] is two[what] for what in ("defenderRoles", "templateRoles", "oidcProviders"))
    assert {item["roleName"]: item["exists"] for item in one["templateRoles"].items} == dict.fromkeys(
        TEMPLATE_ROLES, True
    )
    assert one["oidcProviders"] == Collected([{"Arn": PROVIDER}])
    [sent] = one["subscriptionFilters"].items
    assert sent["destinationArn"].endswith(":deliverystream/azuredefender-a")
    assert found.region.gaps == []


SECRET_ID = "of-somebody-else-7c1f"


def test_what_conditions_compare_with_is_not_kept(serve, tmp_path):
    account = home(eks("a"))
    partner = {"StringEquals": {"sts:ExternalId": SECRET_ID}, "Bool": {"aws:MultiFactorAuthPresent": "true"}}
    trusts = account.roles[K8S_ROLE].role["AssumeRolePolicyDocument"]["Statement"]
    trusts.append({"Effect": "Allow", "Principal": {"AWS": DEV}, "Action": "sts:AssumeRole", "Condition": partner})
    account.roles[K8S_ROLE].inline["more"] = document(allow("s3:*") | {"Condition": partner, "Note": SECRET_ID})
    serve(Estate.of(account))
    kept = Read().roles()[K8S_ROLE]
    assert kept["trustPolicy"]["document"] == bare(document(*trusts))
    assert kept["policies"][-1]["document"]["Statement"][0]["Condition"]["StringEquals"] == {"sts:ExternalId": None}
    assert scan(code=0)[0] == [("a", "pass", "")]
    path = tmp_path / "bundle"
    assert kubeposture("collect", "eks", "-c", CHECK, "--planes", "control", "-o", path).code == 0
    text = gzip.decompress(path.read_bytes()).decode()
    assert ("sts:ExternalId" in text, SECRET_ID in text) == (True, False)


@pytest.mark.parametrize("operation", ["ListAttachedRolePolicies", "ListRolePolicies"])
def test_more_pages_that_nothing_leads_to_are_a_gap(serve, operation):
    """IAM says of each page whether it is the last one, beside the marker of the next."""

    def cut(handler):
        name = {"ListAttachedRolePolicies": "AttachedPolicies", "ListRolePolicies": "PolicyNames"}[operation]
        handler.reply_wire(handler.call.wire.encode(operation, {name: [], "IsTruncated": True}))

    aws = serve(Estate.of(home(eks("a"))))
    aws.inject(f"iam:{operation}$", cut)
    found = Read()
    assert (found.gaps("defenderRoles"), K8S_ROLE in found.roles()) == ([("bad_data", "")], False)


def test_an_account_without_the_roles_costs_one_call_for_each_name(serve):
    aws = serve(Estate.of(home(eks("a"), eks("b"), onboard=False)))
    found = Read()
    assert asked(aws, "iam", "logs") == ["GetRole", "GetRole"]
    assert [found.roles()[name]["exists"] for name in DEFENDER_ROLES] == [False, False]
    assert found.region.gaps == []


def test_an_account_without_clusters_costs_nothing(serve):
    aws = serve(Estate.of(home()))
    assert Read().clusters == []
    assert asked(aws, "iam", "logs") == []


def test_nothing_is_asked_for_other_checks(serve):
    aws = serve(Estate.of(home(eks("a"))))
    found = Read(Reader({"AWS::EKS::Cluster", "nodegroups"}))
    assert asked(aws, "iam", "logs") == []
    assert set(found.clusters[0].related) == {"nodegroups"}


def test_an_account_is_asked_once_whatever_its_regions(serve):
    virginia = region_of(PROD, VIRGINIA, eks("v", region=VIRGINIA))
    aws = serve(Estate.of(home(eks("a"), virginia=virginia)), latency=0.02)
    reader = Reader(FACTS)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda name: Read(reader, name), (SEOUL, VIRGINIA))
    assert one.roles() == two.roles()
    assert asked(aws, "iam").count("GetRole") == len(DEFENDER_ROLES) + len(TEMPLATE_ROLES)
    assert asked(aws, "iam").count("ListOpenIDConnectProviders") == 1
    assert asked(aws, "logs") == ["DescribeSubscriptionFilters"] * 2


def test_two_accounts_of_one_scan_are_not_mixed_up(serve, monkeypatch):
    poor = Account(DEV, "Development", regions={SEOUL: region_of(DEV, SEOUL, eks("d", account=DEV))})
    aws = serve(Estate.of(home(eks("a")), poor))
    reader = Reader(FACTS)
    first = Read(reader)
    for name, value in aws.environment_of(DEV).items():
        monkeypatch.setenv(name, value)
    second = Read(reader)
    assert [found.roles()[K8S_ROLE]["exists"] for found in (first, second)] == [True, False]


def test_every_page_is_read(serve):
    account = home(eks("a"))
    main = account.roles[K8S_ROLE]
    main.inline = {f"part-{number}": document(allow(f"s3:Part{number}")) for number in range(3)}
    more = [policy(f"more-{number}", document(allow(f"sqs:Part{number}"))) for number in range(3)]
    account.policies |= {entry.policy["Arn"]: entry for entry in more}
    main.attached += [entry.policy["Arn"] for entry in more]
    group = account.regions[SEOUL].subscription_filters["/aws/eks/a/cluster"]
    group.append({**group[0], "filterName": "second"})
    serve(Estate.of(account), page_size=1)
    found = Read()
    assert len(found.roles()[K8S_ROLE]["policies"]) == 1 + 3 + 3
    assert len(found.clusters[0].related["subscriptionFilters"].items) == 2


def test_iam_is_asked_where_the_account_is(monkeypatch):
    """It is of no region, but of a partition."""
    session = boto3.Session(aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="x", region_name="cn-north-1")
    account = AwsAccount(session, request_timeout=1, connections=1)
    assert account.client("iam", account.home).meta.endpoint_url == "https://iam.cn-north-1.amazonaws.com.cn"
    account.close()


# ---------------------------------------------------------------------------------------------------------------------
# What is not answered


@pytest.mark.parametrize("name", DEFENDER_ROLES)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(404, "404"), "not_found"),
        (status(404, "NoSuchHost"), "not_found"),
        (body(b"<html>no</html>"), "bad_data"),
        (status(500), "server_error"),
        (status(403, "AccessDenied"), "forbidden"),
    ],
)
def test_only_iams_own_word_says_that_a_role_does_not_exist(serve, name, fault, reason):
    aws = serve(Estate.of(home(eks("a"), onboard=False)))
    aws.inject("^iam:GetRole$", fault, where={"RoleName": name})
    found = Read()
    assert [why for why, _ in found.gaps("defenderRoles")] == [reason]
    assert name not in found.roles()
    assert found.region.gaps == found.clusters[0].related["defenderRoles"].gaps


@pytest.mark.parametrize(
    "operation",
    ["ListAttachedRolePolicies", "GetPolicy", "GetPolicyVersion", "ListRolePolicies", "GetRolePolicy"],
)
def test_a_role_of_which_a_part_is_refused_is_not_there_in_part(serve, operation):
    account = home(eks("a"))
    account.roles[K8S_ROLE].inline["more"] = document(allow("eks:*"))
    aws = serve(Estate.of(account))
    aws.deny(f"iam:{operation}")
    found = Read()
    assert found.gaps("defenderRoles") == [("forbidden", f"iam:{operation}")]
    assert K8S_ROLE not in found.roles()


@pytest.mark.parametrize("text", ["nothing", "[]", "{}", "", '"x"', "[" * 100_000])
def test_a_policy_that_is_no_object_is_not_understood(serve, text):
    account = home(eks("a"))
    account.roles[K8S_ROLE].inline["more"] = text
    serve(Estate.of(account))
    found = Read()
    assert [why for why, _ in found.gaps("defenderRoles")] == ["bad_data"]


def test_what_is_evidence_only_may_be_refused(serve):
    aws = serve(Estate.of(home(eks("a"))))
    aws.deny("iam:GetRole", where={"RoleName": DISCOVERY_ROLE})
    aws.deny("logs:*")
    found = Read()
    assert found.gaps("defenderRoles") == []
    assert found.gaps("templateRoles") == [("forbidden", "iam:GetRole")]
    assert found.gaps("subscriptionFilters") == [("forbidden", "logs:DescribeSubscriptionFilters")]


def test_without_a_log_group_there_are_no_filters(serve):
    account = home(eks("a"))
    account.regions[SEOUL].log_groups.clear()
    aws = serve(Estate.of(account))
    assert Read().clusters[0].related["subscriptionFilters"] == Collected()
    aws.inject("^logs:", status(404, "404"))
    assert Read().gaps("subscriptionFilters") == [("not_found", "logs:DescribeSubscriptionFilters")]


# ---------------------------------------------------------------------------------------------------------------------
# The command


def scan(*args, code):
    result = kubeposture("scan", "eks", "-c", CHECK, "--planes", "control", "--status", "all", "-o", "json", *args)
    assert result.code == code, result.stderr
    return answer(result)


def answer(result):
    report = json.loads(result.stdout)
    return [(f["resource"]["name"], f["status"], f["reason"]) for f in report["findings"]], report["gaps"]


def test_accounts_are_judged_by_the_roles_they_have(serve):
    account = home(eks("a"))
    aws = serve(Estate.of(account))
    assert scan(code=0) == ([("a", "pass", "")], [])
    account.roles[K8S_ROLE].attached.clear()
    aws.load(aws.estate)
    assert scan(code=0)[0] == [("a", "fail", "not_granted")]
    account.roles.clear()
    aws.load(aws.estate)
    assert scan(code=0)[0] == [("a", "not_applicable", "not_onboarded")]
    aws.deny("iam:GetRole")
    findings, gaps = scan(code=4)  # nothing at all is known
    assert findings == [("a", "unknown", "forbidden")]
    assert {gap["permission"] for gap in gaps} == {"iam:GetRole"}


def test_the_role_may_have_another_name(serve):
    account = home(eks("a"))
    account.roles["Ours"] = account.roles.pop(K8S_ROLE)
    aws = serve(Estate.of(account))
    assert scan(code=0)[0] == [("a", "not_applicable", "not_onboarded")]
    assert scan("--param", f"{CHECK}.role_names=Ours", code=0)[0] == [("a", "pass", "")]
    assert [r.parameters["RoleName"] for r in aws.requests if r.operation == "GetRole"][2] == "Ours"


def test_a_bundle_knows_which_names_were_looked_for(serve, tmp_path):
    serve(Estate.of(home(eks("a"))))
    path = tmp_path / "eks.bundle"
    assert kubeposture("collect", "eks", "-c", CHECK, "--planes", "control", "-o", path).code == 0
    again = ("evaluate", path, "-c", CHECK, "--status", "all", "-o", "json")
    assert answer(kubeposture(*again))[0] == [("a", "pass", "")]
    other = kubeposture(*again, "--param", f"{CHECK}.role_names=Ours")
    assert (other.code, answer(other)[0]) == (4, [("a", "unknown", "not_configured")])


def test_what_other_readings_say_is_not_asked_of_aws():
    wanted = settings(CHECK).cloud_kinds()
    assert wanted == FACTS | {"accessEntries"}


# ---------------------------------------------------------------------------------------------------------------------
# The rule, beyond its fixtures

PARTITIONS = {"aws": "eu-west-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
ACCOUNT = "111122223333"


def cluster(partition="aws", grants=None, name="Prod_1", **related):
    region, home = PARTITIONS[partition], f"arn:{partition}:iam::{ACCOUNT}"
    provider = f"{home}:oidc-provider/sts.windows.net/tenant/"
    trust = {"Effect": "Allow", "Action": "sts:*", "Principal": {"Federated": ["x", provider]}}
    allowed = ["eks:*", "logs:*", "firehose:*", "sqs:*", "s3:*", "iam:PassRole"]
    statements = grants or [{"Effect": "Allow", "Action": allowed, "Resource": "*"}]
    good = {
        "roleName": K8S_ROLE,
        "exists": True,
        "arn": f"{home}:role/{K8S_ROLE}",
        "trustPolicy": {"document": {"Statement": trust}},
        "policies": [{"name": "p", "document": {"Statement": statements}}],
    }
    facts = {
        "defenderRoles": [{"roleName": OLD_K8S_ROLE, "exists": False}, good],
        "templateRoles": [{"roleName": name, "exists": False} for name in TEMPLATE_ROLES],
        "oidcProviders": [{"Arn": provider}],
        **related,
    }
    return EksCluster(
        wire={"status": "ACTIVE"},
        id=f"arn:{partition}:eks:{region}:{ACCOUNT}:cluster/{name}",
        name=name,
        account=ACCOUNT,
        region=region,
        related={what: found if isinstance(found, Collected) else Collected(found) for what, found in facts.items()},
    )


def ask(subject, **parameters):
    try:
        return checks.load()[CHECK].run(subject, **parameters).status.value
    except MissingEvidence:
        return "unknown"


def exact(partition, region):
    """A role that may do what is required for one cluster, and nothing else."""
    start = f"arn:{partition}"
    place = f"{region}:{ACCOUNT}"
    needed = {
        f"{start}:eks:{place}:cluster/Prod_1": ["eks:UpdateClusterConfig", "eks:DescribeCluster"],
        f"{start}:logs:{place}:log-group:/aws/eks/Prod_1/cluster:*": [
            "logs:PutSubscriptionFilter",
            "logs:DescribeSubscriptionFilters",
            "logs:DescribeLogGroups",
            "logs:PutRetentionPolicy",
        ],
        f"{start}:firehose:{place}:deliverystream/azuredefender-Prod_1": ["firehose:*"],
        f"{start}:sqs:{place}:azuredefender-{region}-{ACCOUNT}-Prod_1": ["sqs:*"],
        f"{start}:s3:::azuredefender-{region}-{ACCOUNT}-prod_1": ["s3:*"],
        f"{start}:s3:::azuredefender-{region}-{ACCOUNT}-prod_1/*": ["s3:*"],
        f"{start}:iam::{ACCOUNT}:role/MDCContainersK8sKinesisToS3Role": ["iam:PassRole"],
    }
    return [{"Effect": "Allow", "Action": action, "Resource": on} for on, action in needed.items()]


@pytest.mark.parametrize("partition", PARTITIONS)
def test_what_is_required_is_required_of_this_cluster_in_its_partition(partition):
    grants = exact(partition, PARTITIONS[partition])
    assert ask(cluster(partition, grants)) == "pass"
    assert ask(cluster(partition, grants, name="Prod_2")) == "fail"
    assert [ask(cluster(other, grants)) for other in PARTITIONS if other != partition] == ["fail", "fail"]
    for number, statement in enumerate(grants):
        actions = statement["Action"]
        for action in actions:
            less = {**statement, "Action": [a for a in actions if a != action] or ["ec2:DescribeRegions"]}
            assert ask(cluster(partition, [*grants[:number], *grants[number + 1 :], less])) == "fail", action


def connector(account=ACCOUNT, cloud="AWS", plan=True, member_of=None, **parts):
    offerings = [{"offeringType": "CspmMonitorAws"}]
    if plan:
        roles = {part: {"cloudRoleArn": f"arn:aws:iam::{ACCOUNT}:role/{name}"} for part, name in parts.items()}
        offerings.append({"offeringType": "DefenderForContainersAws", **roles})
    properties = {"environmentName": cloud, "hierarchyIdentifier": account, "offerings": offerings}
    if member_of is not None:
        properties["environmentData"] = {"organizationalData": member_of}
    return {"name": "c", "properties": properties}


WHOLE = {"organizationMembershipType": "Organization", "excludedAccountIds": ["444455556666"]}
WITHOUT_US = {**WHOLE, "excludedAccountIds": ["444455556666", ACCOUNT]}
MEMBER = {"organizationMembershipType": "Member", "parentHierarchyId": "444455556666"}
OURS, OTHER = connector(kubernetesService=K8S_ROLE), connector("999988887777", kubernetesService=K8S_ROLE)
GONE = connector(kubernetesService=OLD_K8S_ROLE)
DENIED = Gap(what="connectors", reason=GapReason.FORBIDDEN)


@pytest.mark.parametrize(
    ("connectors", "with_role", "without"),
    [
        (None, "pass", "not_applicable"),
        ([], "pass", "not_applicable"),
        ([OTHER], "pass", "not_applicable"),
        ([OTHER, OURS], "pass", "fail"),
        ([OTHER, connector()], "pass", "fail"),
        ([OTHER, GONE], "fail", "fail"),
        ([connector(kubernetesService="Ours")], "unknown", "unknown"),
        ([connector(plan=False)], "pass", "not_applicable"),
        ([connector(cloud="GCP", kubernetesService="Ours")], "pass", "not_applicable"),
        ([connector(cloud=None)], "unknown", "unknown"),
        ([connector(f" {ACCOUNT}\n")], "pass", "fail"),
        ([connector(cloud=" aws ")], "pass", "fail"),
        ([connector(cloud=" ")], "unknown", "unknown"),
        ([connector(None)], "unknown", "unknown"),
        ([connector(" ")], "unknown", "unknown"),
        ([OTHER, connector(None, cloud=None)], "unknown", "unknown"),
        ([connector(None, cloud="GCP"), connector(None, cloud="AzureDevOps")], "pass", "not_applicable"),
        ([connector(member_of=MEMBER, kubernetesService=K8S_ROLE)], "pass", "fail"),
        ([connector("999988887777", member_of=WHOLE)], "pass", "unknown"),
        ([connector("999988887777", member_of=WITHOUT_US)], "pass", "not_applicable"),
        ([connector("999988887777", member_of=WHOLE, plan=False)], "pass", "not_applicable"),
        ([connector("999988887777", member_of=WHOLE), connector(plan=False)], "pass", "not_applicable"),
        (Collected([], [DENIED]), "pass", "unknown"),
        (Collected([OURS], [DENIED]), "pass", "fail"),
        (Collected([connector(plan=False)], [DENIED]), "pass", "not_applicable"),
    ],
)
def test_connectors_say_whether_and_by_which_role(connectors, with_role, without):
    more = {} if connectors is None else {"connectors": connectors}
    absent = [{"roleName": name, "exists": False} for name in DEFENDER_ROLES]
    assert ask(cluster(**more)) == with_role
    assert ask(cluster(**more, defenderRoles=absent)) == without


def there(number, name=None):
    role_name = TEMPLATE_ROLES[number]
    return {"roleName": role_name, "exists": True, "arn": f"arn:aws:iam::{ACCOUNT}:role/{name or role_name}"}


REFUSED = [Gap(what="templateRoles", reason=GapReason.FORBIDDEN)]
FIRST, SECOND, BOTH = [0], [1], [0, 1]


@pytest.mark.parametrize(
    ("allowed", "found", "gaps", "answer"),
    [
        (BOTH, BOTH, [], "pass"),
        (FIRST, BOTH, [], "fail"),
        (SECOND, BOTH, [], "fail"),
        (FIRST, FIRST, REFUSED, "unknown"),
        (SECOND, FIRST, REFUSED, "fail"),
        (FIRST, [], REFUSED, "unknown"),
        (BOTH, [], REFUSED, "unknown"),
        ([], [], REFUSED, "fail"),
        ("*", [], REFUSED, "pass"),
        (FIRST, FIRST, [], "unknown"),
        (BOTH, BOTH, REFUSED, "pass"),
    ],
)
def test_what_is_passed_on_is_known_only_of_roles_that_were_read(allowed, found, gaps, answer):
    grants = [one for one in exact("aws", "eu-west-1") if "iam:PassRole" not in one["Action"]]
    start = f"arn:aws:iam::{ACCOUNT}:role/"
    on = ["*"] if allowed == "*" else [start + TEMPLATE_ROLES[number] for number in allowed] or [start + "other"]
    grants.append({"Effect": "Allow", "Action": "iam:PassRole", "Resource": on})
    read = Collected([there(number) for number in found], gaps)
    assert ask(cluster(grants=grants, templateRoles=read)) == answer
    grants = [one for one in grants if "s3:*" not in one["Action"]]
    assert ask(cluster(grants=grants, templateRoles=read)) == "fail"


def test_the_roles_that_are_passed_on_are_those_that_the_connector_names():
    grants = exact("aws", "eu-west-1")
    template = [there(0, "x/y"), {"roleName": TEMPLATE_ROLES[1], "exists": False}]
    assert ask(cluster(grants=grants)) == "pass"
    assert ask(cluster(grants=grants, templateRoles=template)) == "fail"
    passed = [{"Effect": "Allow", "Action": "iam:PassRole", "Resource": f"arn:aws:iam::{ACCOUNT}:role/x/*"}]
    assert ask(cluster(grants=[*grants, *passed], templateRoles=template)) == "pass"
    named = [connector(kubernetesService=K8S_ROLE, cloudWatchToKinesis="A", kinesisToS3="B")]
    assert ask(cluster(grants=[*grants, *passed], templateRoles=template, connectors=named)) == "fail"
    passed[0]["Resource"] = [f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in "AB"]
    assert ask(cluster(grants=[*grants, *passed], templateRoles=template, connectors=named)) == "pass"


def trusting(*statements):
    subject = cluster()
    subject.related["defenderRoles"].items[1]["trustPolicy"] = {"document": {"Statement": list(statements)}}
    return ask(subject)


HERE = f"arn:aws:iam::{ACCOUNT}:oidc-provider/sts.windows.net/tenant/"


def trust(principal=None, effect="Allow", action="sts:AssumeRoleWithWebIdentity", **more):
    return {"Effect": effect, "Principal": principal or {"Federated": HERE}, "Action": action, **more}


def when(**tests):
    return {"Condition": tests}


AUDIENCE = {"sts.windows.net/tenant/:aud": "api://x", "STS:RoleSessionName": "MicrosoftDefenderForClouds_x"}


@pytest.mark.parametrize(
    ("statements", "answer"),
    [
        ([trust()], "pass"),
        ([trust(**when(StringEquals=AUDIENCE))], "pass"),
        ([trust(**when(StringLike=AUDIENCE))], "pass"),
        ([trust(**when(StringNotEquals=AUDIENCE))], "unknown"),
        ([trust(**when(StringEquals=AUDIENCE, IpAddress={"aws:SourceIp": "10.0.0.0/8"}))], "unknown"),
        ([trust(**when(StringEquals={"sts.windows.net/other/:aud": "x"}))], "unknown"),
        ([trust(**when(IpAddress={"aws:SourceIp": "10.0.0.0/8"})), trust()], "pass"),
        ([trust(action="sts:AssumeRole")], "fail"),
        ([trust(action=["sts:TagSession", "STS:Assume*"])], "pass"),
        ([trust({"AWS": f"arn:aws:iam::{ACCOUNT}:root"})], "fail"),
        ([trust({"Federated": "accounts.google.com"})], "fail"),
        ([trust({"Federated": HERE.replace(ACCOUNT, "999988887777")})], "fail"),
        ([trust({"Federated": HERE.replace("tenant", "other")})], "fail"),
        ([trust({"Federated": HERE + "extra/"})], "fail"),
        ([trust({"Federated": 7})], "unknown"),
        ([trust({"Federated": ["accounts.google.com", HERE]})], "pass"),
        ([trust("*")], "fail"),
        ([trust(), trust("*", "Deny")], "fail"),
        ([trust(), trust({"AWS": "*"}, "Deny")], "fail"),
        ([trust(), trust({"Federated": HERE}, "Deny", "sts:*")], "fail"),
        ([trust(), trust({"Federated": "accounts.google.com"}, "Deny")], "pass"),
        ([trust(), trust({"AWS": "arn:aws:iam::1:user/x"}, "Deny", "*")], "pass"),
        ([trust(), trust("*", "Deny", "sts:AssumeRole")], "pass"),
        ([trust(), trust("*", "Deny", **when(Bool={"aws:SecureTransport": "false"}))], "unknown"),
        ([trust(), {"Effect": "Deny", "NotPrincipal": {"Federated": HERE}, "Action": "sts:*"}], "unknown"),
    ],
)
def test_who_may_take_the_role(statements, answer):
    assert trusting(*statements) == answer


@pytest.mark.parametrize(
    ("limit", "answer"),
    [
        ([], "pass"),
        ([("Allow", "*")], "pass"),
        ([("Allow", ["eks:*", "logs:*", "firehose:*", "sqs:*", "s3:*"])], "fail"),
        ([("Allow", "*"), ("Deny", "iam:PassRole")], "fail"),
        ([("Deny", "ec2:*")], "fail"),
    ],
)
def test_a_boundary_grants_nothing_but_takes_away(limit, answer):
    subject = cluster()
    statements = [{"Effect": effect, "Action": action, "Resource": "*"} for effect, action in limit]
    boundary = [{"name": "limit", "document": {"Statement": statements}}] if limit else []
    subject.related["defenderRoles"].items[1]["boundary"] = boundary
    assert ask(subject) == answer


def test_of_two_roles_that_agree_either_says_it():
    subject = cluster()
    good = subject.related["defenderRoles"].items[1]
    subject.related["defenderRoles"].items[0] = {**good, "roleName": OLD_K8S_ROLE}
    assert ask(subject) == "pass"
    subject.related["defenderRoles"].items[0]["policies"] = []
    assert ask(subject) == "unknown"
    assert ask(subject, role_names=(K8S_ROLE,)) == "pass"
    assert ask(subject, role_names=(OLD_K8S_ROLE,)) == "fail"
    assert ask(subject, role_names=("Ours",)) == "unknown"


def evidence(subject):
    verdict = checks.load()[CHECK].run(subject)
    assert verdict.status is Status.PASS
    return {item.path: item.value for item in verdict.evidence}


def test_what_is_only_shown():
    subject = cluster(connectors=[connector(kubernetesService=K8S_ROLE)])
    agentless = subject.related["connectors"].items[0]["properties"]["offerings"][1]
    assert evidence(subject)["pipeline_active"] == "false: the audit log is off"
    assert "agentless_mapping_missing" not in evidence(subject)
    agentless["mdcContainersAgentlessDiscoveryK8s"] = {"enabled": True, "cloudRoleArn": ""}
    subject.wire |= {
        "accessConfig": {"authenticationMode": "API"},
        "logging": {"clusterLogging": [{"enabled": True, "types": ["api"]}, {"enabled": True, "types": ["audit"]}]},
    }
    assert evidence(subject)["pipeline_active"].startswith("not known: subscriptionFilters")
    assert evidence(subject)["agentless_mapping_missing"] == f"true: {DISCOVERY_ROLE} has no access entry"
    assert evidence(subject)["access"] == "default"
    subject.wire["accessConfig"] = {"authenticationMode": "API_AND_CONFIG_MAP"}
    assert "aws-auth is not read" in evidence(subject)["agentless_mapping_missing"]
    entry = {"principalArn": f"arn:aws:iam::{ACCOUNT}:role/path/{DISCOVERY_ROLE}"}
    subject.related["accessEntries"] = Collected([{}, entry], [DENIED])
    assert evidence(subject)["agentless_mapping_missing"] == "false"
    subject.related["accessEntries"] = Collected([{}], [DENIED])
    assert evidence(subject)["agentless_mapping_missing"].startswith("not known: ")


def test_a_role_of_the_template_that_nobody_made_is_no_fail(serve):
    account = home(eks("a"))
    account.roles = {K8S_ROLE: account.roles[K8S_ROLE]}
    account.roles["unrelated"] = Role(role("unrelated", defender_trust()))
    serve(Estate.of(account))
    [cluster] = Read().clusters
    assert evidence(cluster)["templateRoles"] == f"missing: {', '.join(TEMPLATE_ROLES)}"
