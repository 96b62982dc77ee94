"""A tiny real model in a folder, for tests that need one: seeded weights, two heads, 32x32x3 uint8."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_app.manifest import Artifact, Crop, Head, Input, Manifest, sha256, write_manifest

NETWORK = Path(__file__).parent / "cases" / "two_heads.tflite"
LABELS = ("happy", "sad", "neutral")


def write_model(folder: Path, **changes: object) -> Path:
    """Write a model into `folder`; `changes` replace fields of its manifest. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small_int8.tflite"
    shutil.copyfile(NETWORK, path)
    heads = (Head("mood", "softmax", LABELS), Head("tease", "sigmoid", ("non_teasing", "teasing")))
    spec = Input(32, 32, "rgb", "uint8")
    artifact = Artifact(path, sha256(path), path.stat().st_size, spec, {"mood": "mood", "tease": "tease"})
    fields = {"name": "small", "task": "face_expression", "heads": heads, "artifacts": {"int8": artifact}, "licence": "none"}
    write_manifest(Manifest(**{**fields, "crop": Crop(margin=0.1), "folder": folder, **changes}))
    return folder
