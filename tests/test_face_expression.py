"""Crop and classify, with the real engine on a seeded network."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from cases import make_crops
from small_model import write_model

from edge_app import devices
from edge_app.backends import fake, litert
from edge_app.catalogue import check_answer
from edge_app.decide import Decider
from edge_app.errors import DeviceLost, ModelError
from edge_app.manifest import Head, Manifest, find_model, read_manifest
from edge_app.preprocess import crop_faces, sharpness
from edge_app.result_line import result_line
from edge_app.tasks.face_expression import Classify, Crop
from edge_app.types import NO_FACES, Faces, Frame, Result, Status

FRAME = Frame(make_crops.portrait(), 0, 0)
FACES = Faces(make_crops.BOXES, np.array([0.9, 0.6], np.float32), make_crops.POINTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Manifest:
    return read_manifest(write_model(tmp_path_factory.mktemp("models") / "small") / "manifest.json")


@pytest.fixture(scope="module")
def backend(model):
    backend = litert.Backend(model.artifact("int8"))
    yield backend
    backend.close()


def test_crops_are_cut_as_the_manifest_says(model):
    artifact = model.artifact("int8")
    faces = Crop(model, artifact)(FRAME, FACES)
    expected = crop_faces(FRAME.image, FACES.boxes, FACES.points, model.crop, artifact.input)
    np.testing.assert_array_equal(faces.crops, expected)
    np.testing.assert_allclose(faces.sharpness, [sharpness(crop) for crop in expected])
    assert faces.sharpness.dtype == np.float32
    assert faces.boxes is FACES.boxes


def test_both_heads_answer_with_probabilities(model, backend):
    artifact = model.artifact("int8")
    faces = Classify(model, artifact, backend)(FRAME, Crop(model, artifact)(FRAME, FACES))
    assert {name: p.shape for name, p in faces.heads.items()} == {"mood": (2, 3), "tease": (2, 2)}
    for p in faces.heads.values():
        assert p.dtype == np.float32
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert faces.device == "cpu"
    decided = Decider(model.heads[0])(FRAME, faces)
    line = result_line(Result(FRAME, decided, {}, Status(0.0, 0.0, 0, "cpu")))
    for row, face in enumerate(line["faces"]):
        for head in model.heads:
            values = faces.heads[head.name][row].tolist()
            assert face["heads"][head.name] == {name: round(p, 4) for name, p in zip(head.labels, values, strict=True)}


def test_the_temperature_is_the_manifests(model, backend):
    artifact = model.artifact("int8")
    faces = Crop(model, artifact)(FRAME, FACES)
    warm = replace(model, heads=tuple(replace(head, temperature=8.0) for head in model.heads))
    sure = Classify(model, artifact, backend)(FRAME, faces).heads["mood"].max(axis=1)
    unsure = Classify(warm, artifact, backend)(FRAME, faces).heads["mood"].max(axis=1)
    assert (unsure < sure).all()


def test_a_mirrored_picture_gives_nearly_the_same_answer(model, backend):
    artifact = model.artifact("int8")
    boxes = FACES.boxes[:1]
    mirrored_boxes = np.column_stack([512 - boxes[:, 2], boxes[:, 1], 512 - boxes[:, 0], boxes[:, 3]])
    mirrored = Frame(np.ascontiguousarray(FRAME.image[:, ::-1]), 0, 0)
    score = np.ones(1, np.float32)
    plain_crop = Crop(model, artifact)(FRAME, Faces(boxes, score)).crops
    mirrored_crop = Crop(model, artifact)(mirrored, Faces(mirrored_boxes, score)).crops
    classify = Classify(model, artifact, backend)
    there_and_back = classify.probabilities(np.ascontiguousarray(mirrored_crop[:, :, ::-1]))
    for name, p in classify.probabilities(plain_crop).items():
        np.testing.assert_allclose(there_and_back[name], p, atol=0.05)


def test_all_faces_are_one_batch_and_no_face_is_none(model):
    backend = fake.Backend({"mood": (3,), "tease": (1,)})
    classify = Classify(model, model.artifact("int8"), backend)
    before = backend.calls
    crop = Crop(model, model.artifact("int8"))
    assert len(classify(FRAME, crop(FRAME, FACES))) == 2
    assert backend.calls == before + 1
    nobody = classify(FRAME, crop(FRAME, NO_FACES))
    assert backend.calls == before + 1
    assert {name: p.shape for name, p in nobody.heads.items()} == {"mood": (0, 3), "tease": (0, 2)}
    assert nobody.crops.shape == (0, 32, 32, 3)
    assert nobody.device == "fake"


def test_probabilities_inside_the_network_are_understood(model):
    artifact = replace(model.artifact("int8"), emits="probabilities")
    classify = Classify(model, artifact, fake.Backend({"mood": (3,), "tease": (1,)}))
    answer = classify.probabilities(np.zeros((1, 32, 32, 3), np.uint8))
    np.testing.assert_allclose(answer["mood"], [[1 / 3] * 3], atol=1e-5)
    np.testing.assert_allclose(answer["tease"], [[1, 0]], atol=1e-5)


def test_two_models_work_side_by_side(model, backend):
    artifact = model.artifact("int8")
    other = replace(model, heads=(Head("other", "softmax", ("a", "b", "c")),))
    second = Classify(other, replace(artifact, outputs={"other": "mood"}), backend)
    first = Classify(model, artifact, backend)
    faces = Crop(model, artifact)(FRAME, FACES)
    once = first(FRAME, faces).heads["mood"]
    np.testing.assert_array_equal(second(FRAME, faces).heads["other"], once)
    np.testing.assert_array_equal(first(FRAME, faces).heads["mood"], once)


def test_labels_that_do_not_fit_the_file_are_refused(model, backend):
    artifact = model.artifact("int8")
    wrong = replace(model, heads=(replace(model.heads[0], labels=("happy", "sad")), model.heads[1]))
    with pytest.raises(ModelError, match=r"'mood': expected 2 values for softmax over 2 labels, got 3"):
        check_answer(wrong, artifact, backend)


def test_a_lost_device_is_told(model):
    backend = fake.Backend({"mood": (3,), "tease": (1,)}, fail_at=1)
    classify = Classify(model, model.artifact("int8"), backend)
    with pytest.raises(DeviceLost):
        classify(FRAME, Crop(model, model.artifact("int8"))(FRAME, FACES))


def test_a_blurred_face_is_less_sharp(model):
    crop = Crop(model, model.artifact("int8"))
    blurred = Frame(cv2.GaussianBlur(FRAME.image, (0, 0), 5), 0, 0)
    assert crop(blurred, FACES).sharpness[0] < crop(FRAME, FACES).sharpness[0] / 4


@pytest.mark.parametrize(
    ("emits", "values", "told"),
    [
        ("probabilities", [0.2, 0.5, 0.3], ""),
        ("probabilities", [-1.0, 2.5, 0.3], "expected probabilities"),
        ("probabilities", [0.9, 0.9, 0.3], "expected probabilities"),
        ("probabilities", [0.12, 0.12, 0.36], ""),  # rounded to 4 bits
        ("logits", [-1.0, 2.5, 0.3], ""),
        ("logits", [0.2, 0.5, 0.3], "needs emits: probabilities"),
    ],
)
def test_what_a_model_emits_is_looked_at(tmp_path, caplog, emits, values, told):
    class Answering:
        def infer(self, batch):
            return {"mood": np.array([values], np.float32), "tease": np.array([[0.5]], np.float32)}

    model = find_model(str(write_model(tmp_path / "m")))
    artifact = replace(model.artifact("int8"), emits=emits)
    if told and emits == "probabilities":
        with pytest.raises(ModelError, match=told):
            check_answer(model, artifact, Answering())
    else:
        check_answer(model, artifact, Answering())
        assert told in caplog.text if told else not caplog.text


def test_a_file_may_be_called_otherwise_and_lie_under_a_name_that_is_no_utf8(tmp_path):
    """As a zip packed by a Korean Windows names its folders."""
    folder = write_model(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + "모델".encode("cp949"))))
    model = find_model(str(folder))
    model = replace(model, artifacts={"mine": model.artifact("int8")})
    assert devices.choose(model, None, "cpu")[0] == "mine"
    backend = devices.open_backend(model.artifact("mine"))
    check_answer(model, model.artifact("mine"), backend)
    backend.close()
