from __future__ import annotations

import unicodedata

import pytest

from edge_app.labels import ALIASES, canonical, index_of, nearest

FER = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("anger", "angry"),
        ("Happiness", "happy"),
        (" SURPRISED ", "surprise"),
        ("non-teasing", "non_teasing"),
        ("Not Teasing", "non_teasing"),
        ("contempt", "contempt"),
        (unicodedata.normalize("NFD", "행복"), "행복"),
    ],
)
def test_one_spelling(name, label):
    assert canonical(name) == label


def test_aliases_are_settled_in_one_step():
    assert all(canonical(label) == label for label in ALIASES.values())


def test_index_of_accepts_aliases_on_either_side():
    assert index_of("sadness", FER) == 5
    assert index_of("sad", ("happiness", "sadness")) == 1
    assert index_of("contempt", FER) is None


@pytest.mark.parametrize("name", ["무표정", unicodedata.normalize("NFD", "무표정"), "무표정 "])
def test_index_of_accepts_what_is_drawn(name):
    assert index_of(name, FER) == 4
    assert index_of("약올림_아님", ("teasing", "non_teasing")) == 1
    assert index_of(name, ("neutral", "무표정")) == 1, "a model's own label wins"
    assert index_of("졸림", FER) is None


def test_nearest_names_a_label_or_nothing():
    assert nearest("hapy", FER) == "happy"
    assert nearest("zzz", FER) is None
