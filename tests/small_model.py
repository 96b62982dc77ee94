"""A tiny real model in a folder, for tests that need one: seeded weights, two heads, 32x32x3, int8 and float32."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_app.manifest import Artifact, Crop, Head, Input, Manifest, sha256, write_manifest

NETWORK = Path(__file__).parent / "cases" / "two_heads.tflite"
LABELS = ("happy", "sad", "neutral")


def write_model(folder: Path, **changes: object) -> Path:
    """Write a model into `folder`; `changes` replace fields of its manifest. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    heads = (Head("mood", "softmax", LABELS), Head("tease", "sigmoid", ("non_teasing", "teasing")))
    artifacts = {
        "int8": _artifact(folder / "small_int8.tflite", NETWORK, "uint8"),
        "float32": _artifact(folder / "small_float32.tflite", NETWORK.with_name("two_heads_float32.tflite"), "float32"),
    }
    fields = {"name": "small", "task": "face_expression", "heads": heads, "artifacts": artifacts, "licence": "none"}
    write_manifest(Manifest(**{**fields, "crop": Crop(margin=0.1), "folder": folder, **changes}))
    return folder


def _artifact(path: Path, source: Path, dtype: str) -> Artifact:
    shutil.copyfile(source, path)
    outputs = {"mood": "mood", "tease": "tease"}
    return Artifact(path, sha256(path), path.stat().st_size, Input(32, 32, "rgb", dtype), outputs)
