"""A trained run to what the edge runs: files by variant, calibrated, judged, described; whole or not at all."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from edge_app.errors import InputError, OutputError, SettingsError, unknown
from edge_app.files import folder_beside, take_place
from edge_app.manifest import Artifact, Head, Manifest, sha256, write_manifest
from edge_app.seen import marks, write_seen

from . import ferplus, finalscore, parity, quantise, representative
from .calibrate import FEWEST, calibrated
from .card import no_better, untested, write_card
from .data import Part, learnt, load_run, named_group_counts, sources
from .machine import versions
from .recipe import Recipe
from .recipe_file import write_recipe
from .record import digest, read_finished, run_recipe, stored_data
from .report import write_report
from .study import Study
from .weights import write_backbone

log = logging.getLogger(__name__)

WORST = 4  # int8 operators that may stay in float before the export gives up
KERAS = "model.keras"
NAME = re.compile(r"\w[\w.-]*")  # as the manifest's schema has it
FER2013 = re.compile(r"fer[-_ ]?(2013|\d{7})|\.csv#\d+$|(Training|PublicTest|PrivateTest)_\d+", re.I)
Data = Path | Mapping[str, Path]


@dataclass(frozen=True)
class Order:
    """What the command line asks for."""

    run: Path
    out: Path
    data: Data | None = None
    variants: tuple[str, ...] = ()  # of the recipe when empty
    test: bool = True
    exist_ok: bool = False
    mistakes: bool = False  # the licence of the data allows showing its pictures
    name: str = ""
    licence: str = ""
    about: str = ""  # what the data are
    command: str = ""


@dataclass(eq=False)
class _Work:
    order: Order
    recipe: Recipe
    record: Mapping[str, object]
    data: Data
    parts: dict[str, Part]
    heads: tuple[Head, ...]
    folder: Path
    variants: tuple[str, ...]
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    logits: dict[str, parity.Logits] = field(default_factory=dict)  # variant -> on validation
    in_float: tuple[str, ...] = ()  # operators of the int8 file that were left in float


def export(order: Order) -> Study:
    """Do it; returns what was found. Nothing is left in `order.out` when anything fails.

    InputError for a run or data that do not fit, ParityError when a file answers otherwise than the model,
    OutputError when something cannot be written.
    """
    work = _opened(order)
    try:
        model = _trained(order.run, work.recipe)
        if order.test:
            finalscore.uses(order.run, order.run / "best.keras")  # now, not after minutes of converting
        settings = work.recipe.export
        train, kept = work.parts["train"], settings.calibration * 5 // 4
        wanted = max(settings.calibration, settings.representative)
        if len(train) < (most := max(wanted, kept)):
            log.warning(
                "%d crops calibrate where %d are expected; mirrored and repeated ones fill up", len(train), most
            )
        crops = representative.choose(train, wanted, seed=work.recipe.seed)
        usual = quantise.typical(model, crops)[: settings.representative]
        _convert(work, model, usual)
        gates = _gate(work, model, usual)
        study = _studied(work, gates)
        for text in (*untested(study), *no_better(study)):
            log.warning("%s", text)
        _describe(work, study, model)
        given = representative.choose(train, kept, seed=work.recipe.seed)
        representative.save(order.run / "calibration.npz", given)
        write_report(order.run / "report.html", study)
        take_place(work.folder, order.out.resolve())
    except OSError as error:
        raise OutputError.of(order.out, error) from error
    finally:
        shutil.rmtree(work.folder, ignore_errors=True)
    return study


def _opened(order: Order) -> _Work:
    if order.out.exists() and not order.exist_ok and (not order.out.is_dir() or any(order.out.iterdir())):
        raise OutputError(f"{order.out}: exists already; name another folder with -o, or replace it with --exist-ok")
    _may_replace(order)
    recipe, record = _run(order.run)
    variants = order.variants or ("keras", *recipe.export.variants)
    for variant in variants:
        if variant not in ("keras", *quantise.VARIANTS):
            raise SettingsError(f"variants: {unknown('variant', variant, ('keras', *quantise.VARIANTS))}")
    if not set(variants) & set(quantise.VARIANTS):
        raise SettingsError(
            f"variants: expected at least one of {', '.join(quantise.VARIANTS)}, got {', '.join(variants)}"
        )
    if not NAME.fullmatch(name := order.name or recipe.name):
        raise SettingsError(f"{name!r}: expected a model's name of letters, digits, _ . and -; give one with --name")
    data = order.data or stored_data(record)
    parts = load_run(order.run, data)
    if order.mistakes:
        _may_show(parts, sources(recipe, data).values())
    heads = tuple(Head(head.name, head.kind, head.labels) for head in recipe.heads)
    try:
        folder = folder_beside(order.out.resolve())
    except OSError as error:
        raise OutputError(f"{order.out}: cannot be made ({error.strerror}); choose another folder with -o") from error
    return _Work(order, recipe, record, data, parts, heads, folder, variants)


def _may_replace(order: Order) -> None:
    """OutputError when what would be replaced is more than an exported model."""
    if not order.out.is_dir():
        if order.out.exists():
            raise OutputError(f"{order.out}: expected a folder, got a file; name another one with -o")
    elif any(order.out.iterdir()):
        model = (order.out / "manifest.json").is_file() and order.out.resolve() != order.run.resolve()
        if not model or any(path.is_dir() for path in order.out.iterdir()):
            raise OutputError(
                f"{order.out}: expected an exported model to replace, got a folder that holds something else; "
                "name another folder with -o"
            )


def loaded(run: Path, data: Data | None) -> tuple[Recipe, dict[str, Part], keras.Model]:
    """Recipe, train and validation parts, and model of a finished run."""
    recipe, record, model = trained(run)
    return recipe, load_run(run, data or stored_data(record)), model


def trained(run: Path) -> tuple[Recipe, Mapping[str, object], keras.Model]:
    """Recipe, record and model of a finished run; InputError when it is none or its weights are another network's."""
    recipe, record = _run(run)
    return recipe, record, _trained(run, recipe)


def _trained(run: Path, recipe: Recipe) -> keras.Model:
    """The weights that the run kept; InputError when they are those of another network."""
    path, spec = run / "best.keras", recipe.input.spec
    model = quantise.load_keras(path)
    takes = (None, spec.height, spec.width, spec.channels)
    gives = {head.name: (None, 1 if head.kind == "sigmoid" else len(head.labels)) for head in recipe.heads}
    found = model.input_shape, keras.tree.map_structure(lambda output: output.shape, model.output)
    if found != (takes, gives):
        raise InputError(
            f"{path}: expected a network from {takes} to {gives}, as the run's recipe says, got one from {found[0]} to "
            f"{found[1]}; restore it or train again"
        )
    return model


def _may_show(parts: Mapping[str, Part], places: Iterable[Path]) -> None:
    """SettingsError where anything speaks of FER2013: names of files and folders, or FER+'s votes for it."""
    files = (file for part in parts.values() for file in part.files)
    votes = (place / ferplus.PUBLISHED for place in places if (place / ferplus.PUBLISHED).is_file())
    if shown := next(filter(FER2013.search, map(str, (*files, *places, *votes))), None):
        raise SettingsError(
            f"--show-mistakes: {shown} looks like FER2013, whose pictures must not be shown; leave the flag out"
        )


def _run(run: Path) -> tuple[Recipe, Mapping[str, object]]:
    record = read_finished(run)
    return run_recipe(run), record


def _convert(work: _Work, model: keras.Model, crops: np.ndarray) -> None:
    with quantise.Converter(model, crops) as converter:
        for variant in filter(quantise.VARIANTS.__contains__, work.variants):
            log.info("converting to %s", variant)
            _write(work, variant, converter.convert(variant))


def _write(work: _Work, variant: str, content: bytes) -> None:
    path = work.folder / f"{variant}.tflite"
    path.write_bytes(content)
    artifact = quantise.describe(path, work.recipe.input.colour, work.heads)
    work.artifacts[variant] = artifact
    work.logits[variant] = parity.file_logits(variant, artifact, work.parts["validation"].images)


def _gate(work: _Work, model: keras.Model, crops: np.ndarray) -> list[parity.Parity]:
    """Every file against Keras on the validation images; int8 gets its worst operators in float before it fails."""
    work.logits["keras"] = parity.keras_logits(model, work.parts["validation"].images)
    rows = _compared(work)
    for head in work.heads:
        if (count := int((work.parts["validation"].labels[head.name] >= 0).sum())) < FEWEST:
            log.warning("head %s: %d validation images tell little of what a variant loses", head.name, count)
    if any(row.variant == "int8" for row in _beyond(work, rows)):
        rows = _mended(work, model, crops, rows)
    beyond = _beyond(work, rows)
    if beyond:
        limits, refused = work.recipe.export, {row.variant for row in beyond}
        good = ",".join(variant for variant in work.artifacts if variant not in refused)
        without = f", or leave {' and '.join(sorted(refused))} out: --variants {good}" if good else ""
        raise parity.ParityError(
            f"{work.order.run}: {'; '.join(map(str, beyond))}; allowed are {limits.max_loss} points and "
            f"{limits.min_agreement:.0%} same answers; nothing was exported: train longer, or raise "
            f"export.representative in {work.order.run / 'recipe.yaml'}{without}"
        )
    return rows


def _mended(work: _Work, model: keras.Model, crops: np.ndarray, rows: list[parity.Parity]) -> list[parity.Parity]:
    with quantise.Converter(model, crops) as converter:
        log.warning("int8 loses too much; looking for the operators that lose most")
        worst = [name for name, _ in converter.blame()[:WORST]]
        for count in range(1, len(worst) + 1):
            work.in_float = tuple(worst[:count])
            of = "operator" if count == 1 else f"{count} operators"
            log.warning("trying again with int8's worst %s in float", of)
            log.debug("in float: %s", ", ".join(work.in_float))
            _write(work, "int8", converter.convert("int8", keep_float=work.in_float))
            rows = _compared(work)
            if not any(row.variant == "int8" for row in _beyond(work, rows)):
                break
    return rows


def _compared(work: _Work) -> list[parity.Parity]:
    labels, reference = work.parts["validation"].labels, ("keras", work.logits["keras"])
    return [
        row
        for variant in work.artifacts
        for row in parity.compare(work.heads, labels, (variant, work.logits[variant]), reference)
    ]


def _beyond(work: _Work, rows: Sequence[parity.Parity]) -> list[parity.Parity]:
    return parity.failures(rows, work.recipe.export.max_loss, work.recipe.export.min_agreement)


def _studied(work: _Work, gates: list[parity.Parity]) -> Study:
    validation = work.parts["validation"]
    chief = "int8" if "int8" in work.artifacts else next(iter(work.artifacts))
    answers = work.logits[chief]
    groups = validation.groups
    heads = tuple(calibrated(head, validation.labels[head.name], answers[head.name], groups) for head in work.heads)
    scored = [
        row
        for variant in work.artifacts
        for row in finalscore.score_parts(
            variant, heads, work.logits[variant], {"validation": validation.labels}, groups
        )
    ]
    study = Study(
        name=work.order.name or work.recipe.name,
        recipe=work.recipe,
        record=work.record,
        run=work.order.run,
        heads=heads,
        chief=chief,
        counts={name: part.labels for name, part in work.parts.items()},
        gates=gates,
        scored=scored,
        latency_ms={name: parity.latency_ms(artifact, validation.images) for name, artifact in work.artifacts.items()},
        licence=work.order.licence or "not stated",
        about=work.order.about,
        command=work.order.command,
        in_float=work.in_float,
        groups=named_group_counts(work.order.run, work.recipe),
    )
    _look(work, study, validation, answers, "validation")
    if work.order.test:
        _test(work, study)
    return study


def _test(work: _Work, study: Study) -> None:
    """Score every variant on the test part, once the files are chosen; the run remembers that it did."""
    weights = work.order.run / "best.keras"
    try:
        part = load_run(work.order.run, work.data, ("test",))["test"]
    except InputError as error:
        log.warning("no test score: %s", error)
        return
    study.test_uses = finalscore.claim(work.order.run, weights, part)
    hashes = work.record.get("data_sha256", {}) | {"test": digest(part.hashes)}
    study.record = {**work.record, "data_sha256": hashes}
    known = learnt(work.order.run) | marks(work.parts["validation"].hashes)
    seen = {digest for digest in part.hashes if marks([digest]) <= known}
    sets = finalscore.test_sets(part, study.heads, seen, _votes(work))
    for variant, artifact in work.artifacts.items():
        logits = parity.file_logits(variant, artifact, part.images)
        study.scored += finalscore.score_parts(variant, study.heads, logits, sets, part.groups)
        if variant == study.chief:
            _look(work, study, part, logits, "test")
    study.counts["test"] = part.labels
    if study.groups:  # what split.csv holds out, and what the data bring
        study.groups = {**study.groups, "test": (len(part), len(set(part.groups)))}


def _look(work: _Work, study: Study, part: Part, logits: parity.Logits, split: str) -> None:
    study.truth[split], study.logits[split] = part.labels, logits
    if work.order.mistakes:
        study.pictures[split] = part.images


def _votes(work: _Work) -> dict[str, Path]:
    """The votes file of every head whose data have one."""
    places = sources(work.recipe, work.data)
    found = {
        head.name: ferplus.find(places[head.data], work.recipe.data.votes)
        for head in work.recipe.heads
        if head.data in places
    }
    return {head: path for head, path in found.items() if path}


def _describe(work: _Work, study: Study, model: keras.Model) -> None:
    """Write manifest, card and the extra names that the recipe asks for into the new folder."""
    record, recipe = study.record, work.recipe
    origin = {
        "recipe": recipe.name,
        "family": recipe.family,
        "seed": recipe.seed,
        "train_command": record.get("command", ""),
        "train_note": record.get("note", ""),
        "epochs": record.get("selected", {}),
        "data_sha256": record.get("data_sha256", {}),
        "split_sha256": sha256(work.order.run / "split.csv"),
        "weights_sha256": sha256(work.order.run / "best.keras"),
        "backbone_sha256": record.get("backbone_sha256", ""),
        "trained_with": record.get("versions", {}),
        "exported_with": versions(),
        "latency_ms": {name: round(value, 3) for name, value in study.latency_ms.items()},
        "parity": [str(row) for row in study.gates],
        "int8_in_float": list(study.in_float),
        "seen": write_seen(work.folder, learnt(work.order.run), marks(work.parts["validation"].hashes)),
    }
    study.manifest = Manifest(
        name=study.name,
        task=recipe.task,
        heads=study.heads,
        artifacts=work.artifacts,
        licence=study.licence,
        crop=recipe.crop,
        scores=tuple(entry for row in study.scored for entry in row.entries()),
        data=study.about,
        command=study.command,
        origin=origin,
        folder=work.folder,
    )
    write_manifest(study.manifest)
    write_card(work.folder / "CARD.md", study)
    if "keras" in work.variants:
        shutil.copyfile(work.order.run / "best.keras", work.folder / KERAS)
    for kind, name in recipe.export.files.items():
        _extra(work, model, kind, work.folder / name)


def _extra(work: _Work, model: keras.Model, kind: str, path: Path) -> None:
    if kind == "keras":
        shutil.copyfile(work.order.run / "best.keras", path)
    elif kind == "weights":
        model.save_weights(path)
    elif kind == "backbone":
        write_recipe(work.recipe, work.folder / "recipe.yaml")
        write_backbone(model, work.folder / "recipe.yaml", path)
    elif kind in work.artifacts:
        shutil.copyfile(work.artifacts[kind].path, path)
