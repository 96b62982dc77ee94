"""A training run from request to finished folder: data, split, training, and what was done in `run.json`."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_app.errors import InputError, OutputError, SettingsError
from edge_app.labels import canonical
from edge_app.manifest import sha256
from edge_app.media import is_picture
from edge_app.runs import alone, discard_empty, output_folder
from edge_app.seen import write_seen

from .data import Member, Part, check_backbone, learnt, load_run, members, parts, sources, write_split
from .folders import class_folders, label_list
from .folds import fold_members, read_folds, summary, write_folds
from .recipe import Recipe
from .recipe_file import read_recipe, write_recipe
from .record import absolute, digest, origin, read_run, stored_data, with_crop, write_json

log = logging.getLogger(__name__)
Data = Path | Mapping[str, Path]
FOLDED = "with --folds every picture judges once: take another, or --set backbone=none"
CNN_EPOCHS = 40  # at least, for the small plain CNN


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    recipe: str | None
    data: Data | None
    changes: tuple[str, ...] = ()
    output: Path | None = None
    runs_dir: Path = Path("runs")  # where the output goes that is not named
    resume: Path | None = None
    check: bool = False
    folds: int | None = None
    compare_cnn: bool = False


def start(request: Request) -> list[str]:
    """Do it; returns what to tell the user, line by line."""
    if request.resume:
        return _resume(request)
    name = ""
    if request.check and request.data is None and request.recipe and Path(request.recipe).is_dir():
        name = Path(request.recipe).resolve().name
        request = _for_any(request, Path(request.recipe))
    recipe, data = _asked(request)
    rivals = [] if request.check else _rivals(recipe, data, request.compare_cnn)
    out = folder(request, (name or recipe.name) + ("-check" if request.check else "-folds" if request.folds else ""))
    with alone(out):
        try:
            if request.check:
                from .check import check

                return check(recipe, data, out)
            return _cross_validate(rivals, data, out, request.folds) if request.folds else run(rivals, data, out)
        finally:
            discard_empty(out)  # the run never began


def refuse_early(request: Request) -> None:
    """Raise what `start` would for a recipe or a run that is wrong, without the backend, which takes seconds to load."""
    if request.resume:
        _left(request)
    else:
        _asked(request)


def _asked(request: Request) -> tuple[Recipe, Data]:
    if request.recipe is None:
        raise SettingsError("train: expected the name of a recipe, for example: calmcam train emotions --data DIR")
    recipe = read_recipe(request.recipe, request.changes)
    if request.data is None:
        raise InputError(f"train {recipe.name}: expected --data DIR with the labelled pictures")
    return recipe, request.data


def _for_any(request: Request, data: Path) -> Request:
    """The check of a folder without a recipe: its class folders are the labels, of a CSV those of `emotions`."""
    names = {canonical(folder.name): folder.name for _, folder in class_folders(data, test=False)}
    if len(names) == 1:
        raise InputError(
            f"{data}: expected two or more folders, one per class; found only {next(iter(names.values()))}/"
        )
    loose = 0 if names or any(data.glob("*.csv")) else sum(is_picture(path.name) for path in data.iterdir())
    if loose:
        raise InputError(f"{data}: expected a folder per class, found {loose} pictures beside them")
    own = (f"heads.0.labels={label_list(sorted(names.values()))}",) if names else ()
    return dataclasses.replace(request, recipe="emotions", data=data, changes=own + request.changes)


def _rivals(recipe: Recipe, data: Data, compare_cnn: bool) -> list[Recipe]:
    """The recipe with what its backbone and its pictures bring, and the plain CNN that it is compared with."""
    from .weights import resolve

    rivals = [resolve(recipe)]
    rivals[0] = _with_crops(rivals[0], sources(recipe, data).values())
    if compare_cnn:
        if rivals[0].family == "cnn":
            raise SettingsError(f"--compare-cnn: the network of {recipe.name} is the plain CNN already; leave it out")
        rivals.append(plain_cnn(rivals[0]))
    return rivals


def _with_crops(recipe: Recipe, folders: Iterable[Path]) -> Recipe:
    """The recipe with the crop by which the pictures were cut; SettingsError where data sets were cut differently."""
    cut = {folder: with_crop(recipe, folder) for folder in folders if (folder / "crop.json").is_file()}
    if len({one.crop for one in cut.values()}) > 1:
        raise SettingsError(f"{', '.join(map(str, cut))}: their crop.json differ; cut them alike with calmcam crop")
    return next(iter(cut.values()), recipe)


def plain_cnn(recipe: Recipe) -> Recipe:
    """The same data and input for the small plain CNN from nothing: one stage that is long enough and never cut short.

    For its first epochs it gives every picture the same answer, which early stopping would take for its best.
    """
    length = {"epochs": max(CNN_EPOCHS, recipe.epochs), "learning_rate": 1e-3, "schedule": "cosine", "stop_after": 0}
    stage = dataclasses.replace(recipe.stages[0], optimizer="adamw", freeze=0.0, **length)
    return dataclasses.replace(recipe, family="cnn", options={}, backbone="none", stages=(stage,))


def run(rivals: Sequence[Recipe], data: Data, out: Path) -> list[str]:
    """Fresh runs on the same data: the first into the folder `out`, another into one of its family's name there."""
    found, scans = members(rivals[0], data)
    warn_few(rivals[0], found)
    for rival in rivals:
        _build(rival)
        check_backbone(rival, found)
    bad = {file: why for scan in scans for file, why in scan.bad.items()}
    places = [out, *(out / rival.family for rival in rivals[1:])]
    about = [describe(rival, data, found) | {"unreadable": bad} for rival in rivals]
    about[0] |= {"beside": [place.name for place in places[1:]]}
    for rival, place, described in zip(rivals, places, about, strict=True):
        place.mkdir(exist_ok=True)
        _begin(rival, place, found, described)
    loaded = parts(rivals[0], found, data, ("train", "validation"))
    del found, scans
    return [
        _train(rival, loaded, place, described) for rival, place, described in zip(rivals, places, about, strict=True)
    ]


def _build(recipe: Recipe) -> None:
    """Build the network once, before anything is written: what it cannot be or have is said now."""
    import keras

    from .teacher import find_teacher
    from .train import explained, network
    from .weights import take_weights

    with explained(recipe):
        take_weights(network(recipe), recipe)
    keras.utils.clear_session()
    for name in recipe.others():
        find_teacher(Path(name))


def describe(recipe: Recipe, data: Data, found: Sequence[Member]) -> dict[str, object]:
    """What `run.json` says before anything has happened."""
    import keras

    from .machine import precision
    from .weights import file_of

    backbone = file_of(recipe)
    return {
        "command": shlex.join(["calmcam", *sys.argv[1:]]),
        "recipe": recipe.name,
        "seed": recipe.seed,
        "backend": keras.backend.backend(),
        "precision": precision(recipe.precision),
        "data": absolute(data),
        "data_sha256": digests(found),
        **({"backbone_sha256": sha256(backbone)} if backbone else {}),
    }


def _begin(recipe: Recipe, out: Path, found: Sequence[Member], described: dict) -> None:
    """Write what the run is begun with; `described` is told where it says what the weights and teachers learnt from before."""
    before = [origin(recipe.backbone), *map(Path, recipe.others())]
    if inherited := frozenset().union(*(learnt(place) for place in before if place)):
        described["seen"] = write_seen(out, inherited)
    write_recipe(recipe, out / "recipe.yaml")
    write_split(out / "split.csv", recipe, found)
    write_json(out / "run.json", described | {"finished": False})


def _cross_validate(rivals: Sequence[Recipe], data: Data, out: Path, count: int) -> list[str]:
    if any(out.iterdir()):
        raise OutputError(f"{out}: is not empty; choose another folder with -o")
    found, _ = members(rivals[0], data)
    found = [member for member in found if member.split != "test"]  # that part scores once, at the end
    warn_few(rivals[0], found)
    names = []
    for recipe in rivals:
        _build(recipe)
        for number, divided in enumerate(fold_members(recipe, found, count), start=1):
            check_backbone(recipe, divided, FOLDED)
            names.append(f"{recipe.family}-{number}")
            (out / names[-1]).mkdir()
            _begin(recipe, out / names[-1], divided, describe(recipe, data, divided))
    described = describe(rivals[0], data, found) | {"folds": names}
    write_json(out / "run.json", described | {"finished": False})
    return _go_through(out, data, described)


def _go_through(out: Path, data: Data, described: dict) -> list[str]:
    """Train and score every fold that is left."""
    from .scores import held_out

    rows = read_folds(out / "folds.csv")
    for name in described["folds"][len(rows) :]:
        inner = out / name
        loaded = load_run(inner, data, ("train", "validation", "test"))
        unseen = loaded.pop("test")
        if not (state := _described(inner)).pop("finished"):
            log.info(_go_on(inner, loaded, state | {"data": absolute(data)}))
        network, _, number = name.rpartition("-")
        scores = held_out(read_recipe(str(inner / "recipe.yaml")), inner / "best.keras", unseen)
        rows.append({"network": network, "fold": number, **scores})
        write_folds(out / "folds.csv", rows)
    write_json(out / "run.json", described | {"finished": True})
    return [*summary(rows), f"{out / 'folds.csv'}"]


def _resume(request: Request) -> list[str]:
    """Go on as the run was begun; only its data may lie elsewhere now."""
    import keras

    left, data, lines = _left(request), request.data, []
    for place, described in left.items():
        if (begun := described.get("backend", keras.backend.backend())) != keras.backend.backend():
            again = f"KERAS_BACKEND={begun} calmcam train --resume {request.resume}"
            raise SettingsError(f"{place}: was begun with KERAS_BACKEND={begun}; go on with {again}")
    with alone(request.resume):
        for place, described in left.items():
            if data is None:
                data = stored_data(described)
            described["data"] = absolute(data)
            described["resumed"] = described.get("resumed", 0) + 1
            write_json(place / "run.json", described | {"finished": False})
            if "folds" in described:
                return _go_through(place, data, described)
            lines.append(_go_on(place, load_run(place, data), described))
    return lines


def _left(request: Request) -> dict[Path, dict]:
    """What is to be gone on with, by folder, as `run.json` tells of it."""
    out = request.resume
    if request != Request(None, request.data, resume=out, runs_dir=request.runs_dir):
        raise SettingsError(
            f"--resume {out}: goes on as the run was begun; give --data at most, or start another run without --resume"
        )
    places = [out, *(out / name for name in _described(out).get("beside", ()))]
    left = {place: told for place in places if not (told := _described(place)).pop("finished")}
    if not left:
        raise InputError(f"{out}: this run is finished; start another one")
    return left


def _described(out: Path) -> dict:
    """What `run.json` says; InputError where there is no run."""
    described = read_run(out) if (out / "run.json").is_file() else None
    if described is None or not ("folds" in described or (out / "recipe.yaml").is_file()):
        raise InputError(
            f"{out}: expected the folder of a training run (recipe.yaml, run.json), found none to go on with"
        )
    return described


def _go_on(out: Path, loaded: Mapping[str, Part], described: dict) -> str:
    begun = (f"precision={described['precision']}",) if "precision" in described else ()
    recipe = read_recipe(str(out / "recipe.yaml"), begun)
    return _train(recipe, loaded, out, described, resume=(out / "checkpoint.npz").is_file())


def _train(recipe: Recipe, loaded: Mapping[str, Part], out: Path, described: dict, resume: bool = False) -> str:
    from .machine import device, versions
    from .progress import progress
    from .train import clear, fit

    sizes = {name: len(part) for name, part in loaded.items()}
    log.info("%s: %s", out, ", ".join(f"{count} {name}" for name, count in sizes.items()))
    started = time.perf_counter()
    try:
        with progress() as tell:
            state = fit(recipe, loaded, out, resume, tell)
    except KeyboardInterrupt:
        log.warning("%s: stopped; go on with --resume %s", out, out)
        raise
    best = state.history[state.best_epoch - 1]
    described |= {
        "finished": True,
        "versions": versions(),
        "device": device(),
        "seconds": round(time.perf_counter() - started, 1),
        "train_seconds": round(sum(row["seconds"] for row in state.history), 1),
        "images": sizes,
        "selected": {"epoch": state.best_epoch, "stage": state.best_stage, "by": recipe.select},
        "validation": {name: value for name, value in best.items() if name.startswith("val_")},
    }
    write_json(out / "run.json", described)
    clear(state)
    scores = ", ".join(f"{name[4:]} {value:.4f}" for name, value in described["validation"].items())
    return f"{out}: epoch {state.best_epoch} of stage {state.best_stage}, {recipe.choice}: {scores}"


def folder(request: Request, name: str) -> Path:
    """The run's own new folder; OutputError when it cannot be made or holds a run already."""
    out = output_folder(request.output, request.runs_dir / "train", name, exist_ok=True)
    if (out / "run.json").exists():
        raise OutputError(f"{out}: holds a run already; go on with --resume {out} or choose another folder with -o")
    try:
        (out / ".part").touch()
        (out / ".part").unlink()
    except OSError as error:
        raise OutputError.of(out, error) from error
    return out


def warn_few(recipe: Recipe, found: Sequence[Member], least: int = 50) -> None:
    """Warn of classes with fewer than `least` training images; InputError for a class without any."""
    for head in recipe.heads:
        for label in head.labels if head.data != "*" else ():
            count = sum(m.item.label == label and m.item.source == head.data and m.split == "train" for m in found)
            if not count:
                rest = [other for other in head.labels if other != label]
                change = shlex.quote(f"heads.{head.name}.labels={label_list(rest)}")
                mend = f"add some, or leave the class out with --set {change}"
                raise InputError(f"{head.name}: no training image of {label!r}; {mend}")
            if count < least:
                log.warning(
                    "%s: only %d training images of %r; below %d expect scores that swing by 10 points and more",
                    head.name, count, label, least,
                )  # fmt: skip


def digests(found: Sequence[Member]) -> dict[str, str]:
    """One sha256 per part over its sorted file hashes."""
    by_part: dict[str, list[str]] = {}
    for member in found:
        by_part.setdefault(member.split, []).append(member.item.sha256)
    return {name: digest(hashes) for name, hashes in by_part.items()}
