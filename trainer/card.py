"""`CARD.md`: what a model is, how good it is, and what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edge_app.files import whole
from edge_app.manifest import Head
from edge_app.scoring.metrics import FEW

from .calibrate import FEWEST
from .finalscore import TEST, Scored
from .record import chosen
from .study import Study
from .words import (
    AI_ACT,
    CALIBRATION,
    CHANCE,
    FEW_GROUPS,
    GROUPS,
    LIMITS,
    NO_BETTER,
    NO_TEST,
    ONE_CROP,
    SPLITS,
    STARTS,
    UNCALIBRATED,
)


def write_card(path: Path, study: Study) -> None:
    """Write the card of an export, whole or not at all."""
    with whole(path) as part:
        part.write_text("\n".join(card(study)) + "\n", encoding="utf-8")


def card(study: Study) -> Iterator[str]:
    """The lines of the card."""
    yield from (f"# {study.name}", "", *_summary(study), "")
    yield from ("## Scores", "", *_scores(study.scored), "", *(f"- {text}" for text in score_words(study)), "")
    for head in study.heads:
        yield from _head(study, head)
    yield from ("## Files", "", *_files(study), "", *_mixed(study))
    yield from ("## What it cannot do", "", *(f"- {text}" for text in LIMITS), "", AI_ACT, "")
    yield from ("## How it was made", "", *_origin(study))


def score_words(study: Study) -> list[str]:
    """What scores stand for: the splits, how faces were looked at, and of how many groups the pictures are."""
    times = "once" if study.test_uses == 1 else f"{study.test_uses} times: who chose by what it said chose on it"
    found = {row.split for row in study.scored}
    lines = [words.format(times=times) for split, words in SPLITS.items() if split in found]
    backbone = study.recipe.backbone
    lines += [CHANCE, ONE_CROP.format(start=STARTS.get(backbone, f"`{backbone}`"))]
    if study.groups:
        counts = (f"{part} {pictures} pictures of {groups} groups" for part, (pictures, groups) in study.groups.items())
        lines.append(GROUPS.format(counts=", ".join(counts)))
    few = (part for part, (_, groups) in study.groups.items() if part in found and groups < FEW)
    return lines + [FEW_GROUPS.format(part=part, few=FEW) for part in few] + untested(study) + no_better(study)


def untested(study: Study) -> list[str]:
    """A sentence for every head that the test part, where there is one, has no picture of."""
    lacking = [head.name for head in study.heads if TEST in study.truth and study.split(head.name) != TEST]
    return [NO_TEST.format(head=name) for name in lacking]


def no_better(study: Study) -> list[str]:
    """A sentence for every head whose accuracy is not surely above the share of its largest class."""
    lines = []
    for head in study.heads:
        found = study.shown(head.name)
        if found is not None and found.scores.accuracy_interval[0] <= (share := _shares(found).max()):
            label = head.labels[_shares(found).argmax()]
            lines.append(NO_BETTER.format(head=head.name, split=found.split, label=label, share=percent(share)))
    return lines


def _shares(found: Scored) -> np.ndarray:
    support = found.scores.per_class.support
    return support / support.sum()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]


def percent(value: float, interval: Sequence[float] | None = None) -> str:
    """69.1 % (67.5 to 70.6)."""
    return f"{100 * value:.1f} %" + (f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else "")


def three(value: float, interval: Sequence[float] | None = None) -> str:
    """0.661 (0.642 to 0.679)."""
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def score_rows(scored: Sequence[Scored]) -> list[list[str]]:
    """Cells of the table of scores, by head, split and variant."""
    ordered = sorted(scored, key=lambda row: (row.head, row.split, row.variant))
    return [[row.head, row.split, row.variant, *_cells(row)] for row in ordered]


SCORE_HEADER = ("head", "split", "variant", "n", "accuracy (95 %)", "macro-F1 (95 %)", "ECE, T = 1", "ECE, calibrated")


def _cells(row: Scored) -> list[str]:
    found = row.scores
    accuracy = percent(found.accuracy, found.accuracy_interval)
    macro = three(found.macro_f1, found.macro_f1_interval)
    return [str(found.n), accuracy, macro, f"{row.ece_before:.3f}", f"{found.ece:.3f}"]


def class_rows(found: Scored, labels: Sequence[str]) -> list[list[str]]:
    """Cells of the table of classes."""
    each = found.scores.per_class
    columns = zip(labels, each.precision, each.recall, each.f1, each.support, strict=True)
    return [[label, f"{p:.3f}", f"{r:.3f}", f"{f:.3f}", str(int(n))] for label, p, r, f, n in columns]


def unsure_share(study: Study, split: str, head: Head) -> tuple[float, float, float]:
    """Share of pictures below the unsure threshold, and accuracy above and below it."""
    _, truth, probs = study.answers(split, head)
    low, right = probs.max(axis=1) < head.unsure_below, probs.argmax(axis=1) == truth
    return (
        float(low.mean()),
        float(right[~low].mean()) if (~low).any() else 0.0,
        float(right[low].mean()) if low.any() else 0.0,
    )


def file_rows(study: Study) -> list[list[str]]:
    """Cells of the table of files: size, input, speed and how they agree with Keras."""
    rows = []
    for variant, artifact in study.manifest.artifacts.items():
        spec = artifact.input
        gates = "; ".join(
            f"{gate.head}: {gate.agreement:.2%} same, {gate.loss:+.2f} points lost, "
            f"probabilities {gate.mean_dp:.4f} apart"
            for gate in study.gates
            if gate.variant == variant
        )
        takes = f"{spec.dtype} {spec.height} x {spec.width} {spec.colour}"
        rows.append(
            [
                f"`{artifact.path.name}`",
                f"{artifact.bytes / 1e6:.2f} MB",
                takes,
                f"{study.latency_ms[variant]:.2f}",
                gates,
            ]
        )
    return rows


FILE_HEADER = (
    "file",
    "size",
    "takes",
    "ms per face (LiteRT, 1 thread, median, machine busy or not)",
    "against Keras, validation",
)


def calibration(study: Study, head: Head) -> str:
    """How the confidences of a head were made, and what its threshold parts."""
    if head.temperature == 1 and not head.unsure_below:
        return UNCALIBRATED.format(pictures=FEWEST, groups=FEW)
    split = study.split(head.name)
    share, above, below = unsure_share(study, split, head)
    found = f"{CALIBRATION} Temperature {head.temperature:.3f}"
    if not head.unsure_below:
        return f"{found}; no such threshold was found."
    return (
        f"{found}; unsure below {head.unsure_below:.2f}: {percent(share)} of the {split} pictures, {percent(below)} of "
        f"them right, against {percent(above)} above."
    )


def count_rows(study: Study, head: Head) -> list[list[str]]:
    """Cells of the table of images per label and part."""
    return [
        [label, *(str(int((labels[head.name] == place).sum())) for labels in study.counts.values())]
        for place, label in enumerate(head.labels)
    ]


def _summary(study: Study) -> Iterator[str]:
    for head in study.heads:
        found = study.shown(head.name)
        if found is not None:
            accuracy = percent(found.scores.accuracy, found.scores.accuracy_interval)
            labels = ", ".join(head.labels)
            yield f"**{head.name}** ({labels}): {accuracy} right on the {found.split} part, `{study.chief}`."
    yield from ("", f"Data: {study.about or 'not stated'}", "", f"Licence: {study.licence}")


def _scores(scored: Sequence[Scored]) -> list[str]:
    return table(SCORE_HEADER, score_rows(scored))


def _head(study: Study, head: Head) -> Iterator[str]:
    found = study.shown(head.name)
    if found is None:
        return
    yield from (f"## {head.name}, {found.split} part, {study.chief}", "")
    yield from table(("class", "precision", "recall", "F1", "n"), class_rows(found, head.labels))
    yield from ("", "Confusion (truth in rows):", "")
    yield from table(
        ("", *head.labels),
        [[label, *map(str, row)] for label, row in zip(head.labels, found.scores.matrix, strict=True)],
    )
    yield from ("", "Images per part:", "", *table(("class", *study.counts), count_rows(study, head)))
    yield from ("", calibration(study, head), "")


def _files(study: Study) -> list[str]:
    return table(FILE_HEADER, file_rows(study))


def _mixed(study: Study) -> Iterator[str]:
    if study.in_float:
        kept = ", ".join(f"`{name}`" for name in study.in_float)
        yield from (f"The int8 file is not of integers throughout: its input and {kept} are float.", "")


def _origin(study: Study) -> Iterator[str]:
    record, crop = study.record, study.recipe.crop
    device = record.get("device", "an unknown device")
    yield f"- trained with `{record.get('command', '')}`, seed {study.recipe.seed}, on {device}"
    if note := record.get("note"):
        yield f"- {note}"
    yield f"- exported with `{study.command}`"
    yield f"- weights: {chosen(record, study.recipe)}"
    for name, digest in record.get("data_sha256", {}).items():
        yield f"- sha256 over the {name} part's sorted file hashes: `{digest}`"
    if digest := record.get("backbone_sha256"):
        yield f"- sha256 of the file that the weights started from: `{digest}`"
    fitted = "chosen" if (study.run / "crop.json").is_file() else "the recipe's, not measured for this run"
    yield f"- face crop: margin {crop.margin}, shift {crop.shift}, align {crop.align}, {fitted} by `calmcam fit-crop`"
    yield f"- versions: {', '.join(f'{name} {version}' for name, version in record.get('versions', {}).items())}"
    images = {
        name: max((int(np.size(column)) for column in labels.values()), default=0)
        for name, labels in study.counts.items()
    }
    yield f"- images: {', '.join(f'{count} {name}' for name, count in images.items())}"
