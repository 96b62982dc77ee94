"""Bundle -> compiler -> model folder. Nothing is registered before everything is there and agrees."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edge_app.errors import CalmcamError, ModelError
from edge_app.files import whole
from edge_app.manifest import Artifact, Manifest, sha256, write_manifest

from .bundle import read_bundle

ARCHS = ("hailo8", "hailo8l")
STOPPED = "compile.py: stopped: "  # how a bundle's compile.py begins its last word
RESULT = {"hef": str, "bytes": int, "sha256": str, "arch": str, "outputs": dict, "gates": dict, "downgrades": list}


def run_bundle(folder: Path, *options: str) -> Iterator[str]:
    """Run a bundle's `compile.py` with this interpreter; yields what it prints. CalmcamError says why it stopped."""
    command = [sys.executable, str(folder / "compile.py"), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        last = ""
        try:
            for line in child.stdout:
                last = line.strip() or last
                if not line.startswith(STOPPED):
                    yield line.rstrip("\n")
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        kept = sorted(path.name for path in folder.iterdir() if path.name == "log.txt" or path.suffix == ".har")
        raise CalmcamError(
            f"{folder}: {last.removeprefix(STOPPED)}" + (f" (kept there: {', '.join(kept)})" if kept else "")
        )


def import_bundle(folder: Path, manifest: Manifest) -> Manifest:
    """Take a compiled bundle's HEF into the model's folder and its manifest; returns the new manifest.

    Raises ModelError when the bundle was made from another model, is not compiled or its HEF was changed;
    OutputError when the model's folder cannot be written. What was registered before holds then as it did.
    """
    bundle = read_bundle(folder)
    result = _result(folder, bundle["arch"], {head.name for head in manifest.heads})
    if bundle["model"] != manifest.name or bundle["source_sha256"] != manifest.artifact("float32").sha256:
        raise ModelError(
            f"{folder}: was made from another {bundle['model']} than the one in {manifest.folder}; prepare it again"
        )
    hef = folder / result["hef"]
    if not hef.is_file() or hef.stat().st_size != result["bytes"] or sha256(hef) != result["sha256"]:
        raise ModelError(
            f"{hef}: expected {result['bytes']:,} bytes with sha256 {result['sha256'][:12]}…; copy the bundle again"
        )
    source = manifest.artifact("float32")
    target = manifest.folder / f"{manifest.name}_{result['arch']}.hef"
    artifact = Artifact(
        path=target,
        sha256=result["sha256"],
        bytes=result["bytes"],
        input=replace(source.input, dtype="uint8", scale=1.0, offset=0.0),
        outputs=result["outputs"],
        emits=source.emits,
        compiler={key: result.get(key) for key in ("arch", "compiler", "runtime", "gates", "downgrades")},
    )
    updated = replace(manifest, artifacts={**manifest.artifacts, result["arch"]: artifact})
    with _or_as_before(target):
        with whole(target) as part:
            shutil.copyfile(hef, part)
        write_manifest(updated)
    return updated


@contextmanager
def _or_as_before(path: Path) -> Iterator[None]:
    """When the block fails, `path` is as it was; OutputError when what is there cannot be kept for that."""
    old, there = path.with_name(f"{path.stem}.old{path.suffix}"), path.is_file()
    if there:
        with whole(old) as part:
            shutil.copyfile(path, part)
    try:
        yield
    except BaseException:
        if there:
            old.replace(path)
        else:
            path.unlink(missing_ok=True)
        raise
    old.unlink(missing_ok=True)


def _result(folder: Path, arch: str, heads: set[str]) -> dict:
    """What `compile.py` wrote; ModelError unless it is a HEF of that `arch` with one output per head."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder}: is not compiled yet (no result.json); run its compile.py where the compiler is"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: result.json cannot be read ({error}); copy the bundle again") from error
    for key, kind in RESULT.items():
        if not isinstance(result, dict) or not isinstance(result.get(key), kind):
            raise ModelError(f"{folder}: result.json: expected {key!r} as {kind.__name__}; copy the bundle again")
    if arch not in ARCHS or Path(result["hef"]).name != result["hef"]:
        raise ModelError(f"{folder}: expected a HEF for {' or '.join(ARCHS)}, got {result['hef']} for {arch}")
    outputs = result["outputs"]
    if result["arch"] != arch or set(outputs) != heads or not all(isinstance(one, str) for one in outputs.values()):
        raise ModelError(
            f"{folder}: result.json: expected {arch} with outputs for {', '.join(sorted(heads))}, got {result['arch']} "
            f"with {outputs}; compile it again"
        )
    return result
