"""`calmcam crop`: the faces of labelled pictures and clips, cut as the edge cuts them, to train on."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click
import numpy as np

from .. import plugins, runs
from ..build import expression_model, file_kind, file_record, open_detector, open_file
from ..errors import CalmcamError, InputError, OutputError, SourceError
from ..inputs import Input, apart, expand
from ..manifest import Crop
from ..manifest import Input as Picture
from ..media import pictures_below, read_picture
from ..preprocess import crop_faces, crop_squares
from ..report import Report
from ..run import Stop, run
from ..settings import Settings
from ..types import Result, Sink, Stage
from .console import counted, printable
from .options import Signals, output_options, settings_options
from .progress import ProgressBar

LARGEST = 512  # px, side of a crop; larger faces are scaled down
SHOWN = 10  # names in the summary


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@settings_options("model", "detector", "conf", "min_size")
@output_options
@click.option("--vid-stride", "stride", type=click.IntRange(1), default=10, show_default=True,
              help="Every n-th frame of a clip.")  # fmt: skip
@click.pass_context
def crop(
    ctx: click.Context, folder: Path, settings: Settings, output_dir: Path | None, exist_ok: bool, stride: int
) -> None:
    """Cut the faces out of labelled pictures and clips, to train on.

    FOLDER holds a folder per class; the output has the same folders with a PNG per face. Of each picture the most
    confident face is taken, cut as the model's manifest says: what `calmcam train` then learns from is what the camera
    will show. Of clip.mp4 the crops are clip.f000000.png, clip.f000010.png and so on.
    """
    items = _items(folder)
    cutting = _Cutting()
    with Signals() as stop, ExitStack() as held:
        manifest = expression_model(settings.model)
        artifact, detect = open_detector(settings)
        held.callback(detect.close)
        name = folder.resolve().name
        out = runs.output_folder(output_dir, Path(settings.runs_dir) / "crop", name, exist_ok=exist_ok)
        before = {path: _written(path) for path in pictures_below(out)}
        outputs = _outputs(items, folder, out)
        same = out.resolve() == folder.resolve()
        if same or set(map(os.path.realpath, (item.path for item in items))) & set(map(os.path.realpath, outputs)):
            raise OutputError(f"{out}: the crops would replace the pictures themselves; name another folder with -o")
        try:
            cutting.work(items, outputs, detect, manifest.crop, stride, stop)
        finally:
            runs.discard_empty(out)
    if cutting.report.faces:
        detector = file_record("face_detection", settings.detector, artifact)
        about = {"model": {"name": manifest.name}, "detector": detector, "arguments": ctx.params}
        runs.record(out, cutting.report, about)
        runs.write_record(out, {"crop": asdict(manifest.crop)}, "crop.json")  # for the trainer
    _tell(items, folder, cutting, stopped=stop.requested)
    if cutting.report.faces:
        if old := [path for path, written in before.items() if _written(path) == written]:
            left = f"{counted(len(old), 'picture')} of an earlier run left as they were"
            click.echo(f"{left}, {printable(old[0])} for one", err=True)
        click.echo(f"faces in {out}")
    ctx.exit(stop.exit_code or max((error.exit_code for error in cutting.failed), default=0))


def _items(folder: Path) -> list[Input]:
    """The pictures and clips in the folders of `folder`; InputError where there are none, or some beside them."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        expected = "expected a folder that holds a folder of pictures or clips per class"
        raise InputError(f"{folder}: cannot be read ({error.strerror}); {expected}") from error
    items = expand([str(folder)])
    if loose := [item.path.name for item in items if not item.problem and item.path.parent == folder]:
        raise InputError(
            f"{folder}: expected a folder per class, got {len(loose)} files beside them, {loose[0]} for one"
        )
    return items


def _tell(items: Sequence[Input], folder: Path, cutting: _Cutting, *, stopped: bool) -> None:
    """Sum up; InputError when all was looked at and no face was found."""
    after = f"stopped after {cutting.done} of " if stopped else ""
    click.echo(f"{after}{counted(len(items), 'input')}, {counted(cutting.report.frames, 'picture')}")
    if empty := cutting.empty:
        more = f" and {len(empty) - SHOWN} more" if len(empty) > SHOWN else ""
        click.echo(f"no face in {', '.join(printable(path) for path in empty[:SHOWN])}{more}")
        click.echo(f"{cutting.gave} of {counted(cutting.done, 'input')} gave a face")
        if len(empty) > cutting.gave and _are_cut(empty[:SHOWN]):
            click.echo(f"{folder}: if these are cut faces, give the folder to calmcam train as it is", err=True)
    if not cutting.report.faces and not cutting.failed and not stopped:
        raise InputError(f"{folder}: no face was found; expected pictures of faces, or try a lower --conf")


def _are_cut(paths: Sequence[Path]) -> bool:
    """Whether the inputs at `paths` are pictures of the shape of cut faces."""
    if any(file_kind(str(path)) == "video" for path in paths):
        return False
    return all(is_cut(*read_picture(path).shape[:2]) for path in paths)


def is_cut(height: int, width: int) -> bool:
    """Whether a picture has the shape of a cut face, about square and small."""
    return max(height, width) <= min(LARGEST, 1.25 * min(height, width))


def _written(path: Path) -> int:
    """When the file was written, in ns; 0 when it is gone."""
    return path.stat().st_mtime_ns if path.exists() else 0


def _outputs(items: Sequence[Input], folder: Path, out: Path) -> list[Path]:
    """The PNG of every input: in the same place below `out`, of the whole name where two have one stem."""
    below: dict[Path, list[Path]] = defaultdict(list)
    for item in items:
        below[item.path.parent].append(item.path)
    made = {}
    for place, paths in below.items():
        times = Counter(path.stem.lower() for path in paths)
        names = apart([path.name if times[path.stem.lower()] > 1 else path.stem for path in paths])
        made |= {path: out / place.relative_to(folder) / f"{name}.png" for path, name in zip(paths, names, strict=True)}
    return [made[item.path] for item in items]


@dataclass(eq=False)
class _Cutting:
    """What became of the inputs."""

    report: Report = field(default_factory=Report)  # of all together
    done: int = 0
    gave: int = 0  # of them a face; one that breaks off may have
    failed: list[CalmcamError] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)

    def work(
        self, items: Sequence[Input], outputs: Sequence[Path], detect: Stage, crop: Crop, stride: int, stop: Stop
    ) -> None:
        """Cut all inputs, the bad ones left out, until `stop`."""
        with ProgressBar(len(items)) as bar:
            for number, (item, output) in enumerate(zip(items, outputs, strict=True)):
                before = self.report.faces
                try:
                    if item.problem:
                        raise SourceError(item.problem)
                    source = open_file(item.path, stride=stride)
                    faces = _Faces(output, crop, clip=file_kind(str(item.path)) == "video")
                    sinks = [faces, bar.counter(number, source)]
                    run(source, [("detect", detect)], sinks, live=False, stop=stop, report=self.report)
                except OutputError:
                    raise
                except InputError as error:
                    self.failed.append(error.with_traceback(None))
                    bar.say(f"{error}", failed=True)
                else:
                    if self.report.faces == before and not stop.requested:
                        self.empty.append(item.path)
                if stop.requested:
                    break
                self.done += 1
                self.gave += self.report.faces > before


class _Faces(Sink):
    """A sink that writes the most confident face of each result to `path`, of a clip with the frame in its name."""

    name = "write"

    def __init__(self, path: Path, crop: Crop, *, clip: bool) -> None:
        self._path, self._crop, self._clip = path, crop, clip

    def write(self, result: Result) -> None:
        if not len(result.faces):
            return  # and a folder without a face is not made
        frame = f".f{result.frame.index:06d}" if self._clip else ""
        path = self._path.with_name(f"{self._path.stem}{frame}.png")
        with plugins.load("sinks", "pictures").Sink(path) as pictures:
            pictures.write(replace(result, picture=cut(result, self._crop)))


def cut(result: Result, crop: Crop) -> np.ndarray:
    """The first face of a result, (side, side, 3) uint8 RGB, `side` as large as in the picture and at most LARGEST."""
    boxes, points = result.faces.boxes[:1], result.faces.points
    side = min(LARGEST, max(1, round(float(crop_squares(boxes, crop)[0, 2]))))
    spec = Picture(side, side, "rgb", "uint8")
    return crop_faces(result.frame.image, boxes, None if points is None else points[:1], crop, spec)[0]
