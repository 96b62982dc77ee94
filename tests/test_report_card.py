from __future__ import annotations

import dataclasses
import html.parser
import re

import numpy as np
import pytest

pytest.importorskip("keras")

from edge_app.manifest import Artifact, Head, Input, Manifest
from trainer import card, finalscore, parity, report
from trainer.recipe_file import parse
from trainer.study import Study

HEAD = Head("mood", "softmax", ("행복", "so <sad> $^$"), temperature=2.0, unsure_below=0.6)
RECIPE = {
    "name": "tiny",
    "family": "residual",
    "heads": [{"name": "mood", "labels": list(HEAD.labels)}],
    "stages": [{"name": "all", "epochs": 1, "learning_rate": 0.1}],
}
VOID = {"meta", "img"}


@pytest.fixture
def study(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    logits = np.stack([-truth, truth], axis=1) * 2.0 + rng.normal(0, 2, (200, 2))
    labels, answers = {"mood": truth}, {"mood": logits}
    (tmp_path / "split.csv").write_text("file,sha256,split,group,mood\n")
    (tmp_path / "recipe.yaml").write_text("name: tiny  # <not a tag>\n")
    spec = Input(48, 48, "gray", "uint8")
    artifact = Artifact(tmp_path / "int8.tflite", "0" * 64, 2_500_000, spec, {"mood": "mood"})
    study = Study(
        name="tiny",
        recipe=parse(RECIPE, "test"),
        record={"command": "calmcam train tiny", "data_sha256": {"train": "abc"}, "versions": {"keras": "3"}},
        run=tmp_path,
        heads=(HEAD,),
        chief="int8",
        counts={"train": labels, "test": labels},
        gates=[parity.Parity("int8", "keras", "mood", 200, 0.99, 0.1, 0.002)],
        scored=finalscore.score_parts("int8", (HEAD,), answers, {"test": labels}, range(200)),
        latency_ms={"int8": 0.5},
        licence="none",
        about="numbers & dice",
        command="calmcam export tiny",
        truth={"test": labels},
        logits={"test": answers},
    )
    study.manifest = Manifest("tiny", "face_expression", (HEAD,), {"int8": artifact}, "none")
    return study


class Checked(html.parser.HTMLParser):
    """Every tag is closed, in order; what is loaded is remembered."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.loaded += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(study, tmp_path):
    report.write_report(tmp_path / "report.html", study)
    page = Checked()
    page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_the_report_loads_nothing_and_escapes_what_it_shows(study, tmp_path):
    page = read(study, tmp_path)
    assert page.loaded and all(source.startswith("data:image/png;base64,") for source in page.loaded)
    text = "".join(page.text)
    for words in ("so <sad>", "numbers & dice", "<not a tag>", "What it cannot do", "Article 5(1)(f)"):
        assert words in text


def test_no_picture_is_shown_unless_it_may_be(study, tmp_path):
    words = len(read(study, tmp_path).loaded)
    study.pictures["test"] = np.zeros((200, 8, 8, 1), np.uint8)
    assert len(read(study, tmp_path).loaded) == words + 1


def test_the_most_confident_mistakes_come_first():
    probs = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    assert report.confident_mistakes(np.array([0, 0, 0, 1]), probs).tolist() == [2, 1]


def test_the_card_states_scores_with_intervals_and_what_made_it(study):
    text = "\n".join(card.card(study))
    found = study.scored[0].scores
    low, high = found.accuracy_interval
    assert f"{100 * found.accuracy:.1f} % ({100 * low:.1f} to {100 * high:.1f})" in text
    assert "2.50 MB" in text and "`calmcam train tiny`" in text and "`abc`" in text
    assert "mood: 99.00% same, +0.10 points lost, probabilities 0.0020 apart |" in text
    assert "% of the test pictures, " in text


@pytest.mark.parametrize(
    ("backbone", "start"),
    [
        ("none", "nothing"),
        ("imagenet", "ImageNet's"),
        ("dlib", "those of dlib's face network"),
        ("emotions", "those of our own `emotions`"),
        ("runs/train/mine", "`runs/train/mine`"),
    ],
)
def test_the_card_says_what_scores_and_weights_stand_on(study, tmp_path, backbone, start):
    study.recipe = dataclasses.replace(study.recipe, backbone=backbone)
    said = f"one crop per face, no test-time augmentation; weights start from {start}"
    assert f"\n- {said}\n" in "\n".join(card.card(study))
    assert said in "".join(read(study, tmp_path).text)


def test_the_card_counts_the_groups_that_were_named(study, tmp_path):
    assert "groups:" not in "\n".join(card.card(study))
    study.groups = {"train": (700, 31), "validation": (90, 5), "test": (200, 4)}
    text = "\n".join(card.card(study))
    assert "train 700 pictures of 31 groups, validation 90 pictures of 5 groups, test 200 pictures of 4 groups" in text
    assert "test: of fewer than 5 groups, so its score holds for these people or clips only" in text
    assert "test: of fewer than 5 groups" in "".join(read(study, tmp_path).text)
    study.groups["test"] = (200, 5)
    assert "fewer than" not in "\n".join(card.card(study))


def test_a_model_that_answers_no_better_than_always_the_same_says_so(study, tmp_path):
    assert "no better than" not in "\n".join(card.card(study))
    truth = {"mood": np.arange(200) % 5 // 3}  # three in five are of the first class
    study.scored = finalscore.score_parts("int8", (HEAD,), {"mood": np.eye(2)[[0] * 200]}, {"test": truth}, range(200))
    said = "mood, test: no better than always saying 행복, which is right for 60.0 % of these pictures"
    assert f"\n- {said}" in "\n".join(card.card(study)) and said in "".join(read(study, tmp_path).text)


def test_a_head_without_a_test_picture_is_shown_by_validation_and_says_so(study, tmp_path):
    assert "the test part has no picture" not in "\n".join(card.card(study))
    shy = dataclasses.replace(HEAD, name="shy", labels=("calm", "shy"))
    study.heads = (HEAD, shy)
    truth, logits = study.truth["test"]["mood"], study.logits["test"]["mood"]
    study.truth = {"test": {"mood": truth, "shy": truth * 0 - 1}, "validation": {"mood": truth, "shy": truth}}
    study.logits = {part: {"mood": logits, "shy": logits} for part in study.truth}
    study.counts = study.truth
    study.scored = finalscore.score_parts("int8", study.heads, study.logits["test"], study.truth, range(200))
    text, page = "\n".join(card.card(study)), "".join(read(study, tmp_path).text)
    assert "**shy** (calm, shy): " in text and " right on the validation part, `int8`." in text
    for said in (text, page):
        assert "shy, validation part, int8" in said and "mood, test part, int8" in said
        assert "shy: the test part has no picture of it, so its score is that of the validation part" in said
        assert "mood: the test part has no picture" not in said


def test_every_table_of_the_card_is_rectangular(study):
    tables = re.findall(r"(?:^\|.*\n?)+", "\n".join(card.card(study)), re.M)
    assert len(tables) >= 5
    for table in tables:
        assert len({line.count("|") for line in table.strip().splitlines()}) == 1


def test_the_share_that_is_left_unsure(study):
    share, above, below = card.unsure_share(study, "test", HEAD)
    assert 0 < share < 1
    assert above > below


def test_calibration_is_stated_before_and_after(study):
    row = study.scored[0]
    assert row.ece_before != row.scores.ece
    entries = row.entries()
    assert [entry["metric"] for entry in entries] == ["accuracy", "macro_f1", "ece"]
    assert all("interval" in entry for entry in entries[:2])
