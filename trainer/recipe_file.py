"""`trainer/recipes/<name>.yaml` and a run's `recipe.yaml`: read, changed by `--set`, checked against `recipe.py`, written.

An unknown key or a value of the wrong type is refused with the nearest known key; nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path

import yaml

from edge_app.errors import SettingsError, unknown
from edge_app.files import whole
from edge_app.labels import UNSURE, canonical
from edge_app.manifest import Crop

from .recipe import EXTRA, ITSELF, LAST, VARIANTS, Recipe, Stage, earlier_stages, refuse_unknown

RECIPES = Path(__file__).parent / "recipes"
HEAD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # what TensorFlow takes as the name of an output
TAKEN = ("image", "pool", "shared", "dropout", "file", "sha256", "split", "group")  # layers, and columns of split.csv
CHOICES = {
    "colour": ("gray", "rgb"),
    "kind": ("softmax", "sigmoid"),
    "schedule": ("cosine", "constant", "plateau"),
    "optimizer": ("adamw", "sgd"),
    "select": ("macro_f1", "accuracy", "agreement", "f1", "loss", LAST),
    "precision": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "align": ("none", "roll"),
    "variants": VARIANTS,
}
RANGES = {  # least and largest value of the keys that have one
    **dict.fromkeys(("epochs", "batch", "reduce_after", "representative", "calibration"), (1, math.inf)),
    **dict.fromkeys(
        ("limit", "per_class", "stop_after", "teacher_views", "warmup", "weight_decay", "power"), (0, math.inf)
    ),
    "seed": (0, 2**32 - 1),  # what NumPy takes
    **dict.fromkeys(("clip", "max_loss", "mixup"), (0, math.inf)),
    **dict.fromkeys(("freeze", "label_smoothing", "votes_share", "teacher_share", "min_agreement", "ema"), (0, 1)),
    **dict.fromkeys(("flip", "erase", "erase_area", "contrast", "brightness", "noise"), (0, 1)),
    "size": (8, 1024),
    "near": (0, 32),
    "margin": (-0.49, 2),
    "shift": (-1, 1),
    **dict.fromkeys(("rotate", "hue", "saturation", "value"), (0, 360)),
    **dict.fromkeys(("class_weights", "loss_weights"), (0, math.inf)),
    "validation": (0.01, 0.9),
    "test": (0, 0.9),
    "scale": (0, 0.9),
    "learning_rate": (1e-12, math.inf),
}


def names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_recipe(name: str, changes: tuple[str, ...] = ()) -> Recipe:
    """The recipe of that name or file, with `key.sub=value` changes applied; SettingsError otherwise."""
    own = Path(name).suffix in (".yaml", ".yml")
    path = Path(name) if own else RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise SettingsError(f"{path}: there is no such recipe file" if own else unknown("recipe", name, names()))
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"{path}: expected YAML, got something else ({error})") from error
    if not isinstance(raw, dict):
        raise SettingsError(f"{path}: expected keys and values, got {type(raw).__name__}")
    raw.setdefault("name", path.stem)
    for change in changes:
        apply(raw, change)
    return parse(raw, path.name)


def apply(raw: dict, change: str) -> None:
    """Set one `key.sub=value` in a raw recipe; list entries are named by position or by their name."""
    key, equals, value = change.partition("=")
    if not equals:
        raise SettingsError(f"--set {change}: expected key.sub=value, for example stages.0.epochs=5")
    *way, last = key.strip().split(".")
    try:
        wanted = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SettingsError(f"--set {change}: expected a value in YAML, got {value!r} (brackets, quotes?)") from error
    place: object = raw
    for step in way:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[_position(place, step, key)]
    if isinstance(place, list):
        place[_position(place, last, key)] = wanted
    elif isinstance(place, dict):
        place[last] = wanted
    else:
        raise SettingsError(f"--set {change}: {'.'.join(way)} is a value, it has no key {last!r}")


def parse(raw: Mapping, where: str) -> Recipe:
    """A checked recipe from plain values; SettingsError says which key is wrong."""
    recipe = _build(Recipe, raw, where)
    _check_heads(recipe, where)
    for position, stage in enumerate(recipe.stages):
        earlier_stages(recipe, position)
        _check_stage(recipe, stage, f"{where}: stages.{stage.name}")
    first = recipe.stages[0]
    if first.teacher_share and ITSELF in first.teachers:
        raise SettingsError(f"{where}: stages.{first.name}: teacher_share needs an earlier stage to learn from")
    if recipe.select == "f1" and any(len(head.labels) > 2 for head in recipe.heads):
        raise SettingsError(f"{where}: select: f1 is of the second of two labels; with more of them expected macro_f1")
    if "weights" in recipe.options:
        raise SettingsError(f"{where}: options.weights: name them as backbone, for example backbone: imagenet")
    _check_files(recipe, where)
    return recipe


def _check_heads(recipe: Recipe, where: str) -> None:
    if not recipe.heads or not recipe.stages:
        raise SettingsError(f"{where}: expected at least one head and one stage")
    for key, entries in (("heads", recipe.heads), ("stages", recipe.stages)):
        found = [entry.name for entry in entries]
        if len(set(found)) < len(found):
            raise SettingsError(f"{where}: {key}: expected different names, got {', '.join(found)}")
    for head in recipe.heads:
        at, words = f"{where}: heads.{head.name}", [canonical(label) for label in head.labels]
        if not HEAD.fullmatch(head.name) or head.name in TAKEN:
            raise SettingsError(
                f"{at}: expected a name of Latin letters, digits, _ . and -, and none of {', '.join(TAKEN)}; "
                "labels may be of any letters"
            )
        if len(words) < 2 or len(set(words)) < len(words):
            raise SettingsError(f"{at}: expected two or more different labels, got {list(head.labels)}")
        if UNSURE in words:
            raise SettingsError(f"{at}: {UNSURE!r} is what is said where no label can be; name that label otherwise")
        if head.kind == "sigmoid" and len(words) != 2:
            raise SettingsError(f"{at}: a sigmoid head has two labels, got {list(head.labels)}")
        if strange := set(head.class_weights) - set(head.labels):
            mend = f"weigh those, or none: --set 'heads.{head.name}.class_weights={{}}'"
            raise SettingsError(f"{at}.class_weights: {unknown('label', min(strange), head.labels)}; {mend}")


def _check_stage(recipe: Recipe, stage: Stage, at: str) -> None:
    if stage.teacher_share and not stage.teachers:
        raise SettingsError(f"{at}: teacher_share needs teachers, got none")
    refuse_unknown(f"{at}.loss_weights", stage.loss_weights, [head.name for head in recipe.heads])
    if stage.warmup and stage.schedule != "cosine":
        raise SettingsError(f"{at}: warmup goes with schedule=cosine, got {stage.schedule}")
    if recipe.select == LAST and (stage.stop_after or stage.schedule == "plateau"):
        raise SettingsError(
            f"{at}: select=last looks at no measure; expected stop_after 0 and another schedule than plateau, "
            f"got {stage.stop_after} and {stage.schedule}"
        )


def _check_files(recipe: Recipe, where: str) -> None:
    refuse_unknown(f"{where}: export.files", recipe.export.files, (*EXTRA, *VARIANTS))
    own = ("manifest.json", "CARD.md", "model.keras", *(f"{variant}.tflite" for variant in VARIANTS))
    for name in (*(stage.name for stage in recipe.stages), *recipe.export.files.values()):
        if Path(name).name != name or name in own:
            raise SettingsError(f"{where}: {name!r}: expected a plain name, for a file or folder of its own")
    if not recipe.export.files.get("weights", ".weights.h5").endswith(".weights.h5"):
        raise SettingsError(f"{where}: export.files.weights: expected a name that ends with .weights.h5")


def parse_crop(raw: object) -> Crop:
    """A checked crop from plain values; SettingsError says which key is wrong."""
    return _build(Crop, raw, "crop")


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe, whole or not at all."""
    with whole(path) as part:
        text = yaml.safe_dump(_plain(dataclasses.asdict(recipe)), sort_keys=False, allow_unicode=True)
        part.write_text(text, encoding="utf-8")


def _build(kind: type, raw: object, where: str) -> typing.Any:
    if not isinstance(raw, Mapping):
        raise SettingsError(f"{where}: expected keys and values, got {raw!r}")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    refuse_unknown(where, raw, fields)
    for name, item in fields.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and name not in raw:
            raise SettingsError(f"{where}: the key {name!r} is missing")
    return kind(**{name: _value(hints[name], value, f"{where}: {name}", name) for name, value in raw.items()})


def _value(hint: object, value: object, where: str, name: str) -> object:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, one, f"{where}[{i}]", name) for i, one in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            inner = typing.get_args(hint)[1]
            return {key: _value(inner, one, f"{where}.{key}", name) for key, one in value.items()}
    elif hint is object:
        return value
    elif hint is float and _number(value) is not None:
        return _inside(_number(value), where, name)
    elif isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and type(value) is hint:
        if name in CHOICES and value not in CHOICES[name]:
            raise SettingsError(f"{where}: {unknown('value', str(value), CHOICES[name])}")
        return _inside(value, where, name)
    quote = "; YAML takes a bare yes, no or number for something else: write it in quotes" if hint is str else ""
    raise SettingsError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}{quote}")


def _inside(value: typing.Any, where: str, name: str) -> typing.Any:
    low, high = RANGES.get(name, (None, None))
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where}: expected a finite number, got {value}")
    if low is not None and not low <= value <= high:
        most = "or more" if high == math.inf else f"to {high}"
        raise SettingsError(f"{where}: expected {low} {most}, got {value}")
    return value


def _number(value: object) -> float | None:
    """A float; YAML 1.1 reads 1e-4, without a point, as text."""
    try:
        return None if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _position(place: object, step: str, key: str) -> int:
    if isinstance(place, list):
        for position, entry in enumerate(place):
            if step == str(position) or (isinstance(entry, dict) and entry.get("name") == step):
                return position
        known = [entry.get("name", i) if isinstance(entry, dict) else i for i, entry in enumerate(place)]
        raise SettingsError(f"--set {key}: {unknown('entry', step, known)}")
    raise SettingsError(f"--set {key}: {step!r} is below a value, not below keys")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
