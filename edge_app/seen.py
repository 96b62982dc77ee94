"""Which pictures a model was made with, so that a score on them is not taken for one of new faces."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from .errors import ModelError
from .manifest import Artifact, Manifest, sha256, verify

log = logging.getLogger(__name__)

FILE = "seen.bin"  # the marks of all pictures one after the other, sorted
BYTES = 8  # of a picture's sha256: that any two of a million agree by chance is once in 37 million


def write_seen(folder: Path, digests: Iterable[str]) -> dict[str, object]:
    """Write the pictures of these sha256 into `folder`; returns what the manifest's `origin` says of it under "seen"."""
    path = folder / FILE
    path.write_bytes(b"".join(sorted({bytes.fromhex(digest)[:BYTES] for digest in digests})))
    return {"file": FILE, "sha256": sha256(path), "bytes": path.stat().st_size}


def read_seen(manifest: Manifest) -> frozenset[bytes] | None:
    """The marks of the pictures that a model learnt from or was chosen on; None where it does not say, or not whole."""
    said = manifest.origin.get("seen")
    if said is None:
        return None
    try:
        artifact = Artifact(manifest.folder / Path(said["file"]).name, said["sha256"], said["bytes"])
        verify(artifact)
        marks = artifact.path.read_bytes()
    except (ModelError, OSError) as error:
        log.warning("%s; which pictures it has learnt from is not known", error)
    except (LookupError, TypeError, ValueError):
        log.warning(
            "%s: origin/seen: expected file, sha256 and bytes, got %r; which pictures it has learnt from is not known",
            manifest.folder / "manifest.json", said,
        )  # fmt: skip
    else:
        return frozenset(marks[start : start + BYTES] for start in range(0, len(marks), BYTES))
    return None


def mark(path: Path) -> bytes:
    """What stands for the file at `path` among those of `read_seen`."""
    return bytes.fromhex(sha256(path))[:BYTES]
