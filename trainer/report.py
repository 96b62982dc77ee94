"""`report.html`: the report card of an export in one file that loads nothing from anywhere."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edge_app.files import whole
from edge_app.manifest import Head, sha256
from edge_app.scoring import metrics

from . import charts
from .card import (
    FILE_HEADER,
    SCORE_HEADER,
    calibration,
    class_rows,
    count_rows,
    file_rows,
    score_rows,
    score_words,
)
from .record import chosen
from .study import Study
from .words import AI_ACT, LIMITS

SHOWN = 24  # confident mistakes
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}code{background:#f3f3f3;word-break:break-all}"
)


def write_report(path: Path, study: Study) -> None:
    """Write the report of an export, whole or not at all; OutputError when it cannot be."""
    with whole(path) as part:
        part.write_text("\n".join(page(study)), encoding="utf-8")


def page(study: Study) -> Iterator[str]:
    """The lines of the page."""
    title = html.escape(f"{study.name}: report card")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    yield f"<h1>{title}</h1>"
    yield _text(f"Data: {study.about or 'not stated'}. Licence: {study.licence}.")
    yield from ("<h2>Scores</h2>", table(SCORE_HEADER, score_rows(study.scored)), _list(score_words(study)))
    yield from ("<h2>Files</h2>", table(FILE_HEADER, file_rows(study)))
    for head in study.heads:
        yield from _head(study, head)
    yield from ("<h2>Training</h2>", _image(charts.embedded(study.run / "curves.png"), "training curves"))
    yield from ("<h2>What it cannot do</h2>", _list(LIMITS), _text(AI_ACT))
    yield from ("<h2>How it was made</h2>", *_origin(study), "</html>")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table of escaped cells."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def confident_mistakes(truth: np.ndarray, probs: np.ndarray, count: int = SHOWN) -> np.ndarray:
    """Rows (M,) of wrong answers, the most confident first."""
    wrong = np.flatnonzero(probs.argmax(axis=1) != truth)
    return wrong[np.argsort(-probs[wrong].max(axis=1), kind="stable")][:count]


def _head(study: Study, head: Head) -> Iterator[str]:
    found = study.shown(head.name)
    if found is None:
        return
    rows, truth, probs = study.answers(found.split, head)
    _, _, cold = study.answers(found.split, head, cold=True)
    yield f"<h2>{html.escape(head.name)}, {found.split} part, {study.chief}</h2>"
    yield table(("class", "precision", "recall", "F1", "n"), class_rows(found, head.labels))
    yield from ("<h3>Confusion</h3>", _image(charts.confusion(found.scores.matrix, head.labels), "confusion matrix"))
    yield from ("<h3>Calibration</h3>", _text(calibration(study, head)))
    yield _image(
        charts.reliability(metrics.reliability(truth, cold), found.scores.reliability), "reliability before and after"
    )
    yield from (
        "<h3>Probabilities</h3>",
        _image(charts.histogram(truth, probs, head.labels), "histograms of probabilities"),
    )
    yield from ("<h3>Most confident mistakes</h3>", _mistakes(study, head, rows, truth, probs))
    yield from ("<h3>Images</h3>", table(("class", *study.counts), count_rows(study, head)))


def _mistakes(study: Study, head: Head, rows: np.ndarray, truth: np.ndarray, probs: np.ndarray) -> str:
    worst = confident_mistakes(truth, probs)
    captions = [
        f"{head.labels[truth[row]]}, said {head.labels[probs[row].argmax()]} {probs[row].max():.0%}" for row in worst
    ]
    pictures = study.pictures.get(study.split(head.name))
    if pictures is not None and len(worst):
        return _image(charts.mistakes(pictures[rows[worst]], captions), "confident mistakes")
    return _text("The data's licence does not allow showing pictures, or was not said to; in words:") + _list(captions)


def _origin(study: Study) -> Iterator[str]:
    record, crop = study.record, study.recipe.crop
    rows = [
        ("trained with", record.get("command", "")),
        ("exported with", study.command),
        ("seed", study.recipe.seed),
        ("weights", chosen(record, study.recipe)),
        ("sha256 of split.csv", sha256(study.run / "split.csv")),
        *(
            (f"sha256 over the {name} part's file hashes", digest)
            for name, digest in record.get("data_sha256", {}).items()
        ),
        ("face crop", f"margin {crop.margin}, shift {crop.shift}, align {crop.align}"),
        ("versions", json.dumps(record.get("versions", {}))),
    ]
    yield table(("what", "value"), rows)
    recipe = study.run / "recipe.yaml"
    yield f"<h3>Recipe</h3><pre>{html.escape(recipe.read_text(encoding='utf-8'))}</pre>"


def _text(words: str) -> str:
    return f"<p>{html.escape(words)}</p>"


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"


def _image(uri: str, words: str) -> str:
    return f'<img alt="{html.escape(words)}" src="{uri}">' if uri else _text(f"{words}: none")
