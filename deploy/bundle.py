"""The bundle: everything that a machine with the Dataflow Compiler needs, in one folder that can be carried there."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from edge_app.backends.litert import Backend
from edge_app.errors import ModelError, OutputError
from edge_app.files import folder_beside, take_place
from edge_app.manifest import Manifest, sha256, verify
from edge_app.preprocess import to_input

from .crops import divide
from .graph import Graph, read_graph, without_rescaling

SCRIPT = Path(__file__).with_name("dfc_script.py")
_README = """# {name} for {arch}

Compiles the model `{name}` of calmcam to a HEF. Needs x86-64 Linux and Hailo's Dataflow Compiler (free registration at
hailo.ai) of the release that goes with the Pi's HailoRT, 3.30 for 4.20, 3.31 for 4.21, 3.32 for 4.22, 3.33 for 4.23; 16 GB of
memory; minutes to hours. `calmcam doctor` says which HailoRT the Pi has.

    python compile.py --check     # are the files whole, does model.tflite give the expected outputs?
    python compile.py             # parse, optimise, quantise, compile; a .har is kept after each stage

`calibration.npy` and `expected.npz` hold the pictures that calibrate and judge: where those may not go, this folder may not.

Then carry the folder back and run `calmcam compile MODEL --import FOLDER`, MODEL being `{name}` or the folder that it lies in.

`compile.py` stops when the emulated network no longer agrees with the original (limits in bundle.json), and when the
compiler's log speaks of a silent downgrade; `--allow-downgrade` lets the latter pass.
"""


def write_bundle(
    manifest: Manifest, arch: str, calibration: np.ndarray, folder: Path, *, level: int = 1, exist_ok: bool = False
) -> Path:
    """Write the bundle for float32 `manifest` and raw crops (N, H, W, C) uint8 into `folder`; returns it.

    Some of the crops do not calibrate: they judge the compiled network.
    With `exist_ok` it takes the place of a bundle that is there. Raises OutputError when the folder holds something
    else or cannot be written, ModelError when the float32 file does not hold.
    """
    _may_replace(folder, exist_ok)
    artifact = manifest.artifact("float32")
    verify(artifact)
    graph = read_graph(artifact.path)
    try:
        part = folder_beside(folder.resolve())
        try:
            _write(manifest, graph, arch, calibration, part, level)
            take_place(part, folder.resolve())
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise OutputError.of(folder, error) from error
    return folder


def _may_replace(folder: Path, exist_ok: bool) -> None:
    if not folder.is_dir():
        if folder.exists():
            raise OutputError(f"{folder}: expected a folder, got a file; name another one with -o")
    elif any(folder.iterdir()):
        if not exist_ok:
            raise OutputError(f"{folder}: is not empty; name another folder with -o, or replace it with --exist-ok")
        if not (folder / "bundle.json").is_file():
            raise OutputError(f"{folder}: expected a bundle to replace, got something else; name another one with -o")


def _write(manifest: Manifest, graph: Graph, arch: str, calibration: np.ndarray, folder: Path, level: int) -> None:
    path = manifest.artifact("float32").path
    (folder / "model.tflite").write_bytes(without_rescaling(path) if graph.rescaling else path.read_bytes())
    calibrating, judging = divide(calibration)
    (folder / "model.alls").write_text(model_script(graph, len(calibrating), level), encoding="utf-8")
    np.save(folder / "calibration.npy", calibration[calibrating])
    crops = calibration[judging]
    np.savez(folder / "expected.npz", crops=crops, **expected_outputs(manifest, crops))
    shutil.copyfile(SCRIPT, folder / "compile.py")
    (folder / "README.md").write_text(_README.format(name=manifest.name, arch=arch), encoding="utf-8")
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    describe = {
        "bundle": 1,
        "model": manifest.name,
        "arch": arch,
        "net_name": re.sub(r"\W", "_", manifest.name, flags=re.ASCII),
        "heads": [asdict(head) for head in manifest.heads],
        "emits": manifest.artifact("float32").emits,
        "scale": graph.scale,
        "offset": graph.offset,
        "source_sha256": manifest.artifact("float32").sha256,
        "limits": {"native_difference": 0.05, "agreement": 0.95, "quantised_agreement": 0.9},
        "files": files,
    }
    (folder / "bundle.json").write_text(json.dumps(describe, indent=2) + "\n", encoding="utf-8")


def expected_outputs(manifest: Manifest, crops: np.ndarray) -> dict[str, np.ndarray]:
    """Raw float32 outputs (N, C) by head that LiteRT gives for crops (N, H, W, C) uint8 with the float32 variant."""
    artifact = manifest.artifact("float32")
    with closing(Backend(artifact)) as backend:
        outputs = backend.infer(to_input(crops, artifact.input))
    return {head: outputs[tensor] for head, tensor in artifact.outputs.items()}


def model_script(graph: Graph, crops: int, level: int) -> str:
    """The compiler's model script: normalisation on the chip, statistics over all crops, no 4-bit weights.

    Level 1 is equalisation with bias correction and no fine-tuning, what the model zoo uses for EfficientNet-Lite and
    MobileNetV3; it is reached without a GPU.
    """
    mean = [_short(-offset / scale) for scale, offset in zip(graph.scale, graph.offset, strict=True)]
    deviation = [_short(1 / scale) for scale in graph.scale]
    return (
        f"normalization1 = normalization({mean}, {deviation})\n"
        f"model_optimization_config(calibration, batch_size=8, calibset_size={crops})\n"
        f"model_optimization_flavor(optimization_level={level}, compression_level=0)\n"
    )


def _short(value: float) -> float:
    """Six significant digits, what float32 holds."""
    return float(f"{value:.6g}")


def read_bundle(folder: Path) -> dict:
    """`bundle.json` of a bundle; ModelError when it is none."""
    try:
        describe = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder}: expected a bundle with bundle.json, got {error}; make one with --prepare"
        ) from error
    known = isinstance(describe, dict) and {"model", "arch", "source_sha256"} <= describe.keys()
    if not known or describe.get("bundle") != 1:
        raise ModelError(f"{folder}: expected a bundle of version 1, got {str(describe)[:60]}; make it again")
    return describe
