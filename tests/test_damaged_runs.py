"""Runs and data that were damaged, changed or moved: one sentence each, and nothing lost."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pictures  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from patience import PATIENCE  # noqa: E402

from edge_app.cli import cli  # noqa: E402
from edge_app.errors import CalmcamError, InputError, OutputError, SettingsError  # noqa: E402
from trainer.data import load_run  # noqa: E402
from trainer.recipe_file import read_recipe  # noqa: E402
from trainer.runs import Request, start  # noqa: E402
from trainer.teacher import Teacher  # noqa: E402

ROOT = Path(__file__).parent.parent
TINY = str(Path(__file__).parent / "cases" / "tiny.yaml")
LABELS = ("angry", "happy", "neutral")
TWO = ("stages=[{name: one, epochs: 1, learning_rate: 0.01}, {name: two, epochs: 2, learning_rate: 0.01}]",)


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    pictures.write(folder / "train", LABELS, 12)
    return folder


@pytest.fixture
def data(pool: Path, tmp_path: Path) -> Path:
    """Pictures that a test may spoil."""
    return Path(shutil.copytree(pool, tmp_path / "data"))


@pytest.fixture(scope="module")
def stopped(pool: Path, tmp_path_factory) -> Path:
    """A run that was killed in its second stage."""
    out = tmp_path_factory.mktemp("runs") / "stopped"

    def stop(self: object, epoch: int, logs: object = None) -> None:
        if self._state.epoch == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("trainer.callbacks.Patience.on_epoch_end", stop)
        start(Request(TINY, pool, TWO, out))
    return out


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def flip(path: Path) -> None:
    """Change bytes in the middle."""
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 3, 2 * len(content) // 3, 97):
        content[place] ^= 0xFF
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:-5]), encoding="utf-8")


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda run: flip(run / "checkpoint.npz"), "checkpoint.npz: no checkpoint to go on from"),
        (lambda run: (run / "checkpoint.npz").write_bytes(b""), "checkpoint.npz: no checkpoint to go on from"),
        (lambda run: np.savez(run / "checkpoint.npz", counters=np.array([3])), "no checkpoint to go on from"),
        (lambda run: (run / "best.keras").unlink(), "best.keras: missing, the best weights so far"),
        (lambda run: (run / "run.json").write_text("{}"), "run.json: finished: cannot be None"),
        (lambda run: change(run / "run.json", data=5), "run.json: data: cannot be 5"),
        (lambda run: change(run / "run.json", backend=5), "run.json: backend: cannot be 5"),
        (lambda run: change(run / "run.json", precision="bad"), "precision: .*bad"),
        (lambda run: change(run / "run.json", beside=None), "run.json: beside: cannot be None"),
        (lambda run: (run / "split.csv").write_text(""), "split.csv: expected pictures of train and validation"),
        (lambda run: (run / "split.csv").write_bytes(b"\xff\xfe\x00"), "split.csv: expected pictures"),
        (lambda run: shorten(run / "split.csv"), "split.csv is not what the run began with"),
        (lambda run: (run / "recipe.yaml").write_text("name: 2024-13-45"), "recipe.yaml: expected YAML"),
    ],
)
def test_a_damaged_run_is_not_gone_on_with(run: Path, spoil, sentence: str) -> None:
    spoil(run)
    with pytest.raises(CalmcamError, match=sentence):
        start(Request(None, None, resume=run))


def test_a_run_goes_on_with_the_backend_and_the_precision_that_it_was_begun_with(run: Path, monkeypatch) -> None:
    begun = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (begun["backend"], begun["precision"]) == (keras.backend.backend(), "float32")
    change(run / "run.json", backend="other", precision="mixed_bfloat16")
    before = (run / "run.json").read_bytes()
    words = f"run: was begun with KERAS_BACKEND=other; go on with KERAS_BACKEND=other calmcam train --resume {run}"
    with pytest.raises(SettingsError, match=words):
        start(Request(None, None, resume=run))
    assert (run / "run.json").read_bytes() == before
    asked = []
    monkeypatch.setattr("trainer.train.precision", lambda wanted: asked.append(wanted) or "float32")
    change(run / "run.json", backend=begun["backend"])
    start(Request(None, None, resume=run))
    assert set(asked) == {"mixed_bfloat16"}


def test_labels_that_changed_since_are_told(run: Path, data: Path) -> None:
    (data / "train" / "angry" / "0003.png").rename(data / "train" / "happy" / "0003b.png")
    with pytest.raises(InputError, match="1 pictures have another label .*angry/0003.png is train/happy/0003b.png now"):
        start(Request(None, data, resume=run))
    with pytest.raises(InputError, match="another label"):
        load_run(run, data)


def test_two_do_not_work_on_one_run(run: Path, data: Path, tmp_path: Path) -> None:
    for place, request in (
        (run, Request(None, None, resume=run)),
        (tmp_path / "new", Request(TINY, data, (), tmp_path / "new")),
    ):
        place.mkdir(exist_ok=True)
        before = sorted(place.iterdir())
        handle = os.open(place, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another calmcam works on this run"):
            start(request)
        os.close(handle)
        assert sorted(place.iterdir()) == before


def test_a_stopped_run_says_how_to_go_on(data: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.callbacks.Patience.on_epoch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        start(Request(TINY, data, ("stages.0.epochs=1",), tmp_path / "run"))
    assert f"stopped; go on with --resume {tmp_path / 'run'}" in caplog.text


def test_a_run_that_a_signal_stopped_says_so_too(data: Path, tmp_path: Path) -> None:
    """As a lost SSH connection sends it."""
    out = tmp_path / "run"
    words = ["train", TINY, "--data", data, "-o", out, "--set", "stages.0.epochs=5000", "--device", "cpu"]
    command = [sys.executable, "-m", "edge_app", *map(str, words)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=_hears) as process:
        while process.poll() is None and not (out / "checkpoint.npz").exists():
            threading.Event().wait(0.05)
        process.send_signal(signal.SIGHUP)
        said = process.communicate(timeout=60 * PATIENCE)[1]
    assert process.returncode == 129, said
    assert f"{out}: stopped; go on with --resume {out}\nstopped\n" in said and "Traceback" not in said


@pytest.mark.parametrize(("words", "says"), [((), True), (("--log-level", "error"), False)])
def test_the_trainer_is_as_quiet_as_it_is_told(data: Path, words: tuple[str, ...], says: bool) -> None:
    """With few pictures it warns; how far it is, it says unless a level is named."""
    asked = ["train", TINY, "--data", str(data), "-o", str(data.parent / "run"), "--set", "stages.0.epochs=1"]
    done = CliRunner().invoke(cli, [*words, *asked])
    assert done.exit_code == 0, done.output
    assert ("INFO trainer" in done.stderr, "WARNING trainer" in done.stderr) == (says, says), done.stderr


@pytest.mark.parametrize(
    "words", [["--resume", "none"], ["nothing"], ["teasing"], ["teasing", "--data", ".", "--set", "no.such=1"], []]
)
def test_what_is_wrong_is_told_before_a_backend_is_loaded_for_it(tmp_path: Path, words: list[str]) -> None:
    code = f"""import sys
from click.testing import CliRunner
from edge_app.cli import cli
done = CliRunner().invoke(cli, ["train", *{words}])
print(done.exit_code, done.stderr.startswith("Error"), "keras" in sys.modules)"""
    around = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=around, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 True False\n", done.stderr


def _hears() -> None:
    """Whatever these tests were started with: nohup has it ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_answers_of_teachers_that_were_damaged_are_asked_for_anew(pool: Path, tmp_path: Path) -> None:
    recipe = read_recipe(TINY)
    images, kept = np.zeros((3, 24, 24, 1), np.uint8), tmp_path / "teacher-1.npz"
    targets = {"emotion": np.eye(3, dtype=np.float32)}

    class Same:
        def predict_on_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
            return {"emotion": np.zeros((len(images), 3), np.float32)}

    first = Teacher([Same()], recipe, 0.5).settled(images, targets, 1, kept)["emotion"]
    assert first[0] == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    for content in (b"", kept.read_bytes()[:-40]):
        kept.write_bytes(content)
        assert (Teacher([Same()], recipe, 0.5).settled(images, targets, 1, kept)["emotion"] == first).all()


@pytest.mark.parametrize(
    "crop", [{"margin": "wide"}, {"margin": 99}, {"align": "sideways"}, {"margin": float("nan")}, [1]]
)
def test_a_crop_that_cannot_be_is_refused_before_training(data: Path, tmp_path: Path, crop: object) -> None:
    (data / "crop.json").write_text(json.dumps({"crop": crop}), encoding="utf-8")
    with pytest.raises(InputError, match=r"crop.json: expected .*margin, shift, align.*remove it"):
        start(Request(TINY, data, (), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_pipe_among_the_pictures_is_left_out(data: Path, tmp_path: Path) -> None:
    os.mkfifo(data / "train" / "angry" / "zz.png")
    lines = start(Request(TINY, data, (), tmp_path / "check", check=True))
    assert any("zz.png: expected a picture file, got a pipe" in line for line in lines)


@pytest.mark.skipif(sys.getfilesystemencoding() != "utf-8", reason="names are bytes there")
def test_names_that_are_no_unicode_are_learnt_from(data: Path, tmp_path: Path) -> None:
    odd = os.fsdecode("한글.png".encode("cp949"))  # as Windows packs it
    (data / "train" / "angry" / "0000.png").rename(data / "train" / "angry" / odd)
    start(Request(TINY, data, ("stages.0.epochs=1",), tmp_path / "run"))
    assert (
        f"train/angry/{odd}"
        in load_run(tmp_path / "run", data)["train"].files + load_run(tmp_path / "run", data)["validation"].files
    )


def test_groups_are_found_however_hangul_is_written(data: Path, tmp_path: Path, caplog) -> None:
    for number in range(12):
        file = data / "train" / "angry" / f"{number:04}.png"
        file.rename(file.with_name(unicodedata.normalize("NFD", f"사람{number}.png")))
    rows = [f"train/angry/사람{number}.png,kim" for number in range(12)]
    (data / "groups.csv").write_text("\n".join(["file,group", *rows]), encoding="utf-8")
    with pytest.raises(InputError, match="no image of angry"):  # one group cannot be divided
        start(Request(TINY, data, ("data.groups_file=groups.csv",), tmp_path / "run"))


def test_the_labels_that_are_proposed_can_be_pasted(pool: Path, tmp_path: Path) -> None:
    for name, place in (("no", "angry"), ("yes", "happy")):
        shutil.copytree(pool / "train" / place, tmp_path / "data" / name)
    with pytest.raises(InputError, match="--set 'heads.0.labels") as caught:
        start(Request(TINY, tmp_path / "data", (), tmp_path / "run"))
    change = str(caught.value).partition("--set '")[2].partition("'")[0]
    assert read_recipe(TINY, (change,)).heads[0].labels == ("no", "yes")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (("seed=4294967296",), "seed: expected 0 to 4294967295"),
        (("stages.0.teacher_share=0.5", "stages.0.teachers=[]"), "teacher_share needs teachers"),
        (("stages.0.name=../../x",), "expected a plain name"),
        (("export.files={int8: ../x.tflite}",), "expected a plain name"),
        (("export.files={int8: manifest.json}",), "expected a plain name"),
        (("export.files={weights: w.h5}",), "a name that ends with .weights.h5"),
        (("heads.0.class_weights={angry: -1}",), "angry: expected 0 or more"),
        (("heads.0.class_weights={angry: .nan}",), "angry: expected a finite number"),
        (("heads.0.labels=[no, yes]",), "expected str, got False; YAML takes a bare yes"),
        (("heads.0.class_weights={sad: 2.0}",), "heads.emotion.class_weights={}'"),
        (("augment.rotate=.nan",), "rotate: expected a finite number"),
        (("augment.shift=.inf",), "shift: expected a finite number"),
        (("crop.margin=5",), "margin: expected -0.49 to 2"),
    ],
)
def test_values_that_would_train_nonsense_are_refused(changes: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        read_recipe(TINY, changes)


def test_a_head_over_the_data_sets_names_them(data: Path, tmp_path: Path) -> None:
    heads = [
        {"name": "a", "labels": [*LABELS], "data": "a"},
        {"name": "domain", "labels": ["lab", "wild"], "data": "*"},
    ]
    with pytest.raises(InputError, match=r"heads.domain.labels: expected names of data sets \(a\), got lab, wild"):
        start(Request(TINY, {"a": data}, (f"heads={json.dumps(heads)}",), tmp_path / "run"))
