"""One training path for all recipes: stages of `fit` over a model with several heads.

The same code runs on every Keras backend. The test part is never read here.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import keras
import numpy as np

from edge_app.errors import CalmcamError, InputError, OutputError
from edge_app.files import whole

from . import callbacks, families
from .data import Part
from .feed import Batches
from .machine import precision
from .norm import fuse
from .recipe import ITSELF, Recipe, Stage, earlier_stages
from .recipe_file import read_recipe
from .rounding import rounded
from .state import State
from .teacher import Teacher, check_teacher
from .weights import start_weights

log = logging.getLogger(__name__)
NORM = 512  # pictures whose statistics a backbone without any takes
# How the backends say it, in lower case.
EXHAUSTED = ("resourceexhausted", "resource_exhausted")
MEMORY = (*EXHAUSTED, "outofmemory", "out of memory", "oom when", "bad_alloc", "alloc failed")


def fit(
    recipe: Recipe,
    parts: Mapping[str, Part],
    run: Path,
    resume: bool = False,
    tell: Callable[[float, str], None] | None = None,
) -> State:
    """Train every stage that is left, keeping `best.keras` in the folder `run`; returns where the run stands.

    `tell` hears the done share of the run and a few words. CalmcamError when the loss is lost or memory ends,
    OutputError when the disk is full.
    """
    keras.utils.set_random_seed(recipe.seed)
    state = State(run, recipe)
    with explained(recipe):
        model = network(recipe, precision(recipe.precision))
        if not resume:
            start_weights(model, recipe, parts["train"].images[:NORM])
            log.info("%s: %s parameters", recipe.family, f"{model.count_params():,}")
        state.start_average(model)
    if resume:
        state.read_counters()
        if state.best_epoch and not (run / "best.keras").is_file():
            raise InputError(f"{run / 'best.keras'}: missing, the best weights so far; start the run again")
    for name in recipe.others(state.stage):
        check_teacher(Path(name), recipe, run)  # now, not hours later
    with explained(recipe, run):
        for position in range(state.stage, len(recipe.stages)):
            _run_stage(model, state, position, parts, resume, tell)
            _keep_stage(state, position)
            resume = False
    return state


def network(recipe: Recipe, policy: str = "float32") -> keras.Model:
    """The recipe's network with fresh weights."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        outputs = {head.name: 1 if head.kind == "sigmoid" else len(head.labels) for head in recipe.heads}
        spec = recipe.input.spec
        options = {**recipe.options} | ({"weights": "imagenet"} if recipe.backbone == "imagenet" else {})
        return families.build(recipe.family, (spec.height, spec.width, spec.channels), outputs, options)
    finally:
        keras.config.set_dtype_policy(before)


def plain(model: keras.Model) -> keras.Model:
    """A float32 copy, whatever precision the model is trained in."""
    copy = keras.Model.from_config(_float32(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def save(model: keras.Model, path: Path) -> None:
    """Write the `.keras` file, whole or not at all."""
    with whole(path) as part:
        model.save(part)


def _float32(config: object) -> object:
    """A model's configuration with every dtype policy replaced by float32."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return config | {"config": {"name": "float32"}}
        return {key: _float32(value) for key, value in config.items()}
    return type(config)(_float32(value) for value in config) if isinstance(config, (list, tuple)) else config


def compile_stage(model: keras.Model, recipe: Recipe, stage: Stage, steps: int) -> None:
    """Freeze, choose the optimiser and weigh the heads as the stage says; `steps` batches make an epoch."""
    freeze(model, stage.freeze, stage.freeze_norm)
    fuse(model)
    losses = {
        head.name: keras.losses.BinaryCrossentropy(from_logits=True)
        if head.kind == "sigmoid"
        else keras.losses.CategoricalCrossentropy(from_logits=True)
        for head in recipe.heads
    }
    weights = {head.name: float(stage.loss_weights.get(head.name, 1.0)) for head in recipe.heads}
    model.compile(optimizer(stage, steps, recipe.clip), losses, weights)
    model.optimizer.build(model.trainable_variables)  # now, or `fit` traces its step twice


def optimizer(stage: Stage, steps: int, clip: float) -> keras.optimizers.Optimizer:
    """The stage's optimiser; weight decay is decoupled and spares biases and normalisation."""
    rate: object = stage.learning_rate
    warmup = round(stage.warmup * steps)
    if stage.schedule == "cosine":
        start = rate / 100 if warmup else rate
        rate = keras.optimizers.schedules.CosineDecay(
            start, max(1, stage.epochs * steps - warmup), warmup_target=rate if warmup else None, warmup_steps=warmup
        )
    common = {"weight_decay": stage.weight_decay or None, "global_clipnorm": clip or None}
    if stage.optimizer == "sgd":
        chosen = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, **common)
    else:
        chosen = keras.optimizers.AdamW(rate, **(common | {"weight_decay": stage.weight_decay}))
    if stage.weight_decay:
        chosen.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return chosen


def freeze(model: keras.Model, share: float, norm: bool = False) -> None:
    """Let the first `share` of the backbone's layers, those before the layer `pool`, stand still.

    With `norm` so does all batch normalisation. Training normalises each batch by itself and never sees what single
    pictures do to a network that multiplies its features (squeeze-and-excite): measured, last features of
    more than 5 times the usual for one picture in twenty and 160 times for the worst, which leave int8 no steps.
    """
    names = [layer.name for layer in model.layers]
    backbone = model.layers[: names.index("pool")]
    for position, layer in enumerate(model.layers):
        still = norm and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = position >= round(share * len(backbone)) and not still


@contextmanager
def explained(recipe: Recipe, run: Path | None = None) -> Iterator[None]:
    """Exhausted memory and, where the folder `run` is written, a full disk become sentences that name the knob."""
    try:
        yield
    except Exception as error:  # each backend has its own classes for what is exhausted; whatever else it is goes on
        cause = _first(error)
        if isinstance(cause, CalmcamError):
            raise
        raise (run and _full(cause, run)) or _memory(cause, recipe) or error from error


def _first(error: BaseException) -> BaseException:
    """What made a file unwritable; `fit` raises what is raised in it anew, from None."""
    return (error.__cause__ or error.__context__ or error) if isinstance(error, OutputError) else error


def _full(error: BaseException, run: Path) -> OutputError | None:
    """TensorFlow calls a full disk, where TensorBoard's files grow, an exhausted resource as it does memory."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
        return OutputError(f"{run}: the disk is full; free some space and go on with --resume {run}")
    if isinstance(error, OSError):
        return OutputError(f"{run}: cannot be written ({error.strerror or error}); choose another folder with -o")
    return None


def _memory(error: BaseException, recipe: Recipe) -> CalmcamError | None:
    text = f"{type(error).__name__}: {error}".lower()
    if isinstance(error, MemoryError) or any(word in text for word in MEMORY):
        knobs = f"--set batch={max(1, recipe.batch // 2)}"
        if recipe.backbone in ("none", "imagenet"):  # others bring their input
            knobs += f" or a smaller --set input.size={recipe.input.size * 3 // 4}"
        return CalmcamError(f"out of memory with batches of {recipe.batch} at {recipe.input.size} px; try {knobs}")
    return None


def _run_stage(
    model: keras.Model, state: State, position: int, parts: Mapping[str, Part], resume: bool, tell: Callable | None
) -> None:
    recipe, stage, run = state.recipe, state.recipe.stages[position], state.run
    if not resume:
        state.stage, state.stage_epoch, state.stage_over, state.waited = position, 0, False, 0
        if position:
            model.set_weights(_start(run, recipe, position))
            state.start_average(model)
    batches = Batches(parts["train"], recipe, stage, state.epoch)
    if stage.teacher_share:
        _teach(batches, parts["train"], state, position)
    if stage.rounding:
        keras.utils.set_random_seed(recipe.seed + state.epoch)  # its copies of dropout draw their own seeds
    learner = rounded(model) if stage.rounding else model
    compile_stage(learner, recipe, stage, len(batches))
    if resume:
        state.load(learner)
    if state.stage_over or state.stage_epoch >= stage.epochs:
        return  # resumed between two stages; dropout goes on where it stood
    keep = partial(_keep_best, model, plain(model), run / "best.keras")
    judge = callbacks.Judge(state, parts["validation"], batches, stage, keep)
    around = [callbacks.Order(batches, state), callbacks.StopOnNaN(state, stage), callbacks.Average(state, recipe.ema)]
    around += [judge, callbacks.Patience(state, stage), *tensorboard(run, stage), callbacks.Checkpoint(state)]
    if tell is not None:
        around.append(callbacks.Progress(state, tell))
    learner.fit(
        batches, epochs=stage.epochs, initial_epoch=state.stage_epoch, callbacks=around, verbose=0, shuffle=False
    )


def _keep_best(model: keras.Model, copy: keras.Model, path: Path, chosen: keras.Model) -> None:
    """Save what `chosen` learnt, by way of the float32 `copy`; where it rounds, in the `model` that it was made of, too."""
    if chosen is not model:
        model.set_weights(chosen.get_weights())
    copy.set_weights(model.get_weights())
    save(copy, path)


def _keep_stage(state: State, position: int) -> None:
    """Keep the best weights so far as `stage-N.keras` where a later stage starts from them.

    Once: `best.keras` may be the later stage's already when a run is resumed.
    """
    path = _ended(state.run, position)
    if position + 1 < len(state.recipe.stages) and not path.is_file():
        with whole(path) as part:
            shutil.copyfile(state.run / "best.keras", part)


def clear(state: State) -> None:
    """Remove what only a run that is not finished needs."""
    state.path.unlink(missing_ok=True)
    for position in range(len(state.recipe.stages)):
        _ended(state.run, position).unlink(missing_ok=True)
        _taught(state.run, position).unlink(missing_ok=True)


def _ended(run: Path, position: int) -> Path:
    return run / f"stage-{position + 1}.keras"


def _taught(run: Path, position: int) -> Path:
    return run / f"teacher-{position + 1}.npz"


def _start(run: Path, recipe: Recipe, position: int) -> list[np.ndarray]:
    """The weights that a later stage begins with."""
    found = [_loaded(_ended(run, one)) for one in earlier_stages(recipe, position)]
    return [np.mean(values, axis=0) for values in zip(*found, strict=True)]


def _loaded(path: Path) -> list[np.ndarray]:
    try:
        return keras.models.load_model(path, compile=False).get_weights()
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected weights that a run kept ({error})") from error


def _teach(batches: Batches, part: Part, state: State, position: int) -> None:
    """Let the networks that the stage learns from mend the targets, once or batch by batch."""
    recipe, stage = state.recipe, state.recipe.stages[position]
    models = []
    for name in stage.teachers:
        own = name == ITSELF
        source = recipe if own else read_recipe(str(Path(name) / "recipe.yaml"))
        models.append(network(source, precision(recipe.precision)))
        models[-1].set_weights(_start(state.run, recipe, position) if own else _loaded(Path(name) / "best.keras"))
    teacher = Teacher(models, recipe, stage.teacher_share)
    if stage.teacher_views:
        kept = _taught(state.run, position)
        batches.targets = teacher.settled(part.images, batches.targets, stage.teacher_views, kept)
    else:
        batches.teacher = teacher


def tensorboard(run: Path, stage: Stage) -> list[keras.callbacks.Callback]:
    """The TensorBoard callback where TensorFlow, which writes its files, is the backend; each stage counts from 0."""
    if keras.backend.backend() != "tensorflow":
        return []
    return [keras.callbacks.TensorBoard(str(run / "tensorboard" / stage.name), write_graph=False)]
