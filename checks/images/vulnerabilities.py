"""What scanners found in images: in each registry, and in what runs on each cloud.

kubeposture scans no image. It brings together what Defender for Cloud, the clouds' own scanners, an operator inside the
cluster and files say, and judges all of it by one rule.
"""

from __future__ import annotations

from checks.images.rule import FixableOnly, MaxScanAge, MinSeverity, Rule, Sources, judged
from scanner.check import BOTH, Check, check
from scanner.images import RegistryImage, RunningContainer
from scanner.model import Severity, Verdict

_VULNERABILITIES = ("Remediate vulnerabilities",)
_STORED = """{title}

Whatever a tag points to can be deployed tomorrow, and known vulnerabilities are the first thing that is tried on it. An
image passes only where a scan has finished lately; that nothing is known of it proves nothing.
"""
_RUNS = """{title}

Known vulnerabilities of what runs are the first thing that is tried on it. Judged is the image that the nodes have
really got, for their platform; it passes only where a scan of it has finished lately.
"""


def _stored(id: str, title: str, of: str, *keys: str) -> Check:
    """Of the images in one kind of registries; `keys` are Microsoft's, those that it has given up last."""

    def judge(
        image: RegistryImage,
        *,
        min_severity: MinSeverity = "low",
        fixable_only: FixableOnly = False,
        max_scan_age: MaxScanAge = 30,
        sources: Sources = (),
    ) -> Verdict:
        return judged(image, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)

    judge.__doc__ = _STORED.format(title=title)
    declare = check(
        id,
        Severity.HIGH,
        of=of,
        controls=_VULNERABILITIES,
        fix="Rebuild the image on a newer base and with newer packages, push it, and remove the tags of the old one.",
        refs=tuple(f"mdc:{key}" for key in keys),
    )
    return declare(judge)


def _running(id: str, title: str, of: str, *keys: str) -> Check:
    """Of what runs on the clusters of one cloud."""

    def judge(
        c: RunningContainer,
        *,
        min_severity: MinSeverity = "low",
        fixable_only: FixableOnly = False,
        max_scan_age: MaxScanAge = 30,
        sources: Sources = (),
    ) -> Verdict:
        return judged(c, Rule(min_severity, fixable_only, max_scan_age, sources), Severity.HIGH)

    judge.__doc__ = _RUNS.format(title=title)
    declare = check(
        id,
        Severity.HIGH,
        of=of,
        controls=_VULNERABILITIES,
        exclude=BOTH,
        fix="Rebuild the image on a newer base and with newer packages, push it, and roll it out; where no version "
        "fixes a vulnerability, take the package out or exempt it with a date.",
        refs=tuple(f"mdc:{key}" for key in keys),
    )
    return declare(judge)


azure_registry = _stored(
    "azure-registry-image-vulns",
    "[Preview] Container images in Azure registry should have vulnerability findings resolved",
    "azure",
    "33422d8f-ab1e-42be-bc9a-38685bb567b9",
    "c0b7cfc6-3172-465a-b378-53c7ff2cc0d5",
    "dbd0cb49-b563-45e7-9724-889e799fa648",  # by Qualys
)
azure_running = _running(
    "azure-running-image-vulns",
    "[Preview] Containers running in Azure should have vulnerability findings resolved",
    "azure",
    "c5045ea3-afc6-4006-ab8f-86c8574dbf3d",
    "e9acaf48-d2cf-45a3-a6e7-3caa2ef769e0",
    "c609cf0f-71ab-41e9-a3c6-9a1f7fe1b8d5",
    "41503391-efa5-47ee-9282-4eff6131462c",  # by Qualys
)
aws_registry = _stored(
    "aws-registry-image-vulns",
    "[Preview] Container images in AWS registry should have vulnerability findings resolved",
    "aws",
    "2a139383-ec7e-462a-90ac-b1b60e87d576",
    "c27441ae-775c-45be-8ffa-655de37362ce",
)
aws_running = _running(
    "aws-running-image-vulns",
    "[Preview] Containers running in AWS should have vulnerability findings resolved",
    "aws",
    "8749bb43-cd24-4cf9-848c-2a50f632043c",
    "d5d1e526-363a-4223-b860-f4b6e710859f",
    "682b2595-d045-4cff-b5aa-46624eb2dd8f",
)
gcp_registry = _stored(
    "gcp-registry-image-vulns",
    "[Preview] Container images in GCP registry should have vulnerability findings resolved",
    "gcp",
    "24e37609-dcf5-4a3b-b2b0-b7d76f2e4e04",
    "5cc3a2c1-8397-456f-8792-fe9d0d4c9145",
)
gcp_running = _running(
    "gcp-running-image-vulns",
    "[Preview] Containers running in GCP should have vulnerability findings resolved",
    "gcp",
    "1b3abfa4-9e53-46f1-9627-51f2957f8bba",
    "c7c1d31d-a604-4b86-96df-63448618e165",
    "e538731a-80c8-4317-a119-13075e002516",
)
dockerhub_registry = _stored(
    "dockerhub-registry-image-vulns",
    "[Preview] Container images in Docker Hub registry should have vulnerability findings resolved",
    "dockerhub",
)
jfrog_registry = _stored(
    "jfrog-registry-image-vulns",
    "[Preview] Container images in Jfrog Artifactory registry should have vulnerability findings resolved",
    "jfrog",
)
other_running = _running(
    "k8s-running-image-vulns",
    "Running containers should have vulnerability findings resolved",
    "kubernetes",
)
