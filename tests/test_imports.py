"""Imports run downwards only, heavy packages have one place each, and starting is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("edge_app", "trainer", "deploy")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
LEAVES = tuple(f"edge_app.{kind}." for kind in ("backends", "sources", "sinks", "tasks"))
TOP = {"edge_app.run", "edge_app.build", "edge_app.cli", "edge_app.analyzer"}
COMMANDS = "edge_app.commands."
SHARED = {
    "types",
    "errors",
    "files",
    "manifest",
    "preprocess",
    "heads",
    "scoring.metrics",
    "scoring.plots",
    "geometry",
    "labels",
    "media",
    "plugins",
    "seen",
    "tflite",
}
HEAVY = {"mediapipe", "ai_edge_litert", "hailo_platform", "av", "picamera2", "tensorflow", "keras", "matplotlib", "cv2"}
FOR_COMMANDS = {
    "build",
    "run",
    "runs",
    "settings",
    "hailo_checks",
    "hailo_probe",
    "scoring.evaluate",
    "scoring.labelled",
}
EXCEPTIONS = {
    # a run says with what it was made
    "trainer.machine": {"runs"},
    "trainer.runs": {"runs"},
    # whether calibration crops are faces is asked of the edge's detector, as its report card asks
    "deploy.faces": {"build", "scoring.evaluate", "settings"},
    # whether memory holds the pictures is asked as doctor asks it
    "trainer.folders": {"health.checks", "health.host"},
    # folders of pictures may have Hangul names
    "trainer.check": {"drawing.text"},
    # how the detector frames a face decides the crop that is trained
    "trainer.cropfit": {"scoring.evaluate"},
}
PLACES = {
    "mediapipe": {"edge_app.tasks.face_detection"},
    "ai_edge_litert": {"edge_app.backends.litert"},
    "hailo_platform": {"edge_app.backends.hailo"},
    "av": {
        f"edge_app.{name}" for name in "containers decoded soundtrack sinks.video sources.stream sources.video".split()
    },
    "paho": {"edge_app.sinks.mqtt"},
    "picamera2": {"edge_app.sources.picamera"},
    "tensorflow": set(),
    "keras": set(),
}


@cache
def imported(name: str) -> frozenset[str]:
    """Full names that a module imports anywhere in it, modules of the three packages and others."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            found.update(f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names)
    return frozenset(found)


@cache
def ours(name: str) -> frozenset[str]:
    return frozenset(other for other in imported(name) if other in MODULES and other not in (name, *PACKAGES))


def below(name: str) -> set[str]:
    """Everything of ours that `name` imports, directly or not."""
    found, waiting = set(), [name]
    while waiting:
        for other in ours(waiting.pop()) - found:
            found.add(other)
            waiting.append(other)
    return found


@pytest.mark.parametrize("name", [name for name in MODULES if name not in PACKAGES])
def test_imports_run_downwards(name):
    reached = below(name)
    assert name not in reached, "no circles"
    package, _, rest = name.partition(".")
    if package == "edge_app":
        assert not {other for other in reached if not other.startswith("edge_app")}
        assert not {other for other in reached if other.startswith(LEAVES)}, "leaves are loaded by name, by plugins"
    else:
        direct = {other.partition(".")[2] for other in ours(name) if other.startswith("edge_app")}
        allowed = SHARED | EXCEPTIONS.get(name, FOR_COMMANDS if name.endswith("cli") else set())
        command = ("backends", "commands.") if name.endswith("cli") else ("backends",)
        assert not {other for other in direct - allowed if not other.startswith(command)}
    if name.startswith(LEAVES):
        assert not reached & TOP
    if name == "edge_app.run":
        assert "edge_app.build" not in reached
    if package == "edge_app" and not name.startswith((COMMANDS, "edge_app.cli", "edge_app.__main__")):
        assert not {other for other in reached if other.startswith(COMMANDS)}, "commands are the top"
    if rest in ("types", "errors"):
        assert not reached
    if rest != "__main__" and not rest.endswith("cli"):
        assert f"{package}.cli" not in reached, "nothing imports a command line"


@pytest.mark.parametrize("package", PLACES)
def test_a_heavy_package_has_its_places(package):
    users = {
        name
        for name in MODULES
        if name.startswith("edge_app") and package in {other.partition(".")[0] for other in imported(name)}
    }
    assert users == PLACES[package]


@pytest.mark.parametrize("name", MODULES)
def test_only_command_lines_print(name):
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    prints = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"]
    assert not prints or name.endswith("cli"), f"print in lines {[node.lineno for node in prints]}"


def loaded(code: str) -> set[str]:
    program = f"import sys\n{code}\nsys.stdout.write(chr(10) + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_importing_the_package_is_light():
    assert not loaded("import edge_app") & (HEAVY | {"numpy", "click", "rich"})


def test_importing_the_command_line_is_light():
    assert not loaded("import edge_app.cli") & HEAVY


def test_help_imports_nothing_heavy():
    code = "import edge_app.cli\nsys.argv = ['calmcam', '--help']\ntry: edge_app.cli.main()\nexcept SystemExit: pass"
    assert not loaded(code) & (HEAVY | {"numpy"})


def test_the_loop_needs_no_heavy_package():
    assert not loaded("import edge_app.run, edge_app.build, edge_app.track, edge_app.decide") & (HEAVY - {"cv2"})
