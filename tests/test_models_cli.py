from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_model import write_model

from edge_app import devices
from edge_app.catalogue import APART, agreement, best_score, score_text
from edge_app.cli import cli
from edge_app.manifest import Head, find_model, read_manifest, sha256, write_manifest

SCORES = tuple(
    {
        "variant": variant,
        "head": "mood",
        "split": split,
        "metric": metric,
        "value": value,
        "n": 1000,
        "interval": [0.6, 0.8],
    }
    for variant, split, metric, value in (
        ("int8", "validation", "accuracy", 0.9),
        ("int8", "test", "accuracy", 0.70),
        ("float32", "test", "accuracy", 0.71),
        ("int8", "test", "macro_f1", 0.95),
    )
)


@pytest.fixture(autouse=True)
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return tmp_path / "share" / "calmcam" / "models"


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["models", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def test_list_shows_own_and_bundled_models_and_names_the_broken(own_models):
    write_model(own_models / "small", scores=SCORES)
    (own_models / "torn").mkdir()
    (own_models / "torn" / "manifest.json").write_text("{")
    code, out, _ = run("list")
    assert code == 0
    assert "face_detection" in out and "mood: happy sad neutral" in out and "tease: non_teasing teasing" in out
    assert "accuracy of mood 0.700 (0.600 to 0.800)" in out and "test n=1,000, int8" in out
    assert f"broken: {own_models}/torn/manifest.json: expected JSON" in out
    assert run()[1] == run("list", "-v")[1] == out


def test_list_of_a_folder_as_json(tmp_path):
    write_model(tmp_path / "shelf" / "a")
    write_model(tmp_path / "shelf" / "b", scores=SCORES)
    code, out, _ = run("list", tmp_path / "shelf", "--json")
    found = json.loads(out)
    assert code == 0 and [model["name"] for model in found] == ["small", "small"]
    assert [model["best_score"] and model["best_score"]["value"] for model in found] == [None, 0.7]


def test_show_takes_a_name_or_a_folder(own_models, tmp_path):
    folder = write_model(own_models / "small", scores=SCORES, data="none", command="calmcam train")
    (folder / "CARD.md").write_text("# small")
    code, out, _ = run("show", "small")
    assert code == 0 and run("show", folder)[1] == out
    assert "CARD.md" in out
    assert "softmax over happy, sad, neutral; confidences are not calibrated" in out and "takes 32 x 32 rgb uint8" in out
    assert sha256(folder / "small_int8.tflite")[:12] in out


def test_show_prints_the_scores_of_what_runs_and_of_float32(tmp_path):
    scores = [SCORES[1] | {"variant": variant} for variant in ("int8", "float32", "float16", "dynamic")]
    out = run("show", write_model(tmp_path / "small", scores=scores))[1]
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("score")] == ["int8", "float32"]
    out = run("show", write_model(tmp_path / "other", scores=scores[2:]))[1]
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("score")] == ["float16", "dynamic"]


def test_show_names_the_compiler_of_a_hef(tmp_path):
    manifest = read_manifest(write_model(tmp_path / "small") / "manifest.json")
    made = manifest.artifact("int8")
    for version, told in (("3.33.1", "hailo8 with the Dataflow Compiler 3.33.1"), ("unknown", "")):
        entry = replace(made, compiler={"compiler": version, "runtime": "unknown"})
        write_manifest(replace(manifest, artifacts={"int8": made, "hailo8": entry}))
        compiled = [line.split(None, 1)[1] for line in run("show", tmp_path / "small")[1].splitlines() if "compiled" in line]
        assert [line.strip() for line in compiled] == ([told] if told else [])


def test_verify_all_is_good():
    code, out, _ = run("verify", "face_detection")
    assert code == 0 and out.splitlines() == [
        "ok face_detection full: hash agrees, loads", "ok face_detection short: hash agrees, loads"]  # fmt: skip


def test_verify_lets_a_model_answer(tmp_path):
    code, out, _ = run("verify", write_model(tmp_path / "small"))
    assert code == 0 and "ok small int8: hash agrees, loads, answers (cpu)" in out.splitlines()


def test_int8_and_float32_of_the_bundled_model_agree(tmp_path):
    trial = agreement(find_model("emotions"), devices.open_backend)
    assert trial.good and float(trial.text.split()[-1]) < APART / 4


def test_a_processor_that_computes_int8_wrongly_is_noticed(tmp_path):
    class Stuck:
        """LiteRT where int8 always gives the same: seen of XNNPACK on an emulated processor."""

        def __init__(self, artifact):
            self._backend, self._stuck = devices.open_backend(artifact), artifact.input.dtype == "uint8"
            self.close = self._backend.close

        def infer(self, batch):
            outputs = self._backend.infer(batch)
            return {name: values * 0 + np.arange(values.shape[1]) * self._stuck + values * (not self._stuck)
                    for name, values in outputs.items()}  # fmt: skip

    trial = agreement(find_model("emotions"), Stuck)
    assert not trial.good and "this processor computes int8 wrongly" in trial.text and "--variant float32" in trial.text


def test_verify_finds_a_flipped_byte_and_goes_on(tmp_path):
    write_model(tmp_path / "shelf" / "good")
    path = write_model(tmp_path / "shelf" / "bad") / "small_int8.tflite"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    code, out, _ = run("verify", tmp_path / "shelf", "--json")
    rows = json.loads(out)
    bad = [row for row in rows if not row["good"]]
    assert code == 1 and len(bad) == 1 and len(rows) > 1
    assert (bad[0]["variant"], "expected sha256" in bad[0]["text"]) == ("int8", True)


def test_verify_finds_labels_that_the_tensor_does_not_have(tmp_path):
    heads = (Head("mood", "softmax", ("a", "b", "c", "d")), Head("tease", "sigmoid", ("non_teasing", "teasing")))
    code, out, _ = run("verify", write_model(tmp_path / "small", heads=heads))
    assert code == 1 and "expected 4 values for softmax over 4 labels, got 3" in out


def test_verify_checks_the_hash_of_a_hef_where_there_is_no_hailo(tmp_path):
    folder = write_model(tmp_path / "small")
    hef = folder / "small.hef"
    hef.write_bytes(b"\x01HEF")
    raw = json.loads((folder / "manifest.json").read_text())
    entry = {**raw["artifacts"]["int8"], "file": hef.name, "sha256": sha256(hef), "bytes": 4}
    raw["artifacts"] = {"hailo8": entry}
    (folder / "manifest.json").write_text(json.dumps(raw))
    code, out, _ = run("verify", folder)
    assert "small hailo8: " in out and len(out.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "face_detectoin"), "unknown model 'face_detectoin'; did you mean 'face_detection'"),
        (("verify", "nothing_like_it"), "unknown model 'nothing_like_it'"),
        (("list", "empty"), "no model there"),
    ],
)
def test_unknown_models_get_a_sentence(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, _, err = run(*words)
    assert code == 2 and sentence in err


def test_show_of_a_broken_manifest_is_its_sentence(tmp_path):
    (tmp_path / "manifest.json").write_text("[]")
    code, _, err = run("show", tmp_path)
    assert code == 2 and "manifest.json" in err


def test_best_score_is_the_test_accuracy_of_what_runs(tmp_path):
    manifest = read_manifest(write_model(tmp_path / "m", scores=SCORES) / "manifest.json")
    assert best_score(manifest)["value"] == 0.70
    assert best_score(find_model("face_detection")) is None
    assert score_text(None) == "not stated"


def test_best_score_is_the_first_heads(tmp_path):
    scores = [
        {**SCORES[0], "metric": "accuracy", "head": head, "value": n} for head, n in (("tease", 0.96), ("mood", 0.44))
    ]
    manifest = read_manifest(write_model(tmp_path / "m", scores=scores) / "manifest.json")
    assert manifest.heads[0].name == "mood" and best_score(manifest)["value"] == 0.44
    assert score_text(best_score(manifest), of_head=True).startswith("accuracy of mood 0.440 ")
