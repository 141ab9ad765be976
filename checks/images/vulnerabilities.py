"""What scanners found in images: in each registry, and in what runs on each cloud.

kubeposture scans no image. It brings together what Defender for Cloud, the clouds' own scanners, an operator inside the
cluster and files say, and judges all of it by one rule.
"""

from __future__ import annotations

from checks.images.rule import FixableOnly, MaxScanAge, MinSeverity, Rule, Sources, judged
from scanner.check import BOTH, check
from scanner.images import RegistryImage, RunningContainer
from scanner.model import Severity, Verdict

_VULNERABILITIES = ("Remediate vulnerabilities",)
_REBUILD = "Rebuild the image on a newer base and with newer packages, push it, and remove the tags of the old one."
_ROLL_OUT = (
    "Rebuild the image on a newer base and with newer packages, push it, and roll it out; where no version fixes a "
    "vulnerability, take the package out or exempt it with a date."
)


@check(
    "azure-registry-image-vulns",
    Severity.HIGH,
    of="azure",
    controls=_VULNERABILITIES,
    fix=_REBUILD,
    refs=(
        "mdc:33422d8f-ab1e-42be-bc9a-38685bb567b9",
        "mdc:c0b7cfc6-3172-465a-b378-53c7ff2cc0d5",
        "mdc:dbd0cb49-b563-45e7-9724-889e799fa648",
    ),
)
def azure_registry(
    image: RegistryImage,
    *,
    min_severity: MinSeverity = "low",
    fixable_only: FixableOnly = False,
    max_scan_age: MaxScanAge = 30,
    sources: Sources = (),
) -> Verdict:
    """[Preview] Container images in Azure registry should have vulnerability findings resolved

    Whatever a tag points to can be deployed tomorrow, and known vulnerabilities are the first thing that is tried on
    it. An image passes only where a scan has finished lately; that nothing is known of it proves nothing.
    """
    return judged(image, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)


@check(
    "azure-running-image-vulns",
    Severity.HIGH,
    of="azure",
    controls=_VULNERABILITIES,
    exclude=BOTH,
    fix=_ROLL_OUT,
    refs=(
        "mdc:c5045ea3-afc6-4006-ab8f-86c8574dbf3d",
        "mdc:e9acaf48-d2cf-45a3-a6e7-3caa2ef769e0",
        "mdc:c609cf0f-71ab-41e9-a3c6-9a1f7fe1b8d5",
        "mdc:41503391-efa5-47ee-9282-4eff6131462c",
    ),
)
def azure_running(
    c: RunningContainer,
    *,
    min_severity: MinSeverity = "low",
    fixable_only: FixableOnly = False,
    max_scan_age: MaxScanAge = 30,
    sources: Sources = (),
) -> Verdict:
    """[Preview] Containers running in Azure should have vulnerability findings resolved

    Known vulnerabilities of what runs are the first thing that is tried on it. Judged is the image that the nodes have
    really got, for their platform; it passes only where a scan of it has finished lately.
    """
    return judged(c, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)


@check(
    "aws-registry-image-vulns",
    Severity.HIGH,
    of="aws",
    controls=_VULNERABILITIES,
    fix=_REBUILD,
    refs=(
        "mdc:2a139383-ec7e-462a-90ac-b1b60e87d576",
        "mdc:c27441ae-775c-45be-8ffa-655de37362ce",
    ),
)
def aws_registry(
    image: RegistryImage,
    *,
    min_severity: MinSeverity = "low",
    fixable_only: FixableOnly = False,
    max_scan_age: MaxScanAge = 30,
    sources: Sources = (),
) -> Verdict:
    """[Preview] Container images in AWS registry should have vulnerability findings resolved

    Whatever a tag points to can be deployed tomorrow, and known vulnerabilities are the first thing that is tried on
    it. An image passes only where a scan has finished lately; that nothing is known of it proves nothing.
    """
    return judged(image, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)


@check(
    "aws-running-image-vulns",
    Severity.HIGH,
    of="aws",
    controls=_VULNERABILITIES,
    exclude=BOTH,
    fix=_ROLL_OUT,
    refs=(
        "mdc:8749bb43-cd24-4cf9-848c-2a50f632043c",
        "mdc:d5d1e526-363a-4223-b860-f4b6e710859f",
        "mdc:682b2595-d045-4cff-b5aa-46624eb2dd8f",
    ),
)
def aws_running(
    c: RunningContainer,
    *,
    min_severity: MinSeverity = "low",
    fixable_only: FixableOnly = False,
    max_scan_age: MaxScanAge = 30,
    sources: Sources = (),
) -> Verdict:
    """[Preview] Containers running in AWS should have vulnerability findings resolved

    Known vulnerabilities of what runs are the first thing that is tried on it. Judged is the image that the nodes have
    really got, for their platform; it passes only where a scan of it has finished lately.
    """
    return judged(c, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)


@check(
    "gcp-registry-image-vulns",
    Severity.HIGH,
    of="gcp",
    controls=_VULNERABILITIES,
    fix=_REBUILD,
    refs=(
        "mdc:24e37609-dcf5-4a3b-b2b0-b7d76f2e4e04",
        "mdc:5cc3a2c1-8397-456f-8792-fe9d0d4c9145",
    ),
)
def gcp_registry(
    image: RegistryImage,
    *,
    min_severity: MinSeverity = "low",
    fixable_only: FixableOnly = False,
    max_scan_age: MaxScanAge = 30,
    sources: Sources = (),
) -> Verdict:
    """[Preview] Container images in GCP registry should have vulnerability findings resolved

    Whatever a tag points to can be deployed tomorrow, and known vulnerabilities are the first thing that is tried on
    it. An image passes only where a scan has finished lately; that nothing is known of it proves nothing.
    """
    return judged(image, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)


@check(
    "gcp-running-image-vulns",
    Severity.HIGH,
    of="gcp",
    controls=_VULNERABILITIES,
    exclude=BOTH,
    fix=_ROLL_OUT,
    refs=(
        "mdc:1b3abfa4-9e53-46f1-9627-51f2957f8bba",
        "mdc:c7c1d31d-a604-4b86-96df-63448618e165",
        "mdc:e538731a-80c8-4317-a119-13075e002516",
    ),
)
def gcp_running(
    c: RunningContainer,
    *,
    min_severity: MinSeverity = "low",
    fixable_only: FixableOnly = False,
    max_scan_age: MaxScanAge = 30,
    sources: Sources = (),
) -> Verdict:
    """[Preview] Containers running in GCP should have vulnerability findings resolved

    Known vulnerabilities of what runs are the first thing that is tried on it. Judged is the image that the nodes have
    really got, for their platform; it passes only where a scan of it has finished lately.
    """
    return judged(c, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)


@check(
    "dockerhub-registry-image-vulns",
    Severity.HIGH,
    of="dockerhub",
    controls=_VULNERABILITIES,
    fix=_REBUILD,
    refs=(),
)
def dockerhub_registry(
    image: RegistryImage,
    *,
    min_severity: MinSeverity = "low",
    fixable_only: FixableOnly = False,
    max_scan_age: MaxScanAge = 30,
    sources: Sources = (),
) -> Verdict:
    """[Preview] Container images in Docker Hub registry should have vulnerability findings resolved

    Whatever a tag points to can be deployed tomorrow, and known vulnerabilities are the first thing that is tried on
    it. An image passes only where a scan has finished lately; that nothing is known of it proves nothing.
    """
    return judged(image, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)


@check(
    "jfrog-registry-image-vulns",
    Severity.HIGH,
    of="jfrog",
    controls=_VULNERABILITIES,
    fix=_REBUILD,
    refs=(),
)
def jfrog_registry(
    image: RegistryImage,
    *,
    min_severity: MinSeverity = "low",
    fixable_only: FixableOnly = False,
    max_scan_age: MaxScanAge = 30,
    sources: Sources = (),
) -> Verdict:
    """[Preview] Container images in Jfrog Artifactory registry should have vulnerability findings resolved

    Whatever a tag points to can be deployed tomorrow, and known vulnerabilities are the first thing that is tried on
    it. An image passes only where a scan has finished lately; that nothing is known of it proves nothing.
    """
    return judged(image, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)


@check(
    "k8s-running-image-vulns",
    Severity.HIGH,
    of="kubernetes",
    controls=_VULNERABILITIES,
    exclude=BOTH,
    fix=_ROLL_OUT,
    refs=(),
)
def other_running(
    c: RunningContainer,
    *,
    min_severity: MinSeverity = "low",
    fixable_only: FixableOnly = False,
    max_scan_age: MaxScanAge = 30,
    sources: Sources = (),
) -> Verdict:
    """Running containers should have vulnerability findings resolved

    Known vulnerabilities of what runs are the first thing that is tried on it. Judged is the image that the nodes have
    really got, for their platform; it passes only where a scan of it has finished lately.
    """
    return judged(c, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)
