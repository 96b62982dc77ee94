"""A report card as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from ..scoring.metrics import FEW
from .console import for_tables

UNREADABLE_SHOWN = 10
Judged = Mapping[str, Any]


def show(card: Mapping[str, Any]) -> None:
    """Print a card as `Tally.card` makes it, with its `models`, `head`, `data`, `excluded`, `seen` and `folder`."""
    console = for_tables(120)
    models = " + ".join(f"{model['name']} {model['variant']} ({model['device']})" for model in card["models"])
    left_out = f", {card['excluded']} excluded" if card["excluded"] else ""
    console.print(
        f"{models}, head {card['head']}, {card['pictures']:,} pictures of {card['data']}{left_out}", soft_wrap=True
    )
    if card["seen"] and card["seen"]["note"]:
        console.print(card["seen"]["note"], soft_wrap=True)
    console.print(_scores(card))
    console.print(_classes(*("whole path", card["detect"]) if card["detect"] else ("ready crops", card["ready"])))
    for line in _remarks(card):
        console.print(line, soft_wrap=True)


def _scores(card: Mapping[str, Any]) -> Table:
    ways = {"ready crops": card["ready"], **({"whole path": card["detect"]} if card["detect"] else {})}
    table = Table("", *ways, *(["change"] if len(ways) == 2 else []), box=None, pad_edge=False)
    for name, (text, value) in _LINES.items():
        if name == NEW and "new" not in card["ready"]:
            continue
        cells = [text(way) for way in ways.values()]
        change = value(card["detect"]) - value(card["ready"]) if len(ways) == 2 and value else None
        table.add_row(name, *cells, "" if change is None else f"{change:+.3f}")
    return table


def _percent(proportion: Mapping[str, Any]) -> str:
    low, high = proportion["interval"]
    return f"{proportion['value']:.1%} ({low:.1%} to {high:.1%})"


def _f1(way: Judged) -> str:
    low, high = way["macro_f1"]["interval"]
    return f"{way['macro_f1']['value']:.3f} ({low:.3f} to {high:.3f})"


def _decided(way: Judged) -> str:
    return f"{way['decided']['share']:.1%} of faces (confidence from {way['decided']['unsure_below']:.2f})"


def _new(way: Judged) -> str:
    return f"{_percent(way['new']['accuracy'])} of {way['new']['n']:,}"


NEW = "accuracy of the others"  # than those that were learnt from
_LINES = {  # row: (its text, the figure whose change is worth telling)
    "accuracy": (lambda way: _percent(way["accuracy"]), lambda way: way["accuracy"]["value"]),
    NEW: (_new, lambda way: way["new"]["accuracy"]["value"]),
    "macro-F1": (_f1, lambda way: way["macro_f1"]["value"]),
    "calibration error": (lambda way: f"{way['calibration']['ece']:.3f}", lambda way: way["calibration"]["ece"]),
    "decided": (_decided, lambda way: way["decided"]["share"]),
    "accuracy when decided": (
        lambda way: _percent(way["decided"]["accuracy"]),
        lambda way: way["decided"]["accuracy"]["value"],
    ),
    "faces not found": (lambda way: f"{way['not_found']} ({way['not_found_share']:.1%})", None),
}


def _classes(name: str, way: Judged) -> Table:
    table = Table(f"{name}, class", box=None, pad_edge=False)
    for column in ("precision", "recall", "F1", "pictures"):
        table.add_column(column, justify="right")
    for label, each in way["per_class"].items():
        figures = (f"{each[name]:.3f}" for name in ("precision", "recall", "f1"))
        table.add_row(Text(label), *figures, f"{each['support']:,}")
    return table


def _remarks(card: Mapping[str, Any]) -> list[str]:
    ms = ", ".join(f"{name} {each['p50']:.2f} (p95 {each['p95']:.2f})" for name, each in card["ms_per_face"].items())
    lines = [f"ms per face, median: {ms}"] if ms else []
    absent = [label for label, each in card["ready"]["per_class"].items() if not each["support"]]
    if absent:
        lines.append(f"no pictures of: {', '.join(absent)}; macro-F1 is over the other classes")
    if card["clips"] < card["pictures"]:
        few = "; so few say nothing of other people" if card["clips"] < FEW else ""
        lines.append(f"{card['pictures']} pictures of {card['clips']} clips, of which the intervals are{few}")
    bad = card["unreadable"]
    if bad["count"]:
        lines.append(f"{bad['count']} unreadable, not counted:")
        lines += [f"  {why}" for _, why in bad["first"][:UNREADABLE_SHOWN]]
    return [*lines, f"results in {card['folder']}"]
