"""Manifests are read, checked and written; what is wrong is named."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from small_model import write_model

from edge_app import catalogue, manifest
from edge_app.errors import ManifestError, ModelError, SettingsError


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_model(tmp_path / "small")


def change(folder: Path, edit) -> Path:
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    edit(raw)
    path.write_text(json.dumps(raw))
    return path


def test_written_and_read_again_it_is_the_same(folder):
    first = manifest.read_manifest(folder / "manifest.json")
    assert manifest.write_manifest(first) == folder / "manifest.json"
    assert manifest.read_manifest(folder / "manifest.json") == first
    assert first.heads[0].labels == ("happy", "sad", "neutral")
    assert first.artifact("int8").input.channels == 3
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda raw: raw.update(hedas=[]), ["unknown key 'hedas'", "did you mean 'heads'"]),
        (lambda raw: raw["heads"][0].update(temprature=2), ["heads/0", "did you mean 'temperature'"]),
        (lambda raw: raw["artifacts"]["int8"].update(sha="0"), ["artifacts/int8", "unknown key 'sha'"]),
        (lambda raw: raw["artifacts"]["int8"]["input"].update(width="32"), ["artifacts/int8/input/width", "'32'"]),
        (lambda raw: raw["artifacts"]["int8"].update(file="../../etc/passwd"), ["artifacts/int8/file"]),
        (lambda raw: raw["artifacts"]["int8"]["outputs"].pop("mood"), ["outputs", "expected one per head"]),
        (lambda raw: raw["artifacts"]["int8"].pop("input"), ["artifacts/int8", "expected a key 'input'"]),
        (lambda raw: raw["heads"][0].update(labels=["one"]), ["heads/0/labels"]),
        (lambda raw: raw["heads"][0].update(labels=["a", "a"]), ["heads/0/labels"]),
        (lambda raw: raw["heads"][0].update(labels=["a", "unsure"]), ["heads/0/labels", "'unsure'", "otherwise"]),
        (lambda raw: raw["heads"][1].update(labels=["a", "b", "c"]), ["heads/1/labels", "2 labels"]),
        (lambda raw: raw["heads"].append(raw["heads"][0]), ["heads", "'mood'", "twice"]),
        (lambda raw: raw["heads"][0].update(temperature=0), ["heads/0/temperature"]),
        (lambda raw: raw["crop"].update(align="eyes"), ["crop/align", "'eyes'"]),
        (lambda raw: raw.update(schema=2), ["schema"]),
        (lambda raw: raw.update(licence="\x1b]0;mine\x07"), ["licence"]),
        (lambda raw: raw.pop("licence"), ["'licence' is a required property"]),
        (lambda raw: raw.update(artifacts={}), ["artifacts"]),
        (lambda raw: raw["artifacts"]["int8"]["input"].update(scale=float("nan")), ["NaN is no number"]),
    ],
)
def test_what_is_wrong_is_named(folder, edit, words):
    path = change(folder, edit)
    with pytest.raises(ManifestError) as caught:
        manifest.read_manifest(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"null", b"NaN"])
def test_a_file_that_is_no_manifest(tmp_path, content):
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match="manifest.json"):
        manifest.read_manifest(path)
    with pytest.raises(ManifestError, match="cannot be read"):
        manifest.read_manifest(tmp_path / "absent.json")


def test_a_wrong_manifest_is_not_written(folder):
    good = manifest.read_manifest(folder / "manifest.json")
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(ManifestError):
        manifest.write_manifest(replace(good, task="face_recognition"))
    assert (folder / "manifest.json").read_bytes() == before


def test_verify(folder):
    artifact = manifest.read_manifest(folder / "manifest.json").artifact("int8")
    manifest.verify(artifact)
    content = bytearray(artifact.path.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.path.write_bytes(content)
    with pytest.raises(ModelError, match=r"expected sha256 .*, got .*; the file was changed"):
        manifest.verify(artifact)
    artifact.path.write_bytes(content[:-1])
    with pytest.raises(ModelError, match=r"expected 6,376 bytes, got 6,375"):
        manifest.verify(artifact)
    artifact.path.unlink()
    with pytest.raises(ModelError, match="missing"):
        manifest.verify(artifact)


def test_an_unknown_variant_names_the_nearest(folder):
    small = manifest.read_manifest(folder / "manifest.json")
    with pytest.raises(SettingsError, match=r"small: unknown variant 'int88'; did you mean 'int8'\? \(known: "):
        small.artifact("int88")


def test_models_are_found_by_name_and_by_folder(folder, monkeypatch, tmp_path):
    assert manifest.find_model("face_detection").task == "face_detection"
    assert manifest.find_model(str(folder)).name == "small"
    assert manifest.find_model(str(folder / "manifest.json")).name == "small"
    with pytest.raises(SettingsError, match=r"unknown model 'face_detectoin'; did you mean 'face_detection'"):
        manifest.find_model("face_detectoin")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    write_model(tmp_path / "data" / "calmcam" / "models" / "mine")
    assert manifest.find_model("mine").folder == tmp_path / "data" / "calmcam" / "models" / "mine"
    with pytest.raises(SettingsError, match="no/such: there is no such folder; expected a model's, or one of emotions"):
        manifest.find_model("no/such")
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(SettingsError, match=f"got a training run; make one of it: calmcam export {tmp_path}"):
        manifest.find_model(str(tmp_path))
    (tmp_path / "recipe.yaml").unlink()


def test_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(SettingsError, match=f"{tmp_path}: no model there, it has no manifest.json"):
        manifest.find_model(str(tmp_path))


def test_of_two_models_of_one_name_the_bundled_one_is_taken(monkeypatch, tmp_path):
    bundled = manifest.find_model("emotions").folder
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    write_model(tmp_path / "calmcam" / "models" / "emotions")
    assert manifest.find_model("emotions").folder == bundled


def test_a_name_is_found_however_its_hangul_is_composed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    written, typed = (unicodedata.normalize(form, "한글모델") for form in ("NFD", "NFC"))
    write_model(tmp_path / "calmcam" / "models" / written)
    assert manifest.find_model(typed).folder.name == written


def test_a_manifest_that_an_editor_began_with_a_mark(folder):
    path = folder / "manifest.json"
    before = manifest.read_manifest(path)
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert manifest.read_manifest(path) == before


def test_of_two_names_that_look_alike_the_one_that_was_typed_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for form in ("NFD", "NFC"):
        write_model(tmp_path / "calmcam" / "models" / unicodedata.normalize(form, "놀림"))
    for form in ("NFD", "NFC"):
        name = unicodedata.normalize(form, "놀림")
        assert manifest.find_model(name).folder.name == name == catalogue.named((name,))[0].folder.name
    assert catalogue.named((unicodedata.normalize("NFKD", "놀림"),))


def test_a_file_of_a_model_is_sent_to_its_folder(folder, tmp_path, monkeypatch):
    for variant in ("int8", "float32"):
        file, mend = folder / f"small_{variant}.tflite", f"try {folder} --variant {variant}"
        with pytest.raises(SettingsError, match=f"{file}: expected the model's folder, got a file; {mend}$"):
            manifest.find_model(file)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.pt").touch()
    with pytest.raises(SettingsError, match="best.pt: expected the model's folder, got a file$"):
        manifest.find_model("best.pt")
