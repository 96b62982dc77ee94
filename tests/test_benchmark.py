from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from clips import write_clip
from patience import PATIENCE
from small_model import write_model

from edge_app.build import Analysis
from edge_app.cli import cli
from edge_app.commands import measure
from edge_app.commands.bench_tables import table
from edge_app.commands.benchmark import configurations
from edge_app.commands.live import live
from edge_app.commands.measure import Plan
from edge_app.commands.options import MODEL_SETTINGS, as_flags
from edge_app.errors import SettingsError
from edge_app.manifest import read_manifest
from edge_app.settings import Settings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def benchmark(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(model))
    fixed = ["benchmark", "--model", str(model), "--frames", "12", "--warm-up", "4", "--size", "320x240"]
    return lambda *arguments: CliRunner().invoke(cli, [*fixed, *map(str, arguments)])


def test_every_figure_is_there(benchmark, tmp_path):
    result = benchmark("--json", "--paced", 60, "--no-startup")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    stages = {"decode", "detect", "crop", "classify", "track", "decide", "draw"}
    assert stages <= set(found["alone_ms"]) and stages - {"draw"} <= set(found["analysis"]["ms"])
    assert {"draw", "encode"} <= set(found["annotate"]["ms"])
    assert all(0 <= spans["p50"] <= spans["p95"] <= spans["p99"] for spans in found["alone_ms"].values())
    floor = found["floor"]
    assert floor["ratio"] == pytest.approx(floor["analysis_cpu_ms"] / floor["floor_cpu_ms"])
    assert floor["faces"] == floor["floor_faces"] == 12
    assert found["overlap"]["ratio"] == pytest.approx(found["annotate"]["fps"] / found["overlap"]["allowed_fps"])
    assert found["paced"]["asked_fps"] == 60 and found["paced"]["age"]["p50"] > 0
    assert 50 < found["memory"]["peak_mb"] < 2000 and found["model"]["variant"] == "int8"
    assert list(tmp_path.iterdir()) == []


def test_the_tables_say_it_in_words(benchmark):
    result = benchmark("--paced", 60, "--no-startup")
    assert result.exit_code == 0, result.output
    for words in ("wall ms per frame", "classify", "end to end", "floor (bare detector", "overlap:", "live at 60 fps"):
        assert words in result.stdout


def test_startup_is_that_of_the_same_settings():
    asked = Settings(variant="float32", device="cpu", threads=2, detector="short", conf=0.6, min_size=9)
    assert live.make_context("live", as_flags(asked)).params["variant"] == "float32"
    assert len(as_flags(asked)) == len(MODEL_SETTINGS) and "--detector=short" in as_flags(asked)


def test_configurations_in_turn(benchmark):
    result = benchmark("--compare", "threads=1,2", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["compare"]
    assert [row["name"] for row in rows] == ["threads=1", "threads=2"]
    assert all(len(row["rounds"]) == 3 for row in rows)
    assert rows[0]["ratio"]["cpu_ms"] == [1, 1, 1]
    assert "frames/s ratio" in benchmark("--compare", "threads=1,2").stdout


def test_a_clip_has_a_floor_of_decoding_too(benchmark, tmp_path):
    clip = write_clip(tmp_path / "clip.avi", frames=6, size=(160, 120))
    result = benchmark("--source", clip, "--json", "--no-encode", "--no-startup")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["floor"]["decode"]["bare_cpu_ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--compare", "int8,int9"), "unknown variant 'int9'; did you mean 'int8'?"),
        (("--compare", "thread=1,2"), "unknown key 'thread'; did you mean 'threads'?"),
        (("--compare", "int8"), "expected at least two things"),
        (("--size", "big"), "expected WIDTHxHEIGHT"),
        (("--source", "missing.mp4"), "there is no such file"),
    ],
)
def test_bad_requests(benchmark, arguments, sentence):
    result = benchmark(*arguments)
    assert result.exit_code == 2 and sentence in result.stderr


def test_what_compare_names(model):
    manifest = read_manifest(model / "manifest.json")
    assert configurations("threads=1,2", manifest) == [{"threads": 1}, {"threads": 2}]
    assert configurations("int8, int8", manifest) == [{"variant": "int8"}] * 2
    assert configurations("detector=full,short", manifest) == [{"detector": "full"}, {"detector": "short"}]
    with pytest.raises(SettingsError, match="whole numbers"):
        configurations("threads=1,two", manifest)


def test_a_fresh_process_answers_in_time(model):
    found = measure.first_result(["--model", str(model)], repeats=1)
    assert 0.1 < found["seconds"] < 120 * PATIENCE and 50 < found["memory_mb"] < 1000


def test_memory_does_not_grow(model):
    plan = Plan("synthetic", 150, 10, size=(160, 120))
    with Analysis(Settings(model=str(model))) as analysis:
        for _ in range(2):
            measure.as_it_runs(plan, analysis)
        before = measure.resident_mb()
        for _ in range(3):
            measure.as_it_runs(plan, analysis)
        assert measure.resident_mb() < before * 1.03


def test_columns_stand_under_their_heads():
    assert table(["what", "ms"], [["detect", 3.14159], ["all", 10]]) == "what      ms\ndetect  3.14\nall       10"
