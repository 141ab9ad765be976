"""What runs in clusters, kept until the last source has been read."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import msgspec

from scanner.inventory import Root

_CHUNK = 1 << 14  # bytes that are unpacked at once


class Packed:
    """Roots with what they run, in a tenth of their memory; may be gone through again and again."""

    def __init__(self, roots: Iterable[Root]) -> None:
        packer = zlib.compressobj(1)
        encode = msgspec.json.Encoder().encode
        lines = (encode(_without_shapes(root)) + b"\n" for root in roots if root.images)
        self._data = b"".join([*map(packer.compress, lines), packer.flush()])

    def __iter__(self) -> Iterator[Root]:
        unpacker, decode = zlib.decompressobj(), msgspec.json.Decoder(Root).decode
        parts: list[bytes] = []  # of a line
        for start in range(0, len(self._data), _CHUNK):
            first, *rest = unpacker.decompress(self._data[start : start + _CHUNK]).split(b"\n")
            parts.append(first)
            for line in rest:
                yield decode(b"".join(parts))
                parts = [line]


def _without_shapes(root: Root) -> Root:
    labels = {shape.workload.labels: dict(shape.workload.labels) for shape in root.shapes}
    return Root(root.resource, [], root.images, list(labels.values()))


def merged(readings: Iterable[Iterable[Root]]) -> list[Root]:
    """What several looks at one cluster have seen, each root once."""
    found: dict[tuple[str, ...], Root] = {}
    for root in (root for roots in readings for root in roots):
        r = root.resource
        known = found.setdefault((r.group, r.kind, r.namespace, r.name), root)
        if known is not root:
            pods = {msgspec.structs.replace(image, pods=0): image.pods for image in known.images}
            for image in root.images:
                key = msgspec.structs.replace(image, pods=0)
                pods[key] = max(pods.get(key, 0), image.pods)
            known.images = [msgspec.structs.replace(image, pods=n) for image, n in sorted(pods.items())]
            known.labels += [labels for labels in root.labels if labels not in known.labels]
    return list(found.values())
