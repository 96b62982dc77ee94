"""What happens around `fit`, one small class each: averaging, judging, keeping, stopping, drawing."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edge_app.errors import CalmcamError
from edge_app.files import whole

from .data import Part
from .feed import Batches
from .recipe import LAST, Stage
from .scores import judge, predict
from .state import State

log = logging.getLogger(__name__)


class Order(keras.callbacks.Callback):
    """Tells the batches which epoch begins, and seeds a backend's own generator (PyTorch's dropout draws from it)."""

    def __init__(self, batches: Batches, state: State) -> None:
        super().__init__()
        self._batches, self._state = batches, state

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        keras.utils.set_random_seed(self._state.recipe.seed + self._state.epoch)
        self._batches.begin(self._state.epoch)


class StopOnNaN(keras.callbacks.Callback):
    """Ends the run with a sentence when the loss is no number any more."""

    def __init__(self, state: State, stage: Stage) -> None:
        super().__init__()
        self._state, self._stage = state, stage

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            stage, rate = self._stage.name, self._stage.learning_rate / 10
            raise CalmcamError(
                f"epoch {self._state.epoch + 1}, stage {stage}, batch {batch}: the loss is {loss}; start again with "
                f"--set stages.{stage}.learning_rate={rate:g}, --set clip=1 or --set precision=float32"
            )


class Average(keras.callbacks.Callback):
    """Exponential moving average of all weights (Polyak and Juditsky 1992), the batch statistics included."""

    EVERY = 4  # batches; each update costs a few ms

    def __init__(self, state: State, momentum: float) -> None:
        super().__init__()
        self._state, self._momentum = state, momentum**self.EVERY

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        state = self._state
        state.steps += 1
        if not state.average or state.steps % self.EVERY:
            return
        updates = (state.steps - state.averaged_from) // self.EVERY
        keep = min(self._momentum, updates / (updates + 9))
        for mean, weight in zip(state.average, self.model.weights, strict=True):
            mean.assign(keep * mean + (1 - keep) * keras.ops.cast(weight, "float32"))


@contextmanager
def averaged(model: keras.Model, state: State) -> Iterator[None]:
    """The model holds the averaged weights inside; nothing changes when there are none."""
    if not state.average:
        yield
        return
    own = model.get_weights()
    model.set_weights([mean.numpy() for mean in state.average])
    try:
        yield
    finally:
        model.set_weights(own)


class Judge(keras.callbacks.Callback):
    """Measures the averaged weights on validation, writes the row, keeps the best of all stages."""

    def __init__(
        self, state: State, part: Part, batches: Batches, stage: Stage, keep: Callable[[keras.Model], None]
    ) -> None:
        super().__init__()
        self._state, self._part, self._batches, self._stage, self._keep = state, part, batches, stage, keep
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        state, seconds = self._state, time.perf_counter() - self._started
        state.epoch += 1
        row = {
            "epoch": state.epoch,
            "stage": self._stage.name,
            "seconds": seconds,
            "input_share": self._batches.seconds / seconds,
        }
        row |= {name: float(value) for name, value in (logs or {}).items()}
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        with averaged(self.model, state):
            row |= judge(state.recipe, self._part, predict(self.model, self._part.images))
            better = (row["val_score"], -row["val_loss"]) > (state.best, -state.best_loss)
            if better or state.recipe.select == LAST:
                state.best, state.best_loss = row["val_score"], row["val_loss"]
                state.best_epoch, state.best_stage, state.waited = state.epoch, self._stage.name, 0
                self._keep(self.model)
            else:
                state.waited += 1
        if logs is not None:
            logs.update({name: value for name, value in row.items() if isinstance(value, float)})
        state.history.append(row)
        last = state.recipe.select == LAST
        log.info(
            "epoch %d/%d %s: loss %.4f, validation %s %.4f%s, %.0f s, input %.1f %%",
            state.epoch, state.recipe.epochs, self._stage.name, row["loss"],
            "accuracy" if last else state.recipe.select, row["val_score"],
            "" if last else f" (best {state.best:.4f} at {state.best_epoch})", seconds, 100 * row["input_share"],
        )  # fmt: skip


class Patience(keras.callbacks.Callback):
    """Halves the learning rate and ends the stage when validation stands still."""

    def __init__(self, state: State, stage: Stage) -> None:
        super().__init__()
        self._state, self._stage = state, stage

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        waited, stage = self._state.waited, self._stage
        if stage.schedule == "plateau" and waited and waited % stage.reduce_after == 0:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2
        if stage.stop_after and waited >= stage.stop_after:
            self._state.stage_over = True
            self.model.stop_training = True


class Checkpoint(keras.callbacks.Callback):
    """Writes history and the whole state after every epoch, so that a kill at any moment loses one epoch at most.

    The curves are drawn at the end of a stage, and after an epoch when DRAWN seconds have passed since they were, or since
    the stage began: epochs of few pictures are as short as a drawing.
    """

    DRAWN = 10.0

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state, self._drawn = state, time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._state.stage_epoch = epoch + 1
        self._state.save(self.model)
        write_history(self._state)
        if time.perf_counter() - self._drawn >= self.DRAWN:
            self._draw()

    def on_train_end(self, logs: dict | None = None) -> None:
        self._draw()

    def _draw(self) -> None:
        draw_curves(self._state)
        self._drawn = time.perf_counter()


class Progress(keras.callbacks.Callback):
    """Calls `tell(done share of the run, words)` after each batch, so that the time left is the run's."""

    def __init__(self, state: State, tell: Callable[[float, str], None]) -> None:
        super().__init__()
        self._state, self._tell = state, tell

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        done, epochs = self._state.epoch, self._state.recipe.epochs
        words = f"epoch {done + 1}/{epochs}, loss {float((logs or {}).get('loss', 0)):.4f}"
        self._tell((done + (batch + 1) / (self.params.get("steps") or batch + 1)) / epochs, words)


def write_history(state: State) -> None:
    """history.csv: one row per epoch over all stages."""
    columns = list(dict.fromkeys(name for row in state.history for name in row))
    with whole(state.run / "history.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(state.history)


def draw_curves(state: State) -> None:
    """curves.png: loss, and validation measures of every head, the one that chooses among them, over epochs."""
    figure = Figure(figsize=(10, 4))  # a layout that is worked out takes as long again
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.06, "right": 0.99, "bottom": 0.12, "top": 0.97, "wspace": 0.13})
    epochs = [row["epoch"] for row in state.history]
    left.plot(epochs, [row["loss"] for row in state.history], label="train loss")
    chose = "accuracy" if state.recipe.select == LAST else state.recipe.select
    for head in state.recipe.heads:
        for measure in dict.fromkeys(("loss", "accuracy", "macro_f1", chose)):
            name = f"val_{head.name}_{measure}"
            axis = left if measure == "loss" else right
            axis.plot(epochs, [row.get(name, math.nan) for row in state.history], label=name)
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    with whole(state.run / "curves.png") as part:
        figure.savefig(part, dpi=90)
