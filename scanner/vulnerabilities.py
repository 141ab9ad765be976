"""What scanners found in images: the common record that every source is translated to.

kubeposture scans no image itself. A source tells of an image that it was scanned, when and for which platform, and what
was found; that an image has no findings proves nothing unless its scan has finished.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from scanner.model import Gap, Severity, utc_now

# By precedence: of a vulnerability that several know, the first one's record is shown. Beside each the registries
# whose images it tells of, "" for any.
SOURCES: Mapping[str, str] = {
    "defender": "",
    "inspector": "aws",
    "ecr": "aws",
    "artifact-analysis": "gcp",
    "xray": "jfrog",
    "trivy-operator": "",
    "trivy": "",
    "grype": "",
}

INSIDE = "trivy-operator"  # looks at what runs in its cluster, not at registries


class Level(StrEnum):
    """How grave a vulnerability is, in the words of its source."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NEGLIGIBLE = "negligible"
    UNKNOWN = "unknown"  # nobody has rated it yet

    @property
    def rank(self) -> int:
        """0 for the gravest; what nobody has rated comes last."""
        return _RANK[self]

    @property
    def severity(self) -> Severity:
        """As a finding weighs it; one that nobody has rated as one that is low."""
        return _SEVERITY[self]


_RANK = {level: i for i, level in enumerate(Level)}
_SEVERITY = {
    Level.CRITICAL: Severity.CRITICAL,
    Level.HIGH: Severity.HIGH,
    Level.MEDIUM: Severity.MEDIUM,
    Level.LOW: Severity.LOW,
    Level.NEGLIGIBLE: Severity.INFO,
    Level.UNKNOWN: Severity.LOW,
}
_WORDS = {
    **{level.value: level for level in Level},
    "important": Level.HIGH,
    "moderate": Level.MEDIUM,
    "minimal": Level.NEGLIGIBLE,
    "informational": Level.NEGLIGIBLE,
    "none": Level.NEGLIGIBLE,
}
_SCORES = ((9.0, Level.CRITICAL), (7.0, Level.HIGH), (4.0, Level.MEDIUM), (0.1, Level.LOW))  # CVSS 3.1, section 5


def level_of(word: str | None, cvss: float | None = None) -> Level:
    """The level that a source's word means; where it has not rated the vulnerability, what the CVSS score says."""
    level = _WORDS.get((word or "").strip().lower(), Level.UNKNOWN)
    if level is Level.UNKNOWN and cvss is not None:
        return next((rated for least, rated in _SCORES if cvss >= least), level)
    return level


_EARLIEST = 2000  # a year: Go writes a time that was never set as one of the year 1
_AHEAD = timedelta(days=1)  # by which clocks may differ


def time_of(text: str | None) -> datetime | None:
    """An RFC 3339 time that has passed, None for anything else: of a scan whose time nobody tells nothing is proven."""
    try:
        time = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    return time if time.tzinfo and time.year >= _EARLIEST and time <= utc_now() + _AHEAD else None


class Vulnerability(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One known vulnerability of one package. `fixed` are the versions without it, "" where there is none."""

    id: str
    level: Level
    package: str = ""
    installed: str = ""
    fixed: str = ""
    cvss: float | None = None


class ImageScan(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one source says of one image.

    `registry` and `repository` are as image_ref gives them; `tags` is None where the source tells none, () where none
    points to the image. `digest` is the manifest's, `config_digest` that of its configuration, "" where not told.
    `platform` is what was scanned ("linux/amd64"): "" where the digest may be of several and nobody says which, None
    where the source only ever means the one platform that the digest is of. `unfinished` is why no findings prove
    nothing (a reason code such as not_scanned), "" for a scan that has finished, and `detail` says it in words;
    `only_fixed` that vulnerabilities without a fix were left out.
    """

    source: str
    registry: str = ""
    repository: str = ""
    tags: tuple[str, ...] | None = None
    digest: str = ""
    config_digest: str = ""
    platform: str | None = None
    scanned_at: datetime | None = None
    unfinished: str = ""
    detail: str = ""
    only_fixed: bool = False
    vulnerabilities: list[Vulnerability] = []
    account: str | None = None
    region: str | None = None
    cluster: str = ""  # whose own operator says it, which is believed of that cluster alone

    @property
    def told(self) -> bool:
        """Whether it says more than that nothing is known."""
        return not self.unfinished or bool(self.vulnerabilities)


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of a multi-platform image: `name` is os/architecture, or os/architecture/variant."""

    digest: str
    name: str


class Scans(msgspec.Struct, omit_defaults=True):
    """What sources said: part of an estate.

    `asked` names the sources. `indexes` are multi-platform images by digest. Gaps have the source's name as `what`.
    `listed` is whether every image of the registries of the estate's account is among the scans, scanned or not.
    `cluster` tells the look inside a cluster that found them, in one run.
    """

    asked: list[str] = []
    scans: list[ImageScan] = []
    indexes: dict[str, list[Platform]] = {}
    gaps: list[Gap] = []
    listed: bool = False
    cluster: str = ""


class Shared:
    """Equal records are kept once: images share most of what is found in them."""

    def __init__(self) -> None:
        self._records: dict[Vulnerability, Vulnerability] = {}
        self._texts: dict[str, str] = {}

    def text(self, value: str) -> str:
        return self._texts.setdefault(value, value)

    def one(self, found: Vulnerability) -> Vulnerability:
        return self._records.setdefault(found, found)

    def found(
        self, id: str, level: Level, package: str = "", installed: str = "", fixed: str = "", cvss: float | None = None
    ) -> Vulnerability:
        """The record of what a source told, its texts cut to a bearable length; a score that cannot be is none."""
        texts = (id[:100], package[:200], installed[:100], fixed[:100])
        score = cvss if cvss is not None and 0 <= cvss <= 10 else None
        id, package, installed, fixed = map(self.text, texts)
        return self.one(Vulnerability(id, level, package, installed, fixed, score))


def gravity(one: Vulnerability) -> tuple[object, ...]:
    """To compare records of one vulnerability of one package by: the least is the gravest."""
    return one.level.rank, not one.fixed, one.installed, one.fixed, one.cvss or 0.0


def distinct(found: Iterable[Vulnerability]) -> list[Vulnerability]:
    """One record for each vulnerability of each installed package: the gravest, in the order in which they come."""
    kept: dict[tuple[str, str, str], Vulnerability] = {}
    for one in found:
        known = kept.setdefault((one.id, one.package, one.installed), one)
        if one.level.rank < known.level.rank:
            kept[one.id, one.package, one.installed] = one
    return list(kept.values())


# With the domains of every partition and those of dual-stack endpoints.
_ECR = re.compile(
    r"\d{12}\.dkr[.-]ecr(?:-fips)?\.[a-z0-9-]+\.(?:on\.aws|on\.amazonwebservices\.com\.cn|amazonaws\.(?:com|com\.cn|eu)"
    r"|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)"
)


def registry_kind(host: str) -> str:
    """azure, aws, gcp, dockerhub or jfrog; "" for any other registry. `host` as image_ref gives it."""
    name = host.partition(":")[0]
    if name == "docker.io":
        return "dockerhub"
    if name.endswith((".azurecr.io", ".azurecr.us", ".azurecr.cn")):
        return "azure"
    if _ECR.fullmatch(name):
        return "aws"
    if name == "gcr.io" or name.endswith((".gcr.io", ".pkg.dev")):
        return "gcp"
    return "jfrog" if name.endswith(".jfrog.io") else ""
