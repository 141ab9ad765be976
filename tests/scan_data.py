"""Reports of Trivy and Grype of any number, realistic in shape and in what images share.

Everything follows from an index, so any file can be made alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]

IDS = 40_000
PACKAGES = 3_000
BASES = 50  # base images; what is found in them is in every image built on them
TIME = "2026-05-04T03:02:01.000000005Z"
LEVELS = ("LOW", "MEDIUM", "MEDIUM", "HIGH", "LOW", "UNKNOWN", "MEDIUM", "HIGH", "LOW", "CRITICAL")


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def repository(index: int) -> str:
    return f"acme.azurecr.io/team-{index % 40}/app-{index}"


@functools.lru_cache(maxsize=IDS)
def vulnerability_text(number: int) -> str:
    """As Trivy writes it; one id is always of the same package. A third has no fix."""
    package, score = number % PACKAGES, number % 100 / 10
    found = {
        "VulnerabilityID": f"CVE-{2015 + number % 11}-{10_000 + number}",
        "PkgID": f"package-{package}@1.{package % 30}.0-r{package % 7}",
        "PkgName": f"package-{package}",
        "PkgIdentifier": {"PURL": f"pkg:apk/alpine/package-{package}@1.{package % 30}.0?arch=x86_64"},
        "InstalledVersion": f"1.{package % 30}.0-r{package % 7}",
        **({"FixedVersion": f"1.{package % 30}.{1 + number % 9}", "Status": "fixed"} if number % 3 else {}),
        "Layer": {"Digest": digest(f"layer {package}"), "DiffID": digest(f"diff {package}")},
        "SeveritySource": "nvd",
        "PrimaryURL": f"https://vulnerabilities.example.com/{number}",
        "Title": f"package-{package}: heap overflow in the parser of headers, number {number}",
        "Description": "A crafted request makes the parser read beyond its buffer, which ends the process. " * 3,
        "Severity": LEVELS[number % len(LEVELS)],
        "CVSS": {"nvd": {"V3Vector": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N", "V3Score": score}},
        "References": [f"https://vulnerabilities.example.com/{number}/{n}" for n in range(4)],
    }
    return json.dumps(found)


def numbers(index: int, vulnerabilities: int) -> Iterator[int]:
    """Three quarters come from the base image."""
    shared = vulnerabilities * 3 // 4
    for n in range(vulnerabilities):
        start = (index % BASES) * 397 if n < shared else 20_000 + index * 61
        yield (start + n * 7) % IDS


def trivy_text(index: int, vulnerabilities: int) -> str:
    found = ",\n".join(map(vulnerability_text, numbers(index, vulnerabilities)))
    report = trivy(
        ArtifactName=f"{repository(index)}:1.0",
        Metadata=metadata(
            ImageID=digest(f"config {index}"),
            RepoTags=[f"{repository(index)}:1.0"],
            RepoDigests=[f"{repository(index)}@{digest(f'manifest {index}')}"],
        ),
        Results=[result("@")],
    )
    return json.dumps(report, indent=1).replace('"@"', found)


def scans(directory: Path, images: int, vulnerabilities: int) -> None:
    """One file of Trivy's an image."""
    for index in range(images):
        (directory / f"image-{index:05}.json").write_text(trivy_text(index, vulnerabilities))


# -- single reports ---------------------------------------------------------------------------------------------------


def metadata(**more: Any) -> Json:
    return {
        "OS": {"Family": "alpine", "Name": "3.22.1"},
        "ImageID": digest("config"),
        "RepoTags": ["registry.example.com/shop/web:1.0"],
        "RepoDigests": [f"registry.example.com/shop/web@{digest('index')}"],
        "ImageConfig": {"architecture": "amd64", "os": "linux", "created": TIME, "rootfs": {"type": "layers"}},
        **more,
    }


def trivy(**more: Any) -> Json:
    return {
        "SchemaVersion": 2,
        "CreatedAt": TIME,
        "ArtifactName": "registry.example.com/shop/web:1.0",
        "ArtifactType": "container_image",
        "Metadata": metadata(),
        "Results": [result(vulnerability())],
        **more,
    }


def result(*found: Any, kind: str = "os-pkgs", **more: Any) -> Json:
    """As the vulnerability scanner writes it without a list of packages; no key where nothing was found."""
    listed = {"Vulnerabilities": list(found)} if found else {}
    return {"Target": "shop/web (alpine 3.22.1)", "Class": kind, "Type": "alpine", **listed, **more}


def vulnerability(id: str = "CVE-2026-1000", **more: Any) -> Json:
    return {
        "VulnerabilityID": id,
        "PkgName": "openssl",
        "InstalledVersion": "3.5.0-r0",
        "FixedVersion": "3.5.1-r0",
        "Status": "fixed",
        "Severity": "HIGH",
        "SeveritySource": "nvd",
        "CVSS": {"ghsa": {"V3Score": 5.0}, "nvd": {"V2Score": 5, "V3Score": 7.5}},
        "Title": "openssl: something",
        **more,
    }


def grype(**more: Any) -> Json:
    return {
        "matches": [match()],
        "source": {"type": "image", "target": target()},
        "distro": {"name": "debian", "version": "13", "idLike": []},
        "descriptor": descriptor(),
        **more,
    }


def target(**more: Any) -> Json:
    return {
        "userInput": "shop/web:1.0",
        "imageID": digest("config"),
        "manifestDigest": digest("manifest"),
        "tags": ["shop/web:1.0"],
        "repoDigests": [f"index.docker.io/shop/web@{digest('index')}"],
        "architecture": "arm64",
        "architectureVariant": "v8",
        "os": "linux",
        **more,
    }


def descriptor(**configuration: Any) -> Json:
    return {
        "name": "grype",
        "version": "0.100.0",
        "configuration": {"only-fixed": False, "ignore-wontfix": "", "ignore": [], **configuration},
        "db": {"status": {"built": TIME, "valid": True}},
        "timestamp": "2026-05-04T05:02:01.123456789+02:00",
    }


def match(id: str = "GHSA-aaaa-bbbb-cccc", related: tuple[str, ...] = ("CVE-2026-2000",), **more: Any) -> Json:
    return {
        "vulnerability": {
            "id": id,
            "severity": "Critical",
            "namespace": "github:language:go",
            "cvss": [{"version": "3.1", "metrics": {"baseScore": 9.8}, "vendorMetadata": {}}],
            "fix": {"versions": ["1.2.1", "1.3.0"], "state": "fixed"},
            **more,
        },
        "relatedVulnerabilities": [{"id": id, "severity": "High", "cvss": []} for id in related],
        "matchDetails": [{"type": "exact-direct-match"}],
        "artifact": {"name": "example.com/lib", "version": "v1.2.0", "type": "go-module", "purl": "pkg:golang/lib"},
    }
