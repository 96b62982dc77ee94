"""Folds and comparisons of networks."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2


from tiny_training import TINY  # noqa: E402

from edge_app.errors import InputError, OutputError  # noqa: E402
from trainer.data import members  # noqa: E402
from trainer.export import trained  # noqa: E402
from trainer.folds import read_folds, summary  # noqa: E402
from trainer.recipe_file import read_recipe  # noqa: E402
from trainer.runs import Request, start  # noqa: E402

pytest_plugins = ("training_fixtures",)


def test_folds_of_which_some_lack_a_measure_are_summed_up() -> None:
    rows = [
        {"network": "a", "fold": "1", "accuracy": 0.5, "majority": 0.75},
        {"network": "a", "fold": "2", "accuracy": 1.0},
    ]
    for order in (rows, rows[::-1]):
        (line,) = summary(order)
        assert "accuracy 0.750 ± 0.354" in line and "majority 0.750 (one fold)" in line


def test_folds_hold_out_every_image_once(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("trainer.runs.CNN_EPOCHS", 1)
    lines = start(Request(TINY, data, ("stages.0.epochs=1",), tmp_path / "folds", folds=2, compare_cnn=True))
    with (tmp_path / "folds" / "folds.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["fold"]) for row in rows] == [
        ("residual", "1"),
        ("residual", "2"),
        ("cnn", "1"),
        ("cnn", "2"),
    ]
    assert lines[0].startswith("residual, 2 folds: emotion_accuracy") and lines[1].startswith("cnn, 2 folds")
    with pytest.raises(OutputError, match="holds a run already; go on with --resume"):
        start(Request(TINY, data, (), tmp_path / "folds", folds=2))
    (tmp_path / "full" / "of things").mkdir(parents=True)
    with pytest.raises(OutputError, match="is not empty"):
        start(Request(TINY, data, (), tmp_path / "full", folds=2))


def test_folds_leave_the_test_part_out(data: Path, tmp_path: Path) -> None:
    changes = ("stages.0.epochs=1", "data.test=0.3")
    start(Request(TINY, data, changes, tmp_path / "folds", folds=2))
    held = {one.item.file for one in members(read_recipe(TINY, changes), data)[0] if one.split == "test"}
    for fold in ("residual-1", "residual-2"):
        with (tmp_path / "folds" / fold / "split.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert held and not held & {row["file"] for row in rows} and len(rows) + len(held) == 120
    with pytest.raises(InputError, match="holds the runs of --folds; name one of them, such as .*residual-1"):
        trained(tmp_path / "folds")


def test_folds_that_were_stopped_go_on(data: Path, tmp_path: Path, monkeypatch) -> None:
    asked = Request(TINY, data, ("stages.0.epochs=2",), tmp_path / "whole", folds=2)
    whole = start(asked)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("trainer.callbacks.Patience.on_epoch_end", stop)
        start(replace(asked, output=tmp_path / "stopped"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("trainer.runs.write_folds", stop)
        start(Request(None, None, resume=tmp_path / "stopped"))
    again = start(Request(None, None, resume=tmp_path / "stopped"))
    assert again[:-1] == whole[:-1]
    for one, other in zip(*(read_folds(tmp_path / name / "folds.csv") for name in ("whole", "stopped")), strict=True):
        assert (one.pop("network"), one.pop("fold")) == (other.pop("network"), other.pop("fold"))
        assert one == pytest.approx(other, rel=2e-3, abs=1e-6)
    with pytest.raises(InputError, match="finished"):
        start(Request(None, None, resume=tmp_path / "stopped"))


def test_a_comparison_that_was_stopped_goes_on_with_both(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("trainer.runs.CNN_EPOCHS", 1)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("trainer.callbacks.Patience.on_epoch_end", stop)
        start(Request(TINY, data, ("stages.0.epochs=1",), tmp_path / "both", compare_cnn=True))
    again = Request(None, None, resume=tmp_path / "both", runs_dir=tmp_path / "of the settings")
    assert len(start(again)) == 2 and (tmp_path / "both" / "cnn" / "best.keras").is_file()
    with pytest.raises(InputError, match="finished"):
        start(again)


def test_damaged_scores_of_folds_have_their_sentence(tmp_path: Path) -> None:
    (tmp_path / "folds.csv").write_text("network,fold,teasing_f1\nresidual,1,0.9x\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"folds\.csv: cannot be read .*delete it"):
        read_folds(tmp_path / "folds.csv")
