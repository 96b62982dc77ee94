"""Everything that a training run must remember to go on after a kill: one file, replaced whole after each epoch."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from edge_app.errors import InputError
from edge_app.files import whole

from .recipe import Recipe

NUMBERS = (
    "stage",
    "stage_epoch",
    "stage_over",
    "epoch",
    "steps",
    "averaged_from",
    "best",
    "best_loss",
    "best_epoch",
    "best_stage",
    "waited",
    "history",
)


@dataclass(eq=False)
class State:
    """Where a run stands."""

    run: Path
    recipe: Recipe
    stage: int = 0  # position in recipe.stages
    stage_epoch: int = 0  # epochs done in this stage
    stage_over: bool = False  # ended early
    epoch: int = 0  # epochs done over all stages
    steps: int = 0  # batches done over all stages
    averaged_from: int = 0  # steps when the moving average began
    best: float = -1e9  # best validation score over all stages; never reset
    best_loss: float = 1e9  # validation loss of the same epoch, which decides between equal scores
    best_epoch: int = 0
    best_stage: str = ""
    waited: int = 0  # epochs since then, within the stage
    history: list[dict] = field(default_factory=list)
    average: list = field(default_factory=list)  # float32 keras variables, one per weight; empty when ema is off

    @property
    def path(self) -> Path:
        """The checkpoint file."""
        return self.run / "checkpoint.npz"

    def start_average(self, model: keras.Model) -> None:
        """Begin the moving average anew at the model's weights."""
        self.averaged_from = self.steps
        if self.recipe.ema:
            self.average = [keras.Variable(weight, dtype="float32", trainable=False) for weight in model.get_weights()]

    def save(self, model: keras.Model) -> None:
        """Write model, optimiser, average and counters; the file is whole at every moment."""
        arrays = {f"model{i}": v.numpy() for i, v in enumerate(model.variables)}
        arrays |= {f"optimizer{i}": v.numpy() for i, v in enumerate(model.optimizer.variables)}
        arrays |= {f"average{i}": v.numpy() for i, v in enumerate(self.average)}
        counters = json.dumps({name: getattr(self, name) for name in NUMBERS})
        with whole(self.path) as part:
            np.savez(part, counters=np.frombuffer(counters.encode(), np.uint8), **arrays)

    def read_counters(self) -> None:
        """Take the counters of the checkpoint."""
        with _opened(self.path) as saved:
            counters = dict(json.loads(bytes(saved["counters"])))
            for name in NUMBERS:
                setattr(self, name, counters.get(name, getattr(self, name)))

    def load(self, model: keras.Model) -> None:
        """Put the checkpoint's values into a model that was built and compiled for the same stage."""
        with _opened(self.path) as saved:
            groups = (("model", model.variables), ("optimizer", model.optimizer.variables), ("average", self.average))
            for name, variables in groups:
                for i, variable in enumerate(variables):
                    variable.assign(saved[f"{name}{i}"])


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """The checkpoint's arrays; InputError for a file that is damaged, or another network's."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as saved:
            yield saved
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: no checkpoint to go on from ({error}); start the run again without --resume"
        ) from error
