"""Microsoft's extensions on EKS and GKE clusters: they come through a connection to Azure Arc."""

from __future__ import annotations

from checks.control_plane.defender import may_be_onboarded
from scanner.aws import EksCluster
from scanner.check import check
from scanner.cloud import CloudResource, Facts, Setting, expect, stated
from scanner.gcp import GkeCluster
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, fail, not_applicable

_DEFENDER = ("Enable enhanced security features",)
_SENSOR = "microsoft-defender-collector-ds"
_NEEDS = ("arcConfig", "agents", "arcClusters", "connectors")


@check(
    "aws-eks-defender-arc-extension",
    Severity.HIGH,
    controls=_DEFENDER,
    fix="Connect the cluster with `az connectedk8s connect -g GROUP -n CLUSTER`, then run `az k8s-extension create "
    "--cluster-type connectedClusters -g GROUP --cluster-name CLUSTER --name microsoft.azuredefender.kubernetes "
    "--extension-type microsoft.azuredefender.kubernetes`.",
    refs=("mdc:38307993-84fb-4636-8ce7-3a64466bb5cc",),
    needs=(*_NEEDS, "defenderRoles"),
)
def eks_defender_arc_extension(c: EksCluster) -> Verdict:
    """EKS clusters should have Microsoft Defender's extension for Azure Arc installed

    The extension brings Defender's sensor into the cluster. Which Arc connection is the cluster's, its own agents say;
    where they cannot be asked, the one of its name. Where Azure is not part of the scan, the sensor itself decides. In
    an account without any connector or role of Defender nobody wants the extension.
    """
    if not may_be_onboarded(c):
        return not_applicable("not_onboarded")
    return _extension(c, "microsoft.azuredefender.kubernetes", "the Defender extension", _SENSOR)


@check(
    "gcp-gke-defender-arc-extension",
    Severity.HIGH,
    controls=_DEFENDER,
    fix="Connect the cluster with `az connectedk8s connect -g GROUP -n CLUSTER`, then run `az k8s-extension create "
    "--cluster-type connectedClusters -g GROUP --cluster-name CLUSTER --name microsoft.azuredefender.kubernetes "
    "--extension-type microsoft.azuredefender.kubernetes`.",
    refs=("mdc:0faf27b6-f1d5-4f50-b22a-5d129cba0113",),
    needs=_NEEDS,
)
def gke_defender_arc_extension(c: GkeCluster) -> Verdict:
    """GKE clusters should have Microsoft Defender's extension for Azure Arc installed

    The extension brings Defender's sensor into the cluster. Which Arc connection is the cluster's, its own agents say;
    where they cannot be asked, the one of its name. Nobody wants the extension in a project that has no connector.
    Where Azure is not part of the scan, a connection that the cluster itself names stands for that.
    """
    if not _project_may_be_onboarded(c):
        return not_applicable("not_onboarded")
    return _extension(c, "microsoft.azuredefender.kubernetes", "the Defender extension", _SENSOR)


@check(
    "gcp-gke-azure-policy-extension",
    Severity.HIGH,
    controls=("Remediate security configurations",),
    fix="Connect the cluster with `az connectedk8s connect -g GROUP -n CLUSTER`, then run `az k8s-extension create "
    "--cluster-type connectedClusters -g GROUP --cluster-name CLUSTER --name azurepolicy "
    "--extension-type microsoft.policyinsights`.",
    refs=("mdc:6273e20b-8814-4fda-a297-42a70b16fcbf",),
    needs=_NEEDS,
)
def gke_azure_policy_extension(c: GkeCluster) -> Verdict:
    """GKE clusters should have the Azure Policy extension installed

    The extension judges what is created in the cluster by the policies of the company. Which Arc connection is the
    cluster's is told as for Defender's extension.
    """
    if not _project_may_be_onboarded(c):
        return not_applicable("not_onboarded")
    return _extension(c, "microsoft.policyinsights", "the Azure Policy extension", "azure-policy")


def _project_may_be_onboarded(c: GkeCluster) -> bool:
    """Whether a connector may be for the project; without Azure in the scan, whether the cluster may be connected."""
    if "connectors" not in c.related:
        inside = c.related.get("arcConfig")
        return bool(inside and (inside.items or inside.gaps))
    if c.related["connectors"].gaps:
        return True
    try:
        return any(_is_of_project(one, c.account) for one in c.listed("connectors"))
    except MissingEvidence:
        return True


def _is_of_project(connector: Facts, project: str) -> bool:
    """Raises MissingEvidence where it does not say which project it is for, or only by a number, and could be."""
    if not _told(connector.text("properties.environmentName")).equals("GCP"):
        return False
    environment = connector.part("properties.environmentData")
    if environment.text("organizationalData.organizationMembershipType").equals("Organization"):
        return True
    return _told(environment.text("projectDetails.projectId")).equals(project)


def _told(setting: Setting[str]) -> Setting[str]:
    return setting if setting.value else stated(Setting(setting.path, None, ""), "Azure")


def _extension(c: CloudResource, type: str, extension: str, agent: str) -> Verdict:
    inside = c.related.get("arcConfig")
    if inside and not inside.gaps and not inside.items:
        runs = "agents" in c.related and not c.related["agents"].gaps and any(a.value for a in _ready(c, agent))
        note = f"; {agent} runs all the same, but nobody keeps it up to date" if runs else ""
        return fail(f"not connected to Azure Arc{note}", Evidence("arcConfig", "none"))
    try:
        connection = _connection(c)
    except MissingEvidence as missing:
        doubtful = any(gap.reason is GapReason.BAD_DATA for gap in missing.gaps)  # another's, by all that is known
        if not inside or inside.gaps or doubtful:
            raise
        return _by_agent(c, agent)
    installed = [e for e in connection.parts("extensions") if e.text("properties.extensionType").equals(type)]
    states = [e.text("properties.provisioningState") for e in installed]
    none: Setting[str] = Setting(f"{connection.path}.extensions[{type}].properties.provisioningState", None, "")
    state = next((s for s in states if s.equals("Succeeded")), states[0] if states else none)
    problem = "installed but not working" if installed else "not installed"
    connectivity = connection.text("properties.connectivityStatus")
    return expect(state.equals("Succeeded"), f"{extension} is {problem}", state, connectivity)


def _connection(c: CloudResource) -> Facts:
    """The cluster's connection; raises MissingEvidence where it is not known, or not which one it is."""
    if "arcClusters" not in c.related:
        detail = "Azure is no target of this scan, and the inside of the cluster was not read"
        raise MissingEvidence(Gap(what="arcClusters", reason=GapReason.NOT_CONFIGURED, detail=detail))
    found = c.listed("arcClusters")
    if len(found) == 1:
        return found[0]
    none = "what runs inside was not read, and no Arc connection has the cluster's name"
    detail = f"{len(found)} Arc connections have the cluster's name" if found else none
    raise MissingEvidence(Gap(what="arcClusters", reason=GapReason.NOT_FOUND, detail=detail))


def _by_agent(c: CloudResource, agent: str) -> Verdict:
    """What runs in a connected cluster where Azure could not be asked about the connection."""
    connected = c.listed("arcConfig")[0].text("id")
    ready = _ready(c, agent)
    return expect(any(a.value for a in ready), f"connected to Azure Arc, but {agent} does not run", connected, *ready)


def _ready(c: CloudResource, agent: str) -> list[Setting[bool]]:
    """Whether pods of it are ready, wherever it runs; raises MissingEvidence where that is not known."""
    return [a.flag("ready") for a in c.listed("agents") if a.text("name").equals(agent)]
