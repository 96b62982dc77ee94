"""Every folder in `models/` keeps what its manifest promises. A new model is tested by being there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_app import manifest
from edge_app.backends import litert
from edge_app.preprocess import to_input
from edge_app.seen import read_seen
from edge_app.tasks.face_detection import Stage
from edge_app.tasks.face_expression import Classify
from edge_app.types import NO_FACES, Frame

FOLDERS = sorted(path.parent for path in (Path(__file__).parent.parent / "models").glob("*/manifest.json"))
MODELS = [manifest.read_manifest(folder / "manifest.json") for folder in FOLDERS]
FILES = [pytest.param(model, variant, id=f"{model.name}-{variant}") for model in MODELS for variant in model.artifacts]
NETWORKS = [
    file for file in FILES if file.values[0].heads and file.values[0].artifacts[file.values[1]].path.suffix == ".tflite"
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_folder_holds_what_the_manifest_names_and_no_more(model):
    assert model.name == model.folder.name
    named = {artifact.path.name for artifact in model.artifacts.values()}
    binaries = {path.name for path in model.folder.iterdir() if path.suffix in (".tflite", ".hef", ".keras", ".onnx")}
    assert binaries == named
    assert model.licence
    assert model.command


@pytest.mark.parametrize("model", [model for model in MODELS if model.heads], ids=lambda model: model.name)
def test_a_trained_model_has_a_card_and_scores_and_says_what_it_learnt_from(model):
    assert (model.folder / "CARD.md").stat().st_size > 500
    assert model.scores
    assert read_seen(model)
    for score in model.scores:
        assert score["variant"] in model.artifacts
        low, high = score.get("interval", (0, 1))
        assert low <= score["value"] <= high


@pytest.mark.parametrize(("model", "variant"), FILES)
def test_files_are_unchanged(model, variant):
    artifact = model.artifacts[variant]
    manifest.verify(artifact)
    assert artifact.path.stat().st_size == artifact.bytes


@pytest.mark.parametrize(("model", "variant"), NETWORKS)
def test_networks_load_and_answer(model, variant):
    artifact = model.artifacts[variant]
    backend = litert.Backend(artifact)
    spec = artifact.input
    crops = np.random.default_rng(0).integers(0, 256, (3, spec.height, spec.width, spec.channels), np.uint8)
    crops[1], crops[2] = 0, 255
    heads = Classify(model, artifact, backend).probabilities(crops)
    outputs = backend.infer(to_input(crops, spec))
    backend.close()
    assert set(outputs) == set(artifact.outputs.values())
    for head in model.heads:
        assert heads[head.name].shape == (3, len(head.labels))
        np.testing.assert_allclose(heads[head.name].sum(axis=1), 1, atol=1e-4)
        assert np.ptp(heads[head.name], axis=0).max() > 1e-3, "different pictures get different answers"


@pytest.mark.parametrize(("model", "variant"), [file for file in FILES if not file.values[0].heads])
def test_detectors_load(model, variant):
    stage = Stage(model.artifacts[variant].path)
    try:
        assert len(stage(Frame(np.zeros((64, 64, 3), np.uint8), 0, 0), NO_FACES)) == 0, "no face in the dark"
    finally:
        stage.close()
