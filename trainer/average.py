"""The mean of the weights of several runs, a soup (Wortsman et al. 2022, arXiv 2203.05482).

It helps where all of them began with the same weights, such as a run and what further stages made of it; of runs that
began with weights of their own it is noise.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_app.errors import InputError, SettingsError
from edge_app.manifest import sha256

from .data import load_run
from .export import trained
from .machine import device, versions
from .record import absolute, stored_data, write_json
from .scores import judge, predict
from .train import save_plain

ALIKE = ("heads", "family", "options", "input", "crop", "select")  # what the recipes must share


def check(runs: Sequence[Path]) -> None:
    """SettingsError for fewer than two runs, InputError unless they can be averaged; before anything is made."""
    if len(set(runs)) < max(2, len(runs)):
        raise SettingsError(f"average: expected two or more runs, each once, got {' '.join(map(str, runs)) or 'none'}")
    opened = [trained(run) for run in runs]
    recipe, record, model = opened[0]
    for run, (other, its, network) in zip(runs[1:], opened[1:], strict=True):
        differing = [key for key in ALIKE if getattr(other, key) != getattr(recipe, key)]
        if [value.shape for value in network.weights] != [value.shape for value in model.weights]:
            differing.append("network")
        if its.get("data_sha256") != record.get("data_sha256"):
            differing.append("data")
        if differing:
            raise InputError(
                f"{run}: {', '.join(differing)} unlike those of {runs[0]}; average runs of one network and split"
            )


def average(runs: Sequence[Path], data: Path | Mapping[str, Path] | None, out: Path, command: str) -> list[str]:
    """Write the mean of the runs' weights, statistics of batch normalisation among them, as a run into the folder `out`.

    `data` says where the pictures lie, None where the first run found them. Returns what each run and the mean score on
    validation, line by line.
    """
    recipe, record, model = trained(runs[0])
    data = data or stored_data(record)
    parts = load_run(runs[0], data)
    total, rows = None, []

    def score(name: Path) -> dict[str, float]:
        row = judge(recipe, parts["validation"], predict(model, parts["validation"].images))
        rows.append(f"{name}: " + ", ".join(f"{key[4:]} {value:.4f}" for key, value in row.items()))
        return row

    for run in runs:
        model.set_weights(trained(run)[2].get_weights())
        score(run)
        shares = [value / len(runs) for value in model.get_weights()]
        total = shares if total is None else [one + other for one, other in zip(total, shares, strict=True)]
    model.set_weights(total)
    validation = score(out)
    for name in ("recipe.yaml", "split.csv", "crop.json"):
        if (runs[0] / name).is_file():
            shutil.copyfile(runs[0] / name, out / name)
    save_plain(model, out / "best.keras")
    of = ", ".join(f"{run} (best.keras {sha256(run / 'best.keras')[:12]})" for run in runs)
    kept = {key: record[key] for key in ("recipe", "seed", "data_sha256", "unreadable") if key in record}
    described = {
        "command": command,
        "data": absolute(data),
        "finished": True,
        "note": f"the mean of the weights of {of}",
        "selected": {"mean_of": [str(run) for run in runs]},
        "images": {name: len(part) for name, part in parts.items()},
        "validation": validation,
        "versions": versions(),
        "device": device(),
    }
    write_json(out / "run.json", kept | described)
    return rows
