"""Class names of labelled folders: the one table of aliases and of parts that the trainer and `calmcam evaluate` share."""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

from .drawing.words import WORDS

UNSURE = "unsure"  # what is said where no label can be
ALIASES = {
    "anger": "angry",
    "contemptuous": "contempt",
    "disgusted": "disgust",
    "embarrassed": "embarrassment",
    "afraid": "fear",
    "fearful": "fear",
    "scared": "fear",
    "happiness": "happy",
    "joy": "happy",
    "neutrality": "neutral",
    "normal": "neutral",
    "sadness": "sad",
    "shyness": "shy",
    "surprised": "surprise",
    "confusion": "confused",
    "nonteasing": "non_teasing",
    "not_teasing": "non_teasing",
}
PARTS = {  # folders that divide a data set, and whether what is in them is learnt from
    **dict.fromkeys(("train", "training", "val", "valid", "validation", "publictest"), "train"),
    **dict.fromkeys(("test", "testing", "privatetest"), "test"),
}
CLIP = re.compile(r"(.+)\.f[0-9]{6,}\.png$")  # a frame of a clip, as `calmcam crop` names it


def composed(name: str) -> str:
    """A name in Unicode's NFC: macOS takes Hangul syllables apart in file names, keyboards write them whole."""
    return unicodedata.normalize("NFC", name)


def same(name: str, names: Iterable[str]) -> str | None:
    """The one among `names` that is `name`, or else that is written alike; None when none is."""
    known = list(names)
    return name if name in known else next((one for one in known if composed(one) == composed(name)), None)


@functools.lru_cache(1024)
def canonical(name: str) -> str:
    """The one spelling of a class name: lower case, words joined by "_", known aliases mapped, Hangul composed."""
    plain = "_".join(composed(name).casefold().replace("-", " ").replace("_", " ").split())
    return ALIASES.get(plain, plain)


DRAWN = {canonical(text): name for words in WORDS.values() for name, text in words.items()}


def index_of(name: str, labels: Sequence[str]) -> int | None:
    """The place of a class name among a model's labels, aliases on either side allowed; None when it is not there.

    What is no label may be one as it is drawn in some language.
    """
    known, wanted = [canonical(label) for label in labels], canonical(name)
    return next((known.index(one) for one in (wanted, DRAWN.get(wanted)) if one in known), None)


def nearest(name: str, labels: Iterable[str]) -> str | None:
    """The label that reads most like `name`; None when none does."""
    by_spelling = {canonical(label): label for label in labels}
    near = difflib.get_close_matches(canonical(name), by_spelling, n=1, cutoff=0.5)
    return by_spelling[near[0]] if near else None
