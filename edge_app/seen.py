"""Which pictures a model was made with, so that a score on them is not taken for one of new faces."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from .errors import ModelError
from .manifest import Artifact, Manifest, sha256, verify

log = logging.getLogger(__name__)

FILE = "seen.bin"  # the marks of the pictures learnt from, sorted, then of those that it was only chosen on
BYTES = 8  # of a picture's sha256: that any two of a million agree by chance is once in 37 million


def write_seen(folder: Path, learnt: Iterable[bytes], chosen: Iterable[bytes] = ()) -> dict[str, object]:
    """Write the marks of the pictures that were learnt from, or chosen on, into `folder`; returns what is said of it under
    "seen" in the manifest's `origin`."""
    path, first = folder / FILE, frozenset(learnt)
    path.write_bytes(b"".join(sorted(first) + sorted(frozenset(chosen) - first)))
    return {"file": FILE, "sha256": sha256(path), "bytes": path.stat().st_size, "learnt": len(first)}


def read_seen(manifest: Manifest) -> frozenset[bytes] | None:
    """The marks of the pictures that a model learnt from or was chosen on; None where it does not say, or not whole."""
    found = _read(manifest.folder / "manifest.json", manifest.origin.get("seen"))
    return found and frozenset(found[0])


def read_learnt(path: Path, said: object) -> frozenset[bytes]:
    """Those learnt from, as the manifest or record `path` says under "seen": all where it does not part them, none where it
    does not say, or not whole."""
    marks, count = _read(path, said) or ((), 0)
    return frozenset(marks[:count])


def _read(path: Path, said: object) -> tuple[list[bytes], int] | None:
    """The marks in their order and how many of them were learnt from; a warning, and None, where they are not as said."""
    if said is None:
        return None
    try:
        artifact = Artifact(path.with_name(Path(said["file"]).name), said["sha256"], said["bytes"])
        verify(artifact)
        content = artifact.path.read_bytes()
        count = int(said.get("learnt", len(content)))
    except (ModelError, OSError) as error:
        log.warning("%s; which pictures it has learnt from is not known", error)
    except (LookupError, TypeError, ValueError):
        log.warning(
            "%s: seen: expected file, sha256 and bytes, got %r; which pictures it has learnt from is not known", path, said
        )  # fmt: skip
    else:
        return [content[start : start + BYTES] for start in range(0, len(content), BYTES)], count
    return None


def marks(digests: Iterable[str]) -> frozenset[bytes]:
    """What stands for the pictures whose files have these sha256."""
    return frozenset(bytes.fromhex(digest)[:BYTES] for digest in digests)


def mark(path: Path) -> bytes:
    """What stands for the file at `path` among those of `read_seen`."""
    return bytes.fromhex(sha256(path))[:BYTES]
