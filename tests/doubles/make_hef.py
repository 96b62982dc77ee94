"""Wrap a TFLite file into the double's stand-in HEF, and add one to a model.

PYTHONPATH=. python tests/doubles/make_hef.py MODEL_FOLDER...
No compiler was involved and no number taken on it says anything about the chip.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HAILORT_LOGGER_PATH", "NONE")

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from hailo_platform.pyhailort._pyhailort import HEADER, MAGIC

from edge_app.manifest import Artifact, Input, Manifest, read_manifest, sha256, write_manifest


def make_hef(
    tflite: Path,
    path: Path,
    *,
    arch: str = "hailo8",
    name: str = "net",
    axes: tuple[int, ...] = (),
    spoil: bool = False,
    normalization: Sequence[Sequence[float]] = ((0,), (1,)),
    **given: object,
) -> dict[str, str]:
    """Write the stand-in HEF `path`; returns stream name by the TFLite's output name.

    `axes` stand before the shape of each output, as convolutional heads have them; `given` describes the input
    otherwise than it is (scale, zero); `spoil` turns every output's sign, as a network ruined by quantisation might.
    The chip gives the network (pixels - mean) / deviation, by channel, of `normalization`.
    """
    data = tflite.read_bytes()
    runner = _runner(data)
    (_, detail), *_ = runner.get_input_details().items()
    ranges = _ranges(runner, *np.float32(normalization))
    tensors = sorted(runner.get_output_details(), reverse=True)  # neither alphabetical nor numeric order (1.4)
    outputs = [_output(f"fc{n}", tensor, runner, ranges) for n, tensor in enumerate(tensors, 1)]
    for output in outputs:
        output["shape"] = [*axes, *output["shape"]]
        output["scale"] *= -1 if spoil else 1
    inputs = [{"name": "input_layer1", "shape": [int(size) for size in detail["shape"][1:]], **given}]
    raw = {
        "name": name,
        "arch": arch,
        "inputs": inputs,
        "outputs": outputs,
        "normalization": normalization,
        "fps": 1000.0,
    }
    payload = json.dumps(raw).encode() + b"\0" + data
    path.write_bytes(HEADER.pack(MAGIC, 2, len(payload), zlib.crc32(payload)) + payload)
    return {output["tensor"]: f"{name}/{output['name']}" for output in outputs}


def add_hef(manifest: Manifest, *, arch: str = "hailo8", source: str = "int8") -> Manifest:
    """Put a stand-in HEF made of variant `source` beside the manifest and into it, as variant `arch`."""
    given = manifest.artifact(source)
    path = manifest.folder / f"{manifest.name}_{arch}.hef"
    streams = make_hef(given.path, path, arch=arch, name=manifest.name)
    outputs = {head: streams[tensor] for head, tensor in given.outputs.items()}
    spec: Input = given.input
    taken = Input(spec.height, spec.width, spec.colour, "uint8")
    compiler = {"architecture": arch, "stand-in": "tests/doubles/make_hef.py"}
    artifact = Artifact(path, sha256(path), path.stat().st_size, taken, outputs, given.emits, compiler)
    manifest = replace(manifest, artifacts={**manifest.artifacts, arch: artifact})
    write_manifest(manifest)
    return manifest


def _runner(data: bytes) -> object:
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter.get_signature_runner()


def _ranges(runner: object, mean: np.ndarray, deviation: np.ndarray) -> dict[str, tuple[float, float]]:
    """Least and largest output on random pictures, widened by half: the grid of outputs that are not quantised."""
    (name, detail), *_ = runner.get_input_details().items()
    rng = np.random.default_rng(0)
    given = [((rng.integers(0, 256, detail["shape"]) - mean) / deviation).astype(detail["dtype"]) for _ in range(8)]
    results = [runner(**{name: item}) for item in given]
    spans = {}
    for key in results[0]:
        values = np.concatenate([result[key].ravel() for result in results]).astype(float)
        half = max(float(np.ptp(values)), 1e-3) / 2
        spans[key] = (float(values.min()) - half, float(values.max()) + half)
    return spans


def _output(name: str, tensor: str, runner: object, ranges: dict[str, tuple[float, float]]) -> dict[str, object]:
    detail = runner.get_output_details()[tensor]
    scale, zero = detail["quantization"]
    if detail["dtype"] == np.int8:
        zero += 128
    elif detail["dtype"] == np.float32:
        low, high = ranges[tensor]
        scale = (high - low) / 255
        zero = round(-low / scale)
    shape = [int(size) for size in detail["shape"][1:]]
    return {"name": name, "tensor": tensor, "shape": shape, "scale": float(scale), "zero": int(zero)}


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        add_hef(read_manifest(Path(folder) / "manifest.json"))
