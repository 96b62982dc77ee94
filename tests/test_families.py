"""Networks, and the weights that they start from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2

import cv2
import keras  # noqa: E402
import pictures  # noqa: E402
from small_model import write_model  # noqa: E402
from tiny_training import LABELS, TINY  # noqa: E402

from edge_app.errors import InputError, ModelError, SettingsError  # noqa: E402
from edge_app.manifest import read_manifest, sha256  # noqa: E402
from edge_app.seen import marks, write_seen  # noqa: E402
from trainer import families  # noqa: E402
from trainer.average import fitting  # noqa: E402
from trainer.data import read_split  # noqa: E402
from trainer.recipe_file import read_recipe  # noqa: E402
from trainer.runs import Request, plain_cnn, start  # noqa: E402
from trainer.train import network  # noqa: E402
from trainer.weights import resolve, start_weights, write_backbone  # noqa: E402

pytest_plugins = ("training_fixtures",)
ONCE = "stages.0.epochs=1"


def test_a_backbone_that_learnt_what_judges_is_refused(data: Path, run: Path, tmp_path: Path) -> None:
    for place in (run, run / "best.keras"):
        with pytest.raises(
            SettingsError,
            match=r"cannot be the backbone here; it learnt from [1-9][0-9]* of the pictures that judge, train/.*\.png for one; train it",
        ):
            start(Request(TINY, data, (ONCE, f"backbone={place}", "data.seed=5"), tmp_path / place.name))
        assert not (tmp_path / place.name).exists()
    with pytest.raises(SettingsError, match="cannot be the backbone here.*with --folds every picture judges once"):
        start(Request(TINY, data, (ONCE, f"backbone={run}"), tmp_path / "folds", folds=2))
    start(Request(TINY, data, (ONCE, f"backbone={run}", "seed=2"), tmp_path / "alike"))
    told = json.loads((run / "run.json").read_text())
    shutil.copytree(run, tmp_path / "killed")
    (tmp_path / "killed" / "run.json").write_text(json.dumps(told | {"finished": False}))
    with pytest.raises(InputError, match="killed: is not finished; go on with calmcam train --resume"):
        start(Request(TINY, data, (ONCE, f"backbone={tmp_path / 'killed'}"), tmp_path / "from-killed"))


@pytest.fixture(scope="module")
def later(run: Path, tmp_path_factory) -> Path:
    """A run that began with `run`, which is gone, and learnt from other pictures."""
    folder = tmp_path_factory.mktemp("later")
    pictures.write(folder / "data" / "train", LABELS, 20, seed=7)
    shutil.copytree(run, folder / "first")
    start(Request(TINY, folder / "data", (ONCE, f"backbone={folder / 'first'}"), folder / "second"))
    shutil.rmtree(folder / "first")
    return folder / "second"


def test_what_a_backbone_or_a_teacher_began_with_learnt_counts_too(
    data: Path, run: Path, later: Path, tmp_path: Path
) -> None:
    assert json.loads((later / "run.json").read_text())["backbone_sha256"] == sha256(run / "best.keras")
    taught = (f"stages.0.teachers=[{later}]", "stages.0.teacher_share=0.5")
    for changes, role in (((f"backbone={later}",), "be the backbone"), (taught, "teach")):
        with pytest.raises(SettingsError, match=f"cannot {role} here; it learnt from [1-9][0-9]* of the pictures that"):
            start(Request(TINY, data, (ONCE, "data.seed=5", *changes), tmp_path / "other"))
        start(Request(TINY, data, (ONCE, *changes), tmp_path / role))
    with pytest.raises(InputError, match="learnt from 45 pictures that"):
        fitting([run, tmp_path / "teach"])
    fitting([tmp_path / "teach", run])


def test_of_a_model_what_it_learnt_from_may_not_judge_and_what_it_was_chosen_on_may(
    data: Path, run: Path, tmp_path: Path, monkeypatch
) -> None:
    model, rows = tmp_path / "emotions", read_split(run / "split.csv")
    model.mkdir()
    write_backbone(keras.models.load_model(run / "best.keras"), run / "recipe.yaml", model / "backbone.npz")
    parts = (marks(row["sha256"] for row in rows if row["split"] == part) for part in ("train", "validation"))
    write_model(model, origin={"seen": write_seen(model, *parts)})
    monkeypatch.setattr("trainer.record.find_model", lambda _: read_manifest(model / "manifest.json"))
    for backbone in ("emotions", str(model)):
        with pytest.raises(SettingsError, match="learnt from [1-9][0-9]* of the pictures that judge, .*; take other"):
            start(Request(TINY, data, (ONCE, f"backbone={backbone}", "data.seed=5"), tmp_path / "other"))
    start(Request(TINY, data, (ONCE, "backbone=emotions"), tmp_path / "alike"))
    start(Request(TINY, data, (ONCE, f"backbone={tmp_path / 'alike'}"), tmp_path / "again"))


def test_a_backbone_brings_its_input_but_not_its_crop_where_one_was_asked_for() -> None:
    assert resolve(read_recipe("teasing")).crop == read_recipe("emotions").crop
    assert resolve(read_recipe("teasing", ("crop.margin=0.3",))).crop.margin == 0.3


def test_from_nothing_nothing_is_frozen_and_the_plain_cnn_may_finish() -> None:
    recipe = resolve(read_recipe("teasing", ("backbone=none",)))
    assert [stage.freeze for stage in recipe.stages] == [0.0, 0.0]
    (stage,) = plain_cnn(recipe).stages
    assert (stage.epochs, stage.stop_after, stage.freeze) == (40, 0, 0.0)


def test_a_backbone_brings_its_network_and_weights(run: Path, tmp_path: Path) -> None:
    recipe = read_recipe("teasing", (f"backbone={run}",))
    resolved = resolve(recipe)
    assert (resolved.family, resolved.input.size, resolved.options["dropout"]) == ("residual", 24, 0.3)
    model = network(resolved)
    assert start_weights(model, resolved, np.empty(0)) == 4
    source = keras.models.load_model(run / "best.keras", compile=False)
    assert np.array_equal(
        model.get_layer("s1_in_conv").get_weights()[0], source.get_layer("s1_in_conv").get_weights()[0]
    )
    write_backbone(source, run / "recipe.yaml", tmp_path / "backbone.npz")
    assert (tmp_path / "recipe.yaml").read_bytes() == (run / "recipe.yaml").read_bytes()
    again = network(resolved)
    assert start_weights(again, read_recipe(TINY, (f"backbone={tmp_path}",)), np.empty(0)) == 4


@pytest.mark.parametrize("family", families.known())
def test_every_family_keeps_the_contract(family: str) -> None:
    model = families.build(family, (48, 48, 3), {"a": 3, "b": 1}, {})
    out = model(np.full((1, 48, 48, 3), 128, np.float32))
    assert {name: tuple(value.shape) for name, value in out.items()} == {"a": (1, 3), "b": (1, 1)}
    assert [item.name for item in model.inputs] == ["image"] and model.get_layer("pool") is not None


def test_smooth_pooling_feels_a_step_of_a_pixel_less() -> None:
    """Features of the untrained network before its head, for a picture and for the same one a pixel aside."""
    scene = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (49, 49), np.uint8), (0, 0), 2)
    pair = np.stack([scene[:48, :48], scene[:48, 1:]])[..., None].astype(np.float32)
    changes = []
    for smooth in (False, True):
        keras.utils.set_random_seed(1)
        model = families.build("residual", (48, 48, 1), {"a": 3}, {"smooth": smooth, "dropout": 0.0})
        features = keras.Model(model.inputs, model.get_layer("pool").output).predict_on_batch(pair)
        changes.append(np.abs(features[0] - features[1]).mean() / np.abs(features).mean())
    assert changes[1] < 0.9 * changes[0]


def test_unknown_family_and_option() -> None:
    with pytest.raises(SettingsError, match="did you mean 'residual'"):
        families.build("residul", (24, 24, 1), {"a": 2}, {})
    with pytest.raises(SettingsError, match="did you mean 'dropout'"):
        families.build("cnn", (24, 24, 1), {"a": 2}, {"dropuot": 0.1})
    with pytest.raises(SettingsError, match="colour=rgb"):
        families.build("efficientnet_b0", (48, 48, 1), {"a": 2}, {})


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        (("options.channels=5",), SettingsError, "family residual: cannot be built with options"),
        (("options.dropout=2",), SettingsError, "cannot be built with options"),
        (("options.blocks=[1]",), SettingsError, "cannot be built with options"),
        (("backbone=/no/such.keras",), ModelError, "/no/such.keras: expected a .keras file"),
        (("backbone=/no/such.dat",), ModelError, "/no/such.dat: "),
        (
            ("backbone=resnet50",),
            ModelError,
            "unknown backbone 'resnet50' .known: dlib, emotions, imagenet, none.; or name a .keras",
        ),
        (("backbone=imagnet",), ModelError, "unknown backbone 'imagnet'; did you mean 'imagenet'?"),
        (
            ("stages.0.teacher_share=0.5", "stages.0.teachers=[/no/run]"),
            SettingsError,
            "/no/run: expected the folder of a training run",
        ),
        (("backbone=imagenet",), SettingsError, "family residual: has no ImageNet weights"),
    ],
)
def test_a_network_that_cannot_be_leaves_no_run(
    data: Path, tmp_path: Path, changes: tuple, kind: type, sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        start(Request(TINY, data, changes, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_pretrained_weights_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**_: object) -> None:
        raise Exception("URL fetch failure on https://example.org/weights.h5: None")  # as Keras says it

    offline.__name__ = "EfficientNetB0"
    with pytest.raises(ModelError, match="cannot be downloaded .*--set backbone=none"):
        families.application(offline, (48, 48, 3), "imagenet")
