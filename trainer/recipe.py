"""What a training run is: the keys of a recipe, their defaults and what each means. `recipe_file.py` reads and checks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge_app.errors import SettingsError, unknown
from edge_app.manifest import Crop, Input

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
    test: float = 0.0  # share held out of each data set that brings no test part
    near: int = 4  # dHash bits (of 64) in which near-identical images may differ
    group: str = ""  # regular expression, its first group names person, session or video; searched in "/" and the path
    # below the class's folder: of shy/p07_smile.png in /p07_smile.png
    groups_file: str = ""  # CSV beside the images: file,group
    votes: str = "ferplus_votes.csv"  # looked for beside the images, as is the published fer2013new.csv; "" none
    limit: int = 0  # images per class for train and validation together, 0 = all; for trials
    seed: int = 1  # of the division; runs that differ in the recipe's seed alone can teach each other


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
    # Weights: the "best" so far, the "average" of those that all earlier stages ended with, or of stages "a+b"
    # (arXiv 2203.05482).
    start: str = "best"
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
    calibration: int = 1024  # train crops for the Hailo compiler; a quarter more are saved, of which some judge
    max_loss: float = 0.5  # points of accuracy, each file against Keras
    min_agreement: float = 0.95  # share of images with the same answer
    files: Mapping[str, str] = field(default_factory=dict)  # variant or one of EXTRA -> extra file name


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
    seed: int = 1  # of first weights, order and augmentation
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


def earlier_stages(recipe: Recipe, position: int) -> list[int]:
    """Positions of the stages whose ends make the start of the stage at `position`; SettingsError for unknown names."""
    stage, names = recipe.stages[position], [one.name for one in recipe.stages[:position]]
    if stage.start in ("best", "average"):
        return list(range(position))[-1 if stage.start == "best" else 0 :]
    wanted = stage.start.split("+")
    refuse_unknown(
        f"{recipe.name}: stages.{stage.name}.start", wanted, names if len(wanted) > 1 else ["best", "average", *names]
    )
    return [names.index(name) for name in wanted]


def refuse_unknown(where: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """SettingsError with the nearest known key for the first that is not known."""
    known = list(known)
    for key in keys:
        if key not in known:
            raise SettingsError(f"{where}: {unknown('key', key, known)}")
