"""`calmcam parity` between LiteRT and the Hailo's double, over a folder and over a clip."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from clips import write_clip
from compiling import CROPS, DOUBLES
from small_model import write_model

from deploy.bundle import write_bundle
from deploy.compile import import_bundle
from edge_app.cli import cli
from edge_app.manifest import Manifest, read_manifest, sha256, write_manifest

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


def test_what_was_prepared_compiled_and_imported_says_the_same(world: object, folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(write_model(tmp_path / "small") / "manifest.json")
    kit = write_bundle(manifest, "hailo8", CROPS, tmp_path / "kit")
    env = {**os.environ, "PYTHONPATH": str(DOUBLES)}
    subprocess.run([sys.executable, kit / "compile.py"], env=env, check=True, capture_output=True)
    for head in ("mood", "tease"):
        if head == "tease":
            (folder / "sad").rename(folder / "teasing"), (folder / "happy").rename(folder / "non_teasing")
            shutil.rmtree(folder / "neutral")
        result = parity(import_bundle(kit, manifest), folder, "--a", "float32", "--head", head)
        assert result.exit_code == 0 and "agree on 100.00% of" in result.output, result.output


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


def ruin(compiled: Manifest) -> None:
    """Give the model another network for the Hailo."""
    make = importlib.import_module("make_hef")
    device = compiled.artifact("hailo8")
    make.make_hef(compiled.artifact("int8").path, device.path, name="small", spoil=True)
    device = replace(device, sha256=sha256(device.path), bytes=device.path.stat().st_size)
    write_manifest(replace(compiled, artifacts={**compiled.artifacts, "hailo8": device}))


def test_a_ruined_network_fails_the_gate(compiled: Manifest, folder: Path) -> None:
    ruin(compiled)
    result = parity(compiled, folder)
    assert result.exit_code == 1 and "Error:" in result.output and "agree" in result.output


def test_unreadable_pictures_are_named_and_told_by_the_exit_code(compiled: Manifest, folder: Path) -> None:
    (folder / "sad" / "text.png").write_text("this is no picture")
    result = parity(compiled, folder)
    assert result.exit_code == 2, result.output
    assert "of 15 faces" in result.output and "1 unreadable, not compared:\n" in result.output
    assert f"  {folder / 'sad' / 'text.png'}: expected a picture" in result.output
    result = parity(compiled, folder, "--json")
    found = json.loads(result.stdout)["unreadable"]
    assert (result.exit_code, found["count"], found["first"][0][0]) == (2, 1, "sad/text.png")
    ruin(compiled)
    assert parity(compiled, folder).exit_code == 1, "b is not to be shipped, that comes first"


def test_nothing_readable_is_a_failure(compiled: Manifest, tmp_path: Path) -> None:
    (tmp_path / "data" / "sad").mkdir(parents=True)
    (tmp_path / "data" / "sad" / "text.png").write_text("this is no picture")
    result = parity(compiled, tmp_path / "data")
    assert result.exit_code == 2 and "none of the 1 pictures can be read; " in result.stderr


def test_the_settings_file_holds(compiled: Manifest, folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('head = "tease"\nvariant = "hailo8"\nmax_faces = 2\n')
    for label in ("teasing", "non_teasing"):
        (folder / ("happy" if label == "teasing" else "sad")).rename(folder / label)
    (folder / "neutral").rename(tmp_path / "neutral")
    result = parity(compiled, folder, "--config", str(config))
    assert result.exit_code == 0 and "flips by class of a: non_teasing 0, teasing 0" in result.output, result.output
    clip = write_clip(tmp_path / "clip.mp4", frames=4, size=(640, 360), faces=4)
    assert "of 8 faces" in parity(compiled, clip, "--config", str(config)).output
    assert "of 4 faces" in parity(compiled, clip, "--config", str(config), "--max-faces", "1").output
    config.write_text("haed = 1")
    assert parity(compiled, folder, "--config", str(config)).exit_code == 2
