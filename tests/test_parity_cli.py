"""`calmcam parity` between LiteRT and the Hailo's double, over a folder and over a clip."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from clips import write_clip

from edge_app.cli import cli
from edge_app.manifest import Manifest, sha256, write_manifest

pytest_plugins = ("hailo_fixtures",)


def parity(manifest: Manifest, data: Path, *more: str) -> Result:
    arguments = ["parity", str(manifest.folder), "--a", "int8", "--b", "hailo8", "--data", str(data)]
    return CliRunner().invoke(cli, [*arguments, *more])


@pytest.fixture
def folder(tmp_path: Path, crops: np.ndarray) -> Path:
    for label in ("happy", "sad", "neutral"):
        place = tmp_path / "data" / label
        place.mkdir(parents=True)
        for number, crop in enumerate(crops):
            cv2.imwrite(str(place / f"{number}.png"), crop)
    return tmp_path / "data"


def test_what_says_the_same_agrees(compiled: Manifest, folder: Path) -> None:
    result = parity(compiled, folder, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)
    assert "agree on 100.00% of 15 faces" in parity(compiled, folder).output


def test_the_worst_crops_are_drawn(compiled: Manifest, folder: Path, tmp_path: Path) -> None:
    assert parity(compiled, folder, "--worst", str(tmp_path / "worst")).exit_code == 0
    assert cv2.imread(str(tmp_path / "worst")).shape == (96, 960, 3)
    result = parity(compiled, folder, "--worst", str(tmp_path / "none" / "worst.png"))
    assert result.exit_code == 2 and "none/worst.png: cannot be written" in result.output


def test_a_clip(compiled: Manifest, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=8)
    assert "needs a labelled folder" in parity(compiled, clip, "--worst", "worst.png").output
    result = parity(compiled, clip)
    assert result.exit_code == 0, result.output
    assert "agree on 100.00% of 8 faces" in result.output


def test_a_ruined_network_fails_the_gate(compiled: Manifest, folder: Path) -> None:
    make = importlib.import_module("make_hef")
    device = compiled.artifact("hailo8")
    make.make_hef(compiled.artifact("int8").path, device.path, name="small", spoil=True)
    device = replace(device, sha256=sha256(device.path), bytes=device.path.stat().st_size)
    write_manifest(replace(compiled, artifacts={**compiled.artifacts, "hailo8": device}))
    result = parity(compiled, folder)
    assert result.exit_code == 1 and "Error:" in result.output and "agree" in result.output
