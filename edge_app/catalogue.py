"""The models that are there: read, ranked by their own scores, and tried."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BackendError, CalmcamError, MissingPackage, ModelError
from .files import may_be_there
from .heads import answers
from .labels import same
from .manifest import CPU_VARIANTS, Artifact, Head, Manifest, find_model, installed, read_manifest, verify

log = logging.getLogger(__name__)

CARD = "CARD.md"
BOTH = ("int8", "float32")
APART = 0.25  # of a probability: those of emotions differ by 0.02; a CPU that computes int8 wrongly answers at random
QUANTUM = 0.01  # that a probability may be off by where it was rounded to 8 bits
_PREFERRED = (("split", "test"), ("metric", "accuracy"))


@dataclass(frozen=True, slots=True)
class Entry:
    """One model folder."""

    folder: Path
    manifest: Manifest | None  # None when it does not hold
    problem: str = ""  # why not


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying one file of a model."""

    model: str
    variant: str
    good: bool
    text: str


def entries(place: Path | None = None) -> list[Entry]:
    """The installed models, or those of a folder: it may be a model's own or hold models; broken ones too."""
    if place is None:
        return [_entry(folder) for folder in installed().values()]
    folder = place.parent if place.name == "manifest.json" else place
    if folder != place or may_be_there(place / "manifest.json"):
        return [_entry(folder)]
    folders = [path.parent for path in sorted(place.glob("*/manifest.json"))]
    if not folders:
        raise ModelError(
            f"{place}: no model there; expected a folder with a manifest.json, or a folder of such folders"
        )
    return [_entry(folder) for folder in folders]


def named(names: tuple[str, ...]) -> list[Entry]:
    """The models of these names or folders, all installed ones for none; SettingsError for an unknown name."""
    if not names:
        return entries()
    known = installed()
    found: list[Entry] = []
    for name in names:
        if there := same(name, known):
            found.append(_entry(known[there]))
        elif may_be_there(name):
            found += entries(Path(name))
        else:
            find_model(name)  # raises, naming the nearest
    return found


def best_score(manifest: Manifest) -> Mapping[str, Any] | None:
    """The score to show for a model, None without scores.

    Of its first head, on the test part, accuracy, of the file that a CPU runs; of those that are left the highest.
    """
    if not manifest.scores:
        return None
    first = manifest.heads[0].name if manifest.heads else ""
    preferred = (("head", first), *_PREFERRED, ("variant", _runs(manifest)))
    return max(manifest.scores, key=lambda s: (*(s.get(key) == value for key, value in preferred), s["value"]))


def chief_scores(manifest: Manifest) -> list[Mapping[str, Any]]:
    """The scores of the file that a CPU runs and of float32; all where neither has any."""
    chief = (_runs(manifest), "float32")
    return [score for score in manifest.scores if score["variant"] in chief] or list(manifest.scores)


def _runs(manifest: Manifest) -> str:
    """The variant that a CPU runs."""
    return next((variant for variant in CPU_VARIANTS if variant in manifest.artifacts), "")


def score_text(score: Mapping[str, Any] | None, *, of_head: bool = False) -> str:
    """A score with its sample size and 95 % interval in words, and `of_head` whose it is."""
    if score is None:
        return "not stated"
    low_high = score.get("interval")
    interval = f" ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else ""
    of = f" of {score['head']}" if of_head else ""
    return (
        f"{score['metric']}{of} {score['value']:.3f}{interval}, {score['split']} n={score['n']:,}, {score['variant']}"
    )


def trials(
    manifest: Manifest, open_backend: Callable[[Artifact], Any], open_detector: Callable[[Path], Any]
) -> Iterator[Trial]:
    """Try every file: size and hash, then load it and let it answer a grey picture; then int8 against float32."""
    good = []
    for variant, artifact in manifest.artifacts.items():
        try:
            text = _tried(manifest, artifact, open_backend, open_detector)
        except CalmcamError as error:
            yield Trial(manifest.name, variant, False, str(error))
        else:
            good.append(variant)
            yield Trial(manifest.name, variant, True, text)
    if manifest.heads and set(BOTH) <= set(good):
        yield agreement(manifest, open_backend)


def agreement(manifest: Manifest, open_backend: Callable[[Artifact], Any]) -> Trial:
    """Whether this processor computes int8 as it computes float32: both answer the same drawn pictures.

    XNNPACK gave unrelated int8 answers on an emulated processor, while everything loaded and ran.
    """
    int8, float32 = (_drawn_answers(manifest, manifest.artifact(variant), open_backend) for variant in BOTH)
    apart = max(float(np.abs(int8[head] - float32[head]).max()) for head in int8)
    text = f"agree on drawn pictures within {apart:.2f}"
    if not apart <= APART:
        text = f"differ by {apart:.2f} on drawn pictures, {APART} is the most: this processor computes int8 wrongly"
        text += ", or the model was quantised badly; run with --variant float32"
    return Trial(manifest.name, " and ".join(BOTH), apart <= APART, text)


def _entry(folder: Path) -> Entry:
    try:
        return Entry(folder, read_manifest(folder / "manifest.json"))
    except CalmcamError as error:
        return Entry(folder, None, str(error))


def _tried(manifest: Manifest, artifact: Artifact, open_backend: Callable, open_detector: Callable) -> str:
    verify(artifact)
    if not manifest.heads:
        open_detector(artifact.path).close()
        return "hash agrees, loads"
    try:
        backend = open_backend(artifact)
    except (BackendError, MissingPackage) as error:
        if artifact.path.suffix != ".hef":
            raise
        return f"hash agrees; not loaded: {error}"
    with closing(backend):
        check_answer(manifest, artifact, backend)
    return f"hash agrees, loads, answers ({backend.device})"


def _drawn_answers(manifest: Manifest, artifact: Artifact, open_backend: Callable) -> dict[str, np.ndarray]:
    """By head the probabilities (4, C) of rings of four widths."""
    from .preprocess import to_input  # needs OpenCV, which `calmcam doctor` may find broken

    spec = artifact.input
    y, x = np.mgrid[-1 : 1 : spec.height * 1j, -1 : 1 : spec.width * 1j]
    rings = [127.5 + 127.5 * np.cos(count * np.pi * np.hypot(x, y)) for count in (1, 2, 4, 8)]
    crops = np.repeat(np.array(rings, np.uint8)[..., None], spec.channels, axis=3)
    with closing(open_backend(artifact)) as backend:
        outputs = backend.infer(to_input(crops, spec))
    return answers(manifest.heads, artifact, outputs)


def check_answer(manifest: Manifest, artifact: Artifact, backend: Any) -> None:
    """Let an opened artifact answer a grey picture; ModelError where that does not fit the manifest's heads."""
    spec = artifact.input
    grey = np.full((1, spec.height, spec.width, spec.channels), 128, spec.dtype)
    outputs = backend.infer(grey)
    for head in manifest.heads:
        values = outputs[artifact.outputs[head.name]]
        expected = 1 if head.kind == "sigmoid" else len(head.labels)
        if values.shape != (1, expected):
            raise ModelError(
                f"{artifact.path}: head {head.name!r}: expected {expected} values for {head.kind} over "
                f"{len(head.labels)} labels, got {' x '.join(map(str, values.shape[1:]))}; export the model again"
            )
        _check_emits(artifact, head, values[0])
        if not np.isfinite(answers([head], artifact, outputs)[head.name]).all():
            raise ModelError(f"{artifact.path}: head {head.name!r}: gave no numbers (NaN); export the model again")


def _check_emits(artifact: Artifact, head: Head, values: np.ndarray) -> None:
    """ModelError for "probabilities" that cannot be; a warning where "logits" (C,) look like probabilities.

    Few bits round probabilities far, so that their sum may be.
    """
    if not np.isfinite(values).all():
        return
    total = 1.0 if head.kind == "sigmoid" else float(values.sum())
    inside = -0.1 <= values.min() and values.max() <= 1.1
    if artifact.emits == "probabilities" and not (inside and 0.5 <= total <= 1.5):
        raise ModelError(
            f"{artifact.path}: head {head.name!r}: expected probabilities, as the manifest's emits says, got "
            f"{', '.join(f'{value:.2f}' for value in values[:7])}; without softmax inside it is emits: logits"
        )
    shares = values.min() >= 0 and abs(total - 1) <= QUANTUM * len(values)
    if artifact.emits == "logits" and shares and head.kind == "softmax":
        log.warning(
            "%s: head %r: what should be logits sums to one; with softmax inside the manifest needs emits: probabilities",
            artifact.path, head.name,
        )  # fmt: skip
