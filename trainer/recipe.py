"""What a training run is: `trainer/recipes/<name>.yaml`, read, checked against these classes and changed by `--set`.

An unknown key or a value of the wrong type is refused with the nearest known key; nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from edge_app.errors import SettingsError
from edge_app.files import whole
from edge_app.labels import UNSURE, canonical
from edge_app.manifest import Crop, Input, unknown

RECIPES = Path(__file__).parent / "recipes"
VARIANTS = ("float32", "float16", "dynamic", "int8")  # TFLite files
EXTRA = ("keras", "weights", "backbone")  # what else an export can write under a name of its own
ITSELF = "itself"  # among a stage's teachers: the network as the stage found it
LAST = "last"  # `select`: the weights that the schedule ends with, when validation is too small to choose by
EVERY = "*"  # a head with this `data` tells the data sets apart: its labels are their names


@dataclass(frozen=True)
class Picture:
    """What the network takes: square pictures of that side in pixels."""

    size: int = 48
    colour: str = "gray"  # or "rgb"

    @property
    def spec(self) -> Input:
        """The same as the edge states it: raw pixels, nothing left to do."""
        return Input(self.size, self.size, self.colour, "uint8")


@dataclass(frozen=True)
class HeadRecipe:
    """One question and the data set that answers it."""

    name: str
    labels: tuple[str, ...]
    kind: str = "softmax"  # or "sigmoid": one logit for the second label
    data: str = ""  # name of its data set; "" the only one; "*" the label is the name of the data set
    class_weights: Mapping[str, float] = field(default_factory=dict)  # label -> factor on the loss


@dataclass(frozen=True)
class DataRecipe:
    """How images become parts."""

    validation: float = 0.1  # share of the pictures that are not held out
    test: float = 0.0  # share held out when the data brings no test part
    near: int = 4  # dHash bits (of 64) in which near-identical images may differ
    group: str = ""  # regular expression on the file's name; its first group names person, session or video
    groups_file: str = ""  # CSV beside the images: file,group
    votes: str = "ferplus_votes.csv"  # looked for beside the images, as is the published fer2013new.csv; "" none
    limit: int = 0  # images per class for train and validation together, 0 = all; for trials


@dataclass(frozen=True)
class Balance:
    """How often an epoch shows each class."""

    power: float = 0.0  # 0 as found, 1 all classes equally often
    per_class: int = 0  # that many images per class and epoch, but for what fills no last batch; 0 = off


@dataclass(frozen=True)
class AugmentRecipe:
    """How far a training picture is moved; see `augment.py`."""

    flip: float = 0.5  # probability
    shift: float = 0.0  # of the side
    scale: float = 0.0  # share, both ways
    rotate: float = 0.0  # degrees, both ways
    brightness: float = 0.0  # of 255, both ways
    contrast: float = 0.0  # share, both ways
    hue: float = 0.0  # OpenCV units of 2 degrees, both ways; rgb only
    saturation: float = 0.0  # units of 255, both ways; rgb only
    value: float = 0.0  # units of 255, both ways; rgb only
    noise: float = 0.0  # standard deviation of Gaussian noise, of 255
    erase: float = 0.0  # probability of one blanked rectangle
    erase_area: float = 0.2  # its largest share of the picture
    mixup: float = 0.0  # alpha of the Beta distribution, 0 = off


@dataclass(frozen=True)
class Stage:
    """One `fit` with its own optimiser."""

    name: str
    epochs: int
    learning_rate: float
    schedule: str = "cosine"  # to zero over the stage; "constant"; "plateau" halves on validation
    warmup: float = 0.0  # epochs of linear warm-up, for "cosine"
    optimizer: str = "adamw"  # "sgd" is Nesterov momentum 0.9
    weight_decay: float = 0.0
    loss_weights: Mapping[str, float] = field(default_factory=dict)  # head -> weight, 1 where unnamed
    freeze: float = 0.0  # share of the backbone's layers, from the input on, that does not learn
    freeze_norm: bool = False  # batch normalisation keeps its statistics: the network learns as it will be used
    rounding: bool = False  # learn with activations rounded as int8 will round them; see `rounding.py`
    label_smoothing: float = 0.0  # where an image has no votes
    votes_share: float = 0.0  # share of the vote distribution in the target, where an image has votes
    start: str = (
        "best"  # weights so far; "average" of what all earlier stages, or "a+b" those, ended with (arXiv 2203.05482)
    )
    teacher_share: float = 0.0  # share of the target that the teachers answer; see `teacher.py`
    teachers: tuple[str, ...] = (ITSELF,)  # that, and the folders of finished runs
    teacher_views: int = 0  # they answer once, by their mean over so many moved views; 0 = anew to what is shown
    stop_after: int = 0  # epochs without improvement, 0 = never
    reduce_after: int = 3  # epochs without improvement, for "plateau"


@dataclass(frozen=True)
class ExportRecipe:
    """What `calmcam export` makes of the run, and beyond which loss it refuses."""

    variants: tuple[str, ...] = VARIANTS
    representative: int = 512  # train crops that calibrate int8
    calibration: int = 1024  # train crops saved for the Hailo compiler
    max_loss: float = 0.5  # points of accuracy, int8 against float32
    min_agreement: float = 0.95  # share of images with the same answer
    files: Mapping[str, str] = field(default_factory=dict)  # variant, "keras" or "weights" -> extra file name


@dataclass(frozen=True)
class Recipe:
    """A validated recipe."""

    name: str
    family: str
    heads: tuple[HeadRecipe, ...]
    stages: tuple[Stage, ...]
    task: str = "face_expression"
    options: Mapping[str, object] = field(default_factory=dict)  # of the family's `build`
    backbone: str = "none"  # "imagenet", "dlib", "emotions", a run, a .keras or dlib's .dat file, or "none"
    input: Picture = Picture()
    crop: Crop = Crop()
    data: DataRecipe = DataRecipe()
    balance: Balance = Balance()
    augment: AugmentRecipe = AugmentRecipe()
    batch: int = 128
    seed: int = 1
    precision: str = "auto"  # "float32", "mixed_bfloat16", "mixed_float16"; auto asks the machine
    ema: float = 0.0  # momentum of the averaged weights that are judged and kept, 0 = off
    clip: float = 0.0  # largest global gradient norm, 0 = off
    select: str = "macro_f1"  # validation measure, mean of the heads, that chooses the weights; "last" chooses none
    export: ExportRecipe = ExportRecipe()

    def head(self, name: str) -> HeadRecipe:
        """The head of that name; SettingsError when there is none."""
        known = {head.name: head for head in self.heads}
        if name not in known:
            raise SettingsError(f"{self.name}: {unknown('head', name, list(known))}")
        return known[name]

    def others(self, first: int = 0) -> list[str]:
        """The runs that teach it from the stage at `first` on, each once."""
        taught = (stage for stage in self.stages[first:] if stage.teacher_share)
        return list(dict.fromkeys(name for stage in taught for name in stage.teachers if name != ITSELF))

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def choice(self) -> str:
        """How the weights are chosen, in words."""
        return "the schedule's last" if self.select == LAST else f"chosen by {self.select} on validation"


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
    path = Path(name) if Path(name).suffix in (".yaml", ".yml") else RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise SettingsError(unknown("recipe", name, names()))
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
    heads, stages = ([one.name for one in part] for part in (recipe.heads, recipe.stages))
    if not heads or not stages:
        raise SettingsError(f"{where}: expected at least one head and one stage")
    for key, names in (("heads", heads), ("stages", stages)):
        if len(set(names)) < len(names):
            raise SettingsError(f"{where}: {key}: expected different names, got {', '.join(names)}")
    for head in recipe.heads:
        if len(head.labels) < 2 or len(set(map(canonical, head.labels))) < len(head.labels):
            raise SettingsError(
                f"{where}: heads.{head.name}: expected two or more different labels, got {list(head.labels)}"
            )
        if UNSURE in map(canonical, head.labels):
            raise SettingsError(
                f"{where}: heads.{head.name}: {UNSURE!r} is what is said where no label can be; name that label otherwise"
            )
        if head.kind == "sigmoid" and len(head.labels) != 2:
            raise SettingsError(f"{where}: heads.{head.name}: a sigmoid head has two labels, got {list(head.labels)}")
        _refuse(f"{where}: heads.{head.name}.class_weights", head.class_weights, head.labels)
    for position, stage in enumerate(recipe.stages):
        earlier_stages(recipe, position)
        if stage.teacher_share and not stage.teachers:
            raise SettingsError(f"{where}: stages.{stage.name}: teacher_share needs teachers, got none")
        _refuse(f"{where}: stages.{stage.name}.loss_weights", stage.loss_weights, heads)
        if stage.warmup and stage.schedule != "cosine":
            raise SettingsError(f"{where}: stages.{stage.name}: warmup goes with schedule=cosine, got {stage.schedule}")
        if recipe.select == LAST and (stage.stop_after or stage.schedule == "plateau"):
            raise SettingsError(
                f"{where}: stages.{stage.name}: select=last looks at no measure; expected stop_after 0 and another "
                f"schedule than plateau, got {stage.stop_after} and {stage.schedule}"
            )
    if recipe.select == "f1" and any(len(head.labels) > 2 for head in recipe.heads):
        raise SettingsError(f"{where}: select: f1 is of the second of two labels; with more of them expected macro_f1")
    if recipe.stages[0].teacher_share and ITSELF in recipe.stages[0].teachers:
        raise SettingsError(
            f"{where}: stages.{recipe.stages[0].name}: teacher_share needs an earlier stage to learn from"
        )
    if "weights" in recipe.options:
        raise SettingsError(f"{where}: options.weights: name them as backbone, for example backbone: imagenet")
    _refuse(f"{where}: export.files", recipe.export.files, (*EXTRA, *VARIANTS))
    own = ("manifest.json", "CARD.md", "model.keras", *(f"{variant}.tflite" for variant in VARIANTS))
    for name in (*stages, *recipe.export.files.values()):
        if Path(name).name != name or name in own:
            raise SettingsError(f"{where}: {name!r}: expected a plain name, for a file or folder of its own")
    if not recipe.export.files.get("weights", ".weights.h5").endswith(".weights.h5"):
        raise SettingsError(f"{where}: export.files.weights: expected a name that ends with .weights.h5")
    return recipe


def parse_crop(raw: object) -> Crop:
    """A checked crop from plain values; SettingsError says which key is wrong."""
    return _build(Crop, raw, "crop")


def earlier_stages(recipe: Recipe, position: int) -> list[int]:
    """Positions of the stages whose ends make the start of the stage at `position`; SettingsError for unknown names."""
    stage, names = recipe.stages[position], [one.name for one in recipe.stages[:position]]
    if stage.start in ("best", "average"):
        return list(range(position))[-1 if stage.start == "best" else 0 :]
    wanted = stage.start.split("+")
    _refuse(
        f"{recipe.name}: stages.{stage.name}.start", wanted, names if len(wanted) > 1 else ["best", "average", *names]
    )
    return [names.index(name) for name in wanted]


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
    _refuse(where, raw, fields)
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
    raise SettingsError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}")


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


def _refuse(where: str, raw: typing.Iterable[str], known: typing.Iterable[str]) -> None:
    known = list(known)
    for key in raw:
        if key not in known:
            raise SettingsError(f"{where}: {unknown('key', key, known)}")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
