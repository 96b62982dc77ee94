"""Recipes: every shipped one is valid; what is wrong gets its sentence."""

from __future__ import annotations

import pytest

yaml = pytest.importorskip("yaml")

from edge_app.errors import SettingsError  # noqa: E402
from trainer.recipe import earlier_stages  # noqa: E402
from trainer.recipe_file import RECIPES, apply, names, parse, read_recipe, write_recipe  # noqa: E402

TINY = {
    "name": "tiny",
    "family": "cnn",
    "heads": [{"name": "emotion", "labels": ["happy", "sad"]}],
    "stages": [{"name": "all", "epochs": 1, "learning_rate": 0.1}],
}


def changed(**changes: object) -> dict:
    return {**TINY, **changes}


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_is_valid_and_says_command_cost_and_score(name: str) -> None:
    recipe = read_recipe(name)
    comment = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("family:")[0].lower()
    assert recipe.name == name
    assert f"calmcam train {name}" in comment and "cost" in comment and "expect" in comment


def test_shipped_recipes_are_the_three_of_the_issue() -> None:
    assert names() == ["emotions", "multidomain", "teasing"]


def test_written_recipe_reads_back_the_same(tmp_path) -> None:
    recipe = read_recipe("multidomain", ("stages.fine.epochs=3",))
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(str(tmp_path / "recipe.yaml")) == recipe
    assert recipe.stages[2].epochs == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"famly": "cnn"}, "unknown key 'famly'; did you mean 'family'"),
        ({"input": {"sise": 48}}, "input: unknown key 'sise'; did you mean 'size'"),
        ({"input": {"size": "48"}}, "input: size: expected int, got '48'"),
        ({"input": {"colour": "grey"}}, "unknown value 'grey'; did you mean 'gray'"),
        ({"stages": []}, "at least one head and one stage"),
        ({"stages": [{"name": "all", "epochs": 0, "learning_rate": 0.1}]}, "epochs: expected 1 or more, got 0"),
        (
            {"stages": [{**TINY["stages"][0], "learning_rate": float("nan")}]},
            "learning_rate: expected a finite number, got nan",
        ),
        ({"stages": [{**TINY["stages"][0], "freeze": 7}]}, "freeze: expected 0 to 1, got 7.0"),
        ({"stages": [{**TINY["stages"][0], "warmup": 1, "schedule": "plateau"}]}, "warmup goes with schedule=cosine"),
        ({"select": "last", "stages": [{**TINY["stages"][0], "stop_after": 2}]}, "select=last looks at no measure"),
        ({"stages": [{**TINY["stages"][0], "loss_weights": {"emotion": "a"}}]}, "emotion: expected float, got 'a'"),
        ({"heads": [TINY["heads"][0], TINY["heads"][0]]}, "expected different names, got emotion, emotion"),
        ({"stages": [TINY["stages"][0], TINY["stages"][0]]}, "stages: expected different names, got all, all"),
        ({"data": {"validation": 0}}, "validation: expected 0.01 to 0.9, got 0.0"),
        ({"input": {"size": 2}}, "size: expected 8 to 1024, got 2"),
        ({"export": {"variants": ["in8"]}}, "unknown value 'in8'; did you mean 'int8'"),
        ({"export": {"files": {"kera": "x"}}}, "export.files: unknown key 'kera'; did you mean 'keras'"),
        ({"stages": [{"name": "all", "learning_rate": 0.1}]}, "the key 'epochs' is missing"),
        ({"heads": [{"name": "x", "labels": ["happy"]}]}, "two or more different labels"),
        *(
            ({"heads": [{"name": name, "labels": ["a", "b"]}]}, f"heads.{name}: expected a name of Latin letters")
            for name in ("킹받음", "my shy", "", "a/b", "dropout", "split")
        ),
        ({"heads": [{"name": "x", "kind": "sigmoid", "labels": ["a", "b", "c"]}]}, "a sigmoid head has two labels"),
        ({"batch": True}, "batch: expected int, got True"),
        (
            {"select": "f1", "heads": [{"name": "x", "labels": ["a", "b", "c"]}]},
            "select: f1 is of the second of two labels",
        ),
        (
            {"stages": [{"name": "all", "epochs": 1, "learning_rate": 0.1, "teacher_share": 0.5}]},
            "stages.all: teacher_share needs an earlier stage",
        ),
        (
            {
                "stages": [
                    {"name": "one", "epochs": 1, "learning_rate": 0.1},
                    {"name": "two", "epochs": 1, "learning_rate": 0.1, "start": "one+tow"},
                ]
            },
            "stages.two.start: unknown key 'tow'",
        ),
    ],
)
def test_what_is_wrong_is_named(changes: dict, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        parse(changed(**changes), "tiny.yaml")


def test_loss_weight_of_an_unknown_head_is_refused() -> None:
    stage = {"name": "all", "epochs": 1, "learning_rate": 0.1, "loss_weights": {"emotoin": 1.0}}
    with pytest.raises(SettingsError, match="did you mean 'emotion'"):
        parse(changed(stages=[stage]), "tiny.yaml")


@pytest.mark.parametrize(
    ("change", "way", "value"),
    [
        ("batch=16", lambda r: r.batch, 16),
        ("input.size=24", lambda r: r.input.size, 24),
        ("stages.0.epochs=5", lambda r: r.stages[0].epochs, 5),
        ("stages.0.learning_rate=1e-4", lambda r: r.stages[0].learning_rate, 0.0001),
        ("stages.all.learning_rate=1", lambda r: r.stages[0].learning_rate, 1.0),
        ("options.channels=[8, 16]", lambda r: r.options["channels"], [8, 16]),
        ("heads.emotion.labels=[a, b]", lambda r: r.heads[0].labels, ("a", "b")),
    ],
)
def test_set_reaches_keys_and_entries_by_position_or_name(change: str, way, value: object) -> None:
    raw = {**TINY, "stages": [dict(TINY["stages"][0])], "heads": [dict(TINY["heads"][0])]}
    apply(raw, change)
    assert way(parse(raw, "tiny.yaml")) == value


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("batch", "expected key.sub=value"),
        ("stages.fine.epochs=5", "unknown entry 'fine'"),
        ("family.size=5", "it has no key 'size'"),
        ("bach=5", "did you mean 'batch'"),
        ("heads.0.labels=[angry", "expected a value in YAML, got '.angry'"),
    ],
)
def test_set_refuses_what_it_cannot_reach(change: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        read_recipe("emotions", (change,))


def test_an_unknown_head_has_its_sentence() -> None:
    with pytest.raises(SettingsError, match="emotions: unknown head 'emotoin'; did you mean 'emotion'"):
        read_recipe("emotions").head("emotoin")


def test_unknown_recipe_and_broken_yaml(tmp_path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'emotions'"):
        read_recipe("emotion")
    (tmp_path / "broken.yaml").write_text("family: [", encoding="utf-8")
    with pytest.raises(SettingsError, match="expected YAML"):
        read_recipe(str(tmp_path / "broken.yaml"))
    with pytest.raises(SettingsError, match=r"mine\.yaml: there is no such recipe file"):
        read_recipe(str(tmp_path / "mine.yaml"))


def test_a_stage_starts_from_the_one_before_from_all_or_from_those_it_names() -> None:
    stages = [{"name": name, "epochs": 1, "learning_rate": 0.1} for name in "abcd"]
    for start, expected in (("best", [2]), ("average", [0, 1, 2]), ("a", [0]), ("b+c", [1, 2])):
        recipe = parse({**TINY, "stages": [*stages[:3], {**stages[3], "start": start}]}, "x.yaml")
        assert earlier_stages(recipe, 3) == expected
