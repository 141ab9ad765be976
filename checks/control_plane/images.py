"""What is known of the images in a registry, and whether they change under their names."""

from __future__ import annotations

from scanner import gcp
from scanner.aws import AwsRegion, EcrRepository, stated
from scanner.check import check
from scanner.cloud import expect
from scanner.gcp import ArtifactRepository, is_one_of
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, not_applicable, text

_VULNERABILITIES = ("Remediate vulnerabilities",)
_BEST_PRACTICES = ("Implement security best practices",)


def _not_told(what: str, detail: str) -> MissingEvidence:
    return MissingEvidence(Gap(what=what, reason=GapReason.BAD_DATA, detail=detail))


@check(
    "aws-ecr-scan-on-push",
    Severity.MEDIUM,
    controls=_VULNERABILITIES,
    question="image-scanning",
    fix='Run `aws ecr put-registry-scanning-configuration --scan-type BASIC --rules \'[{"scanFrequency": '
    '"SCAN_ON_PUSH", "repositoryFilters": [{"filter": "*", "filterType": "WILDCARD"}]}]\'`, or with ENHANCED and '
    "CONTINUOUS_SCAN.",
    refs=(
        "fsbp:ECR.1",
        "cis-eks-1.8.0:5.1.1",
        "checkov:CKV_AWS_163",
        "prowler:ecr_repositories_scan_images_on_push_enabled",
    ),
    needs=("scanning",),
)
def ecr_scan_on_push(r: EcrRepository) -> Verdict:
    """ECR repositories should scan images

    Vulnerabilities that nobody looks for are found by others. Judged is what holds for the repository in the end: the
    registry's rules, which may scan it though its own setting is off.
    """
    found = r.listed("scanning")
    if not found:
        raise _not_told("scanning", "AWS did not say how the repository is scanned")
    frequency, pushed = found[0].text("scanFrequency"), found[0].flag("scanOnPush")
    if frequency.sent is None:
        return expect(stated(pushed).value, "images are scanned only by hand", pushed)
    scanned = frequency.equals("SCAN_ON_PUSH", "CONTINUOUS_SCAN") or pushed.value
    return expect(scanned, "images are scanned only by hand", frequency, pushed)


@check(
    "aws-ecr-tag-immutability",
    Severity.MEDIUM,
    controls=_BEST_PRACTICES,
    fix="Run `aws ecr put-image-tag-mutability --repository-name REPOSITORY --image-tag-mutability IMMUTABLE`.",
    refs=("fsbp:ECR.2", "checkov:CKV_AWS_51", "prowler:ecr_repositories_tag_immutability"),
)
def ecr_tag_immutability(r: EcrRepository) -> Verdict:
    """ECR repositories should have immutable tags

    Where a tag can be moved, what was tested and signed off is not what runs tomorrow. Tags left out of immutability
    are shown, and do not fail the check.
    """
    tags = r.text("imageTagMutability")
    filters = r.parts("imageTagMutabilityExclusionFilters", "filter")
    left_out = [Evidence("imageTagMutabilityExclusionFilters", text([f.text("filter").value for f in filters]))]
    immutable = tags.equals("IMMUTABLE", "IMMUTABLE_WITH_EXCLUSION")
    return expect(immutable, "tags can be moved to other images", tags, *(left_out if filters else []))


@check(
    "aws-ecr-lifecycle-policy",
    Severity.LOW,
    controls=_VULNERABILITIES,
    fix="Run `aws ecr put-lifecycle-policy --repository-name REPOSITORY --lifecycle-policy-text file://policy.json`.",
    refs=("fsbp:ECR.3", "prowler:ecr_repositories_lifecycle_policy_enabled"),
    needs=("lifecyclePolicy",),
)
def ecr_lifecycle_policy(r: EcrRepository) -> Verdict:
    """ECR repositories should remove old images

    Old images with known vulnerabilities stay ready to be started again, and are paid for.
    """
    message = "old images are kept for ever"
    policies = r.listed("lifecyclePolicy")
    if not policies:
        return expect(False, message, Evidence("lifecyclePolicy", "none"))
    document = policies[0].part("document")
    rules = document.parts("rules")
    if document.get("rules") is None:
        raise _not_told(f"{document.path}.rules", "the policy has no rules")
    if not rules:
        return expect(False, message, Evidence(f"{document.path}.rules", text([])))
    return expect(True, "", *(stated(rule.text("action.type")) for rule in rules))


@check(
    "aws-ecr-inspector",
    Severity.MEDIUM,
    controls=_VULNERABILITIES,
    fix="Run `aws inspector2 enable --resource-types ECR --region REGION`.",
    refs=("fsbp:Inspector.2", "cis-eks-1.8.0:5.1.1", "prowler:inspector2_is_enabled"),
    needs=("inspector",),
)
def ecr_inspector(r: AwsRegion) -> Verdict:
    """Amazon Inspector should scan the images of ECR

    Inspector also finds vulnerabilities in language packages, and looks at images again when new ones become known.
    Basic scanning does neither.
    """
    accounts = r.listed("inspector")
    if not accounts:
        raise _not_told("inspector", "AWS did not say what Amazon Inspector scans")
    states = [stated(account.text("resourceState.ecr.status")) for account in accounts]
    on = all(state.equals("ENABLED") for state in states)
    return expect(on, "Amazon Inspector does not scan images", *states)


# ---------------------------------------------------------------------------------------------------------------------
# GCP


_WITHOUT_IMAGES = ("APT", "GENERIC", "GO", "GOOGET", "KFP", "MAVEN", "NPM", "PYTHON", "RUBY", "YUM")


def _not_docker(r: ArtifactRepository) -> bool:
    """Raises MissingEvidence for a format that is not known: it may hold images."""
    return is_one_of(gcp.stated(r.text("format")), _WITHOUT_IMAGES, ("DOCKER",))


@check(
    "gcp-gar-vulnerability-scanning",
    Severity.MEDIUM,
    controls=_VULNERABILITIES,
    question="image-scanning",
    fix="Run `gcloud services enable containerscanning.googleapis.com`, and for a repository that opted out `gcloud "
    "artifacts repositories update REPOSITORY --location LOCATION --allow-vulnerability-scanning`.",
    refs=("cis-gke-1.9:5.1.1",),
)
def gar_vulnerability_scanning(r: ArtifactRepository) -> Verdict:
    """Artifact Registry repositories should scan images

    Vulnerabilities that nobody looks for are found by others. Judged is what holds in the end: the project's scanning
    service and the repository's own setting together.
    """
    if _not_docker(r):
        return not_applicable("no_images")
    if r.text("mode").equals("VIRTUAL_REPOSITORY"):
        return not_applicable("virtual")  # it stores nothing: its upstreams are judged
    config = "vulnerabilityScanningConfig"
    state = gcp.stated(r.text(f"{config}.enablementState"))
    active = is_one_of(state, ("SCANNING_ACTIVE",), ("SCANNING_DISABLED", "SCANNING_UNSUPPORTED"))
    names = [f"{config}.{name}" for name in ("enablementConfig", "enablementStateReason")]
    shown = (Evidence(name, text(r.get(name))) for name in names)
    return expect(active, "images are not scanned", state, *shown)


@check(
    "gcp-gar-immutable-tags",
    Severity.LOW,
    controls=_BEST_PRACTICES,
    fix="Run `gcloud artifacts repositories update REPOSITORY --location LOCATION --immutable-tags`.",
    refs=(),
)
def gar_immutable_tags(r: ArtifactRepository) -> Verdict:
    """Artifact Registry repositories should have immutable tags

    Where a tag can be moved, what was tested and signed off is not what runs tomorrow. Repositories that show or cache
    those of others have no tags of their own.
    """
    if _not_docker(r):
        return not_applicable("no_images")
    if r.text("mode").equals("VIRTUAL_REPOSITORY", "REMOTE_REPOSITORY"):
        return not_applicable("no_tags_of_its_own")
    immutable = r.flag("dockerConfig.immutableTags")
    return expect(immutable.value, "tags can be moved to other images", immutable)
