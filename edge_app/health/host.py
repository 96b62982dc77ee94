"""What every computer needs: Python, wheels, system libraries, cameras, a display, codecs, models, room."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ..catalogue import BOTH
from ..child import Answer
from ..errors import CalmcamError
from ..manifest import installed, read_manifest, verify
from ..v4l2 import describe
from .checks import BROKEN, OK, WARNING, Check, Machine
from .pi import ribbon

NEEDED = ("numpy", "opencv-contrib-python", "mediapipe", "av", "pillow", "click", "rich", "jsonschema", "matplotlib")
ENGINES = ("ai-edge-litert", "tflite-runtime")
OPENCV = re.compile(r"opencv(-contrib)?-python(-headless)?")
LIBRARIES = {  # what the OpenCV and MediaPipe wheels load: soname to Debian package
    "libxcb.so.1": "libxcb1",
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
}
FOLDERS = ("/lib", "/usr/lib", "/usr/local/lib", "/lib/*-linux-gnu", "/usr/lib/*-linux-gnu", "/lib64", "/usr/lib64")
CODECS = {"libx264": "w", "aac": "w", "h264": "r"}
# Run in a process of its own: these imports may fail, crash or write to the terminal.
PROBE = f"""
import importlib, json
for name in ("cv2", "edge_app.tasks.face_detection"):
    importlib.import_module(name)
codec = importlib.import_module("av.codec").Codec
missing = []
for name, mode in {CODECS!r}.items():
    try:
        codec(name, mode)
    except ValueError:
        missing.append(name)
print(json.dumps(missing))
"""
ANSWERS = """
import json, sys
from pathlib import Path
from edge_app import catalogue, devices, manifest
trials = [catalogue.agreement(manifest.read_manifest(Path(path)), devices.open_backend) for path in sys.argv[1:]]
print(json.dumps([(trial.model, trial.good, trial.text) for trial in trials]))
"""
_OURS = (Path(sys.prefix).parent / "Makefile").is_file()  # a checkout's own environment, as make makes it
REINSTALL = f"install calmcam again, from its checkout: {'make demo' if _OURS else 'deploy/install.sh'}"
LEAST_DISK = 1_000_000_000  # bytes; a run of an hour writes about as much
LEAST_MEMORY = 500_000_000  # bytes; calmcam stays below 350 MB


def distributions() -> dict[str, str]:
    """Installed distributions by lower-case name, with their versions."""
    found = importlib.metadata.distributions()
    return {(dist.metadata["Name"] or "").lower().replace("_", "-"): dist.version for dist in found}


def python(version: tuple[int, ...] = tuple(sys.version_info[:3]), machine: str = platform.machine()) -> Check:
    """Python 3.11 to 3.13 on a 64-bit system; the wheels exist for nothing else."""
    text = f"{'.'.join(map(str, version))} on {machine}, {sys.prefix}"
    if machine not in ("x86_64", "aarch64"):
        return Check("python", BROKEN, f"{text}: no wheels for this processor", "install a 64-bit system")
    if version < (3, 11):
        return Check("python", BROKEN, f"{text}: expected 3.11 to 3.13", "sudo apt install python3.11")
    if version >= (3, 14):
        return Check(
            "python", WARNING, f"{text}: tested with 3.11 to 3.13", "make a virtual environment with python3.13"
        )
    return Check("python", OK, text)


def wheels(dists: Mapping[str, str]) -> Check:
    """Every package that the edge imports."""
    engines = [name for name in ENGINES if name in dists]
    missing = [name for name in NEEDED if name not in dists] + ([] if engines else [ENGINES[0]])
    if missing:
        return Check("wheels", BROKEN, f"missing: {', '.join(missing)}", f"python -m pip install {' '.join(missing)}")
    shown = ("numpy", "opencv-contrib-python", "mediapipe", *engines[:1], "av")
    return Check("wheels", OK, ", ".join(f"{name} {dists[name]}" for name in shown))


def opencv(dists: Mapping[str, str]) -> Check:
    """One OpenCV wheel: they all install the folder `cv2`, over each other."""
    found = sorted(name for name in dists if OPENCV.fullmatch(name))
    if len(found) <= 1:
        return Check("opencv", OK, f"one wheel, {found[0]}" if found else "none")
    mend = f"python -m pip uninstall -y {' '.join(found)} && python -m pip install opencv-contrib-python"
    return Check("opencv", BROKEN, f"{len(found)} wheels that overwrite each other: {', '.join(found)}", mend)


def libraries(machine: Machine) -> Check:
    """The system libraries that a minimal Debian or Pi OS Lite lacks."""
    missing = [name for name in LIBRARIES if not any(machine.find(f"{folder}/{name}") for folder in FOLDERS)]
    if not missing:
        return Check("libraries", OK, ", ".join(LIBRARIES))
    mend = f"sudo apt-get install -y {' '.join(LIBRARIES[name] for name in missing)}"
    return Check("libraries", BROKEN, f"missing: {', '.join(missing)}", mend)


def imports(machine: Machine) -> list[Check]:
    """Whether OpenCV, MediaPipe and PyAV load, and the codecs that annotated videos need."""
    answer: Answer = machine.ask([sys.executable, "-P", "-c", PROBE])
    if answer.status:
        why = answer.last_line or f"the import ended with status {answer.status}"
        library = re.search(r"(lib\S+\.so[.\d]*): cannot open", why)
        package = LIBRARIES.get(library[1]) if library else None
        mend = f"sudo apt-get install -y {package}" if package else REINSTALL
        return [Check("imports", BROKEN, why, mend)]
    loads = Check("imports", OK, "OpenCV, MediaPipe and PyAV load")
    missing = json.loads(answer.out.strip().splitlines()[-1])
    if missing:
        mend = "python -m pip install --force-reinstall --only-binary :all: av"
        return [loads, Check("codecs", BROKEN, f"PyAV lacks {', '.join(missing)}", mend)]
    return [loads, Check("codecs", OK, f"PyAV has {', '.join(CODECS)}")]


def cameras(machine: Machine) -> Check:
    """The Pi's own camera, and video devices that capture by themselves, with their pixel formats."""
    found, refused = ["one on the ribbon connector, --source picamera"] if ribbon(machine) else [], []
    for entry in machine.find("/sys/class/video4linux/video*"):
        camera = describe(str(machine.path(f"/dev/{entry.name}")))
        if camera is None:
            continue
        if camera.problem == os.strerror(errno.EACCES):
            refused.append(entry.name)
            continue
        says = f"cannot be asked, {camera.problem}" if camera.problem else " ".join(camera.formats)
        found.append(f"/dev/{entry.name} {machine.read(entry / 'name')} ({says})")
    if refused:
        mend = "sudo usermod -aG video $USER, then log in again"
        return Check("cameras", BROKEN, f"no permission for /dev/{', /dev/'.join(refused)}", mend)
    if not found:
        return Check("cameras", WARNING, "none", "plug one in, or use --source picamera, a file or a stream")
    return Check("cameras", OK, "; ".join(found))


def display(environment: Mapping[str, str] = os.environ) -> Check:
    """Where a window can be shown: OpenCV's are windows of X, on Wayland too."""
    if environment.get("DISPLAY"):
        return Check("display", OK, f"DISPLAY={environment['DISPLAY']}")
    if environment.get("WAYLAND_DISPLAY"):
        return Check("display", WARNING, "Wayland without XWayland: live runs without a window", "start XWayland")
    return Check(
        "display",
        WARNING,
        "none: live runs without a window",
        "calmcam live --web and look with a browser, --save, or log in there",
    )


def models() -> list[Check]:
    """Every installed model: its manifest, and the hash of each of its files."""
    found = [_model(name, folder) for name, folder in installed().items()]
    names = {check.name for check in found}
    if "model face_detection" not in names:
        found.append(Check("models", BROKEN, "no face_detection, no face can be found", REINSTALL))
    if not names - {"model face_detection"}:
        found.append(Check("models", BROKEN, "none that reads faces", f"{REINSTALL}, or calmcam train emotions"))
    return found


def answers(machine: Machine) -> list[Check]:
    """Whether this processor computes int8 rightly; nothing is said where no model has int8 and float32."""
    paths = [folder / "manifest.json" for folder in installed().values()]
    paths = [str(path) for path in paths if _has_both(path)]
    if not paths:
        return []
    answer = machine.ask([sys.executable, "-P", "-c", ANSWERS, *paths])
    if answer.status:
        why = answer.last_line or f"the interpreter ended with status {answer.status}"
        return [Check("answers", BROKEN, why, "calmcam models verify")]
    found = json.loads(answer.out.strip().splitlines()[-1])
    bad = [f"{name}: int8 and float32 {text}" for name, good, text in found if not good]
    if bad:
        return [Check("answers", BROKEN, "; ".join(bad), "calmcam live --variant float32")]
    return [Check("answers", OK, f"int8 and float32 agree: {', '.join(name for name, _, _ in found)}")]


def disk(place: Path = Path()) -> Check:
    """Room where runs are written."""
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free in {place.resolve()}"
    if not os.access(place, os.W_OK):
        return Check(
            "disk", WARNING, f"{place.resolve()} may not be written to", "cd to a folder of your own, or use -o"
        )
    return (
        Check("disk", OK, text) if free >= LEAST_DISK else Check("disk", WARNING, text, "delete old runs (rm -r runs)")
    )


def available(machine: Machine) -> int | None:
    """Bytes of memory that programs may still take, or None where /proc/meminfo does not tell."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", machine.read("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) << 10 if found else None


def memory(machine: Machine) -> Check:
    """Memory that programs may still take."""
    free = available(machine)
    if free is None:
        return Check("memory", WARNING, "unknown, /proc/meminfo does not tell", "free -h")
    text = f"{free / 1e9:.1f} GB available"
    return Check("memory", OK, text) if free >= LEAST_MEMORY else Check("memory", WARNING, text, "end other programs")


def checks(machine: Machine) -> list[Check]:
    """All of them, in the order of the report."""
    dists = distributions()
    return [
        python(),
        wheels(dists),
        opencv(dists),
        libraries(machine),
        *imports(machine),
        cameras(machine),
        display(),
        *models(),
        *answers(machine),
        disk(),
        memory(machine),
    ]


def _model(name: str, folder: Path) -> Check:
    try:
        manifest = read_manifest(folder / "manifest.json")
        for artifact in manifest.artifacts.values():
            verify(artifact)
    except CalmcamError as error:
        return Check(f"model {name}", BROKEN, str(error), f"calmcam models verify {name}; {REINSTALL}")
    return Check(f"model {name}", OK, f"{', '.join(manifest.artifacts)}: hashes agree, {folder}")


def _has_both(path: Path) -> bool:
    try:
        manifest = read_manifest(path)
        for variant in BOTH:
            verify(manifest.artifact(variant))
    except CalmcamError:  # told by the line of that model, where something is wrong
        return False
    return bool(manifest.heads)
