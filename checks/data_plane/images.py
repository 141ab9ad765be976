"""Where images come from."""

from __future__ import annotations

from typing import Annotated

from scanner import image_ref
from scanner.check import AZURE_SYSTEM_WITH_DEFENDER, Pattern, check
from scanner.kube import Container
from scanner.model import NOT_SET, Severity, Verdict, require


@check(
    "k8s-trusted-registries",
    Severity.HIGH,
    controls=("Remediate vulnerabilities",),
    fix="Push the image to an approved registry and reference it there by its full name.",
    refs=(
        "mdc:8d244d29-fa00-4332-b935-c3a51d525417",
        "azure-policy-9:febd0533-8e55-448f-b837-bd0e06f16469",
        "cis-k8s-1.12:5.5.1",
        "cis-aks-1.8:5.1.4",
        "cis-eks-1.8.0:5.1.4",
        "cis-gke-1.9.0:5.1.4",
        "nsa:Building secure container images",
        "mitre:T1525",
        "mitre:T1195.002",
    ),
    exclude=("containers",),
    excluded_namespaces=AZURE_SYSTEM_WITH_DEFENDER,
    required=("allowed_images_regex", "allowed_registries"),
)
def trusted_registries(
    c: Container,
    *,
    allowed_images_regex: Annotated[
        Pattern | None, "RE2 pattern that the image as written must match; anchor it"
    ] = None,
    allowed_registries: Annotated[
        tuple[str, ...], "or: registries, with or without a path: registry.example.com, *.azurecr.io, docker.io/library"
    ] = (),
) -> Verdict:
    """Container images should be deployed from trusted registries only

    An image from an unknown place is unknown code; a registry of your own can be scanned, signed and kept available.
    """
    by_pattern = allowed_images_regex is not None and allowed_images_regex.search(c.image) is not None
    trusted = bool(c.image) and (
        by_pattern or any(image_ref.in_registry(c.image, entry) for entry in allowed_registries)
    )
    message = f"image {c.image or NOT_SET} comes from a registry that is not trusted"
    return require(trusted, message, c.where("image"), c.image or None)
