"""The mean of the weights of several runs, a soup (Wortsman et al. 2022, arXiv 2203.05482).

It helps where all of them began with the same weights, such as a run and what further stages made of it; of runs that
began with weights of their own it is noise.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras

from edge_app.errors import InputError, SettingsError
from edge_app.manifest import sha256

from .data import Part, learnt, load_run
from .export import trained
from .finalscore import USED
from .machine import device, versions
from .recipe import Recipe
from .record import absolute, stored_data, write_json
from .scores import judge, predict
from .train import plain, save

log = logging.getLogger(__name__)
Trained = tuple[Recipe, Mapping[str, object], keras.Model]
ALIKE = ("heads", "family", "options", "input", "crop")  # what the recipes must share


def fitting(runs: Sequence[Path]) -> dict[Path, Trained]:
    """What each run holds; SettingsError for fewer than two, InputError for runs that cannot be averaged."""
    if len(set(runs)) < max(2, len(runs)):
        raise SettingsError(f"average: expected two or more runs, each once, got {' '.join(map(str, runs)) or 'none'}")
    opened = {run: trained(run) for run in runs}
    first, *others = runs
    recipe, _, model = opened[first]
    for run in others:
        other, _, network = opened[run]
        differing = [key for key in ALIKE if getattr(other, key) != getattr(recipe, key)]
        if [value.shape for value in network.weights] != [value.shape for value in model.weights]:
            differing.append("network")
        if differing:
            raise InputError(f"{run}: {', '.join(differing)} unlike those of {first}; average runs of one network")
        if unknown := learnt(run) - learnt(first):  # the first one's validation judges
            raise InputError(
                f"{run}: learnt from {len(unknown)} pictures that {first} did not; average runs that divided the data "
                "alike, or name first the one that learnt from those of all others"
            )
    return opened


def average(runs: Mapping[Path, Trained], data: Path | Mapping[str, Path] | None, out: Path, command: str) -> list[str]:
    """Write the mean of the runs' weights, batch normalisation's statistics among them, as a run into the folder `out`.

    `runs` fit; `data` says where the pictures lie, None where the first run found them. Returns what each run and the
    mean score on validation, line by line.
    """
    first, (recipe, record, model) = next(iter(runs.items()))
    for run in runs:
        if (run / USED).is_file():
            log.warning("%s: its test part was read already; a mean that is chosen by what it said is chosen on it", run)
    data = data or stored_data(record)
    part = load_run(first, data, ("validation",))["validation"]
    rows = {run: _score(recipe, one, part) for run, (_, _, one) in runs.items()}
    each = zip(*(one.get_weights() for _, _, one in runs.values()), strict=True)
    model.set_weights([sum(value / len(runs) for value in values) for values in each])
    rows[out] = _score(recipe, model, part)
    for name in ("recipe.yaml", "split.csv", "seen.bin", "crop.json"):
        if (first / name).is_file():
            shutil.copyfile(first / name, out / name)
    save(plain(model), out / "best.keras")
    of = ", ".join(f"{run} (best.keras {sha256(run / 'best.keras')[:12]})" for run in runs)
    same = ("recipe", "seed", "data_sha256", "backbone_sha256", "seen", "unreadable", "images")
    kept = {key: record[key] for key in same if key in record}
    described = {
        "command": command,
        "data": absolute(data),
        "finished": True,
        "note": f"the mean of the weights of {of}",
        "selected": {"mean_of": [str(run) for run in runs]},
        "validation": rows[out],
        "versions": versions(),
        "device": device(),
    }
    write_json(out / "run.json", kept | described)
    return [f"{run}: " + ", ".join(f"{key[4:]} {value:.4f}" for key, value in row.items()) for run, row in rows.items()]


def _score(recipe: Recipe, model: keras.Model, part: Part) -> dict[str, float]:
    return judge(recipe, part, predict(model, part.images))
