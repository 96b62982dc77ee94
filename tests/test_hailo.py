"""The Hailo backend on the double of HailoRT: limits, failures, sharing, bad input. No figure here is the chip's."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge_app import hailo_facts, hailo_probe, plugins
from edge_app.backends import litert
from edge_app.errors import BackendError, BackendUnavailable, CalmcamError, DeviceLost, MissingPackage, ModelError
from edge_app.hailo_checks import COMPILERS, check_streams, version_problem
from edge_app.manifest import Artifact, Manifest

pytest_plugins = ("hailo_fixtures",)
ROOT = Path(__file__).parents[1]


@pytest.fixture
def artifact(compiled: Manifest) -> Artifact:
    return compiled.artifact("hailo8")


@pytest.fixture
def backend(hailo: ModuleType, artifact: Artifact) -> Any:
    backend = hailo.Backend(artifact, timeout=0.2)
    yield backend
    backend.close()


def test_says_what_litert_says(backend: Any, compiled: Manifest, crops: np.ndarray) -> None:
    rows = np.concatenate([crops, crops, crops[:3]])  # more than fit into the queue at once
    given, told = backend.infer(rows), litert.Backend(compiled.artifact("int8")).infer(rows)
    for head, name in compiled.artifact("hailo8").outputs.items():
        np.testing.assert_array_equal(given[name], told[compiled.artifact("int8").outputs[head]])
    assert np.ptp(given[compiled.artifact("hailo8").outputs["mood"]]) > 0


def test_no_rows_touch_no_device(backend: Any, world: Any) -> None:
    before = world.launches
    assert {len(values) for values in backend.infer(np.empty((0, 32, 32, 3), np.uint8)).values()} == {0}
    assert world.launches == before


@pytest.mark.parametrize(
    "shape, dtype", [((2, 32, 32, 1), np.uint8), ((2, 32, 32, 3), np.float32), ((32, 32, 3), np.uint8)]
)
def test_rows_of_another_kind_are_refused_before_the_device(backend: Any, shape: tuple, dtype: type) -> None:
    with pytest.raises(BackendError, match=r"expected rows \(32, 32, 3\) uint8"):
        backend.infer(np.zeros(shape, dtype))
    assert backend.infer(np.zeros((1, 32, 32, 3), np.uint8))


def test_faces_of_a_frame_are_one_job_and_buffers_are_made_once(backend: Any, world: Any, crops: np.ndarray) -> None:
    launches, bindings = world.launches, world.bindings
    for _ in range(5):
        backend.infer(crops[:4])
    assert (world.launches - launches, world.bindings - bindings) == (5, 0)


@pytest.mark.parametrize("queue, most", [(4, 4), (32, 8)])
def test_flight_is_bounded_by_limit_and_queue(
    world: Any, hailo: ModuleType, artifact: Artifact, queue: int, most: int
) -> None:
    world.queue = queue
    backend = hailo.Backend(artifact, depth=8)
    assert len(backend.infer(np.zeros((30, 32, 32, 3), np.uint8))["small/fc1"]) == 30
    assert world.most == most
    backend.close()


def test_rows_that_are_views_are_copied_in(backend: Any, crops: np.ndarray) -> None:
    turned = crops[::2, :, ::-1]
    turned.flags.writeable = False
    again = backend.infer(np.ascontiguousarray(turned))
    for name, values in backend.infer(turned).items():
        np.testing.assert_array_equal(values, again[name])


def test_release_4_18_gets_its_buffers_anew(world: Any, artifact: Artifact, crops: np.ndarray) -> None:
    world.library = world.driver = world.firmware = "4.18.0"
    backend = importlib.import_module("edge_app.backends.hailo").Backend(artifact)
    before = world.bindings
    backend.infer(crops)
    assert world.bindings > before
    backend.close()


def test_a_hef_for_another_hailort_is_told_once(
    hailo: ModuleType, artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        hailo.Backend(dataclasses.replace(artifact, compiler={"compiler": "3.30.0"})).close()
    hailo.Backend(dataclasses.replace(artifact, compiler={"compiler": "3.33.0"})).close()
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("small_hailo8.hef was compiled for HailoRT 4.20, 4.23.0 is installed; compile it again")


def test_every_status_becomes_ours(world: Any, hailo: ModuleType, artifact: Artifact) -> None:
    for number, status in list(hailo_facts.STATUSES.items())[1:]:
        backend = hailo.Backend(artifact)
        world.fail_at, world.fail_status = world.transfers + 1, number
        with pytest.raises(BackendError, match=f"HailoRT status {number}, {status.name}") as caught:
            backend.infer(np.zeros((1, 32, 32, 3), np.uint8))
        assert isinstance(caught.value, DeviceLost) == (status.kind == "lost")
        with pytest.raises(DeviceLost):
            backend.infer(np.zeros((1, 32, 32, 3), np.uint8))
        backend.close()


def test_every_status_at_opening_and_scanning_becomes_ours(world: Any, hailo: ModuleType, artifact: Artifact) -> None:
    for number, status in list(hailo_facts.STATUSES.items())[1:]:
        world.open_status, world.scan_status = number, 0
        with pytest.raises(CalmcamError, match=f"status {number}, {status.name}"):
            hailo.Backend(artifact)
        world.open_status, world.scan_status = 0, number  # raw native exceptions
        with pytest.raises(BackendUnavailable, match=f"status {number}, {status.name}"):
            hailo.Backend(artifact)


def test_statuses_are_those_of_the_library(world: Any) -> None:
    native = importlib.import_module("hailo_platform.pyhailort._pyhailort")
    assert [f"HAILO_{status.name}" for status in hailo_facts.STATUSES.values()] == list(native.STATUSES)
    assert list(hailo_facts.STATUSES) == list(range(94))
    rows = [f"| {s.number} {s.name} | {s.meaning} | {s.advice} |" for s in hailo_facts.STATUSES.values()]
    assert "\n".join(rows) in (ROOT / "deploy/README.md").read_text(encoding="utf-8")


def test_the_compilers_are_those_that_the_readme_names():
    table = (ROOT / "deploy/README.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| (4\.\d+) \| (3\.\d+) \|", table, re.MULTILINE)) == COMPILERS


def test_every_exception_class_of_both_families_becomes_ours(hailo: ModuleType) -> None:
    modules = [importlib.import_module(f"hailo_platform.pyhailort.{name}") for name in ("pyhailort", "_pyhailort")]
    classes = {item for module in modules for item in vars(module).values() if isinstance(item, type)}
    classes = {item for item in classes if issubclass(item, Exception)}
    assert len(classes) > 20
    for kind in classes:
        with pytest.raises(CalmcamError), hailo._opening(Path("x.hef")):
            raise kind("63")


@pytest.mark.parametrize("knob", ["fail_at", "refuse_at", "hang_at"])
@pytest.mark.parametrize("place", [1, 3])
def test_failures_of_each_shape_are_told_in_time_and_are_final(
    world: Any, backend: Any, hailo: ModuleType, artifact: Artifact, crops: np.ndarray, knob: str, place: int
) -> None:
    setattr(world, knob, world.transfers + place)
    begun = time.monotonic()
    with pytest.raises(DeviceLost):
        backend.infer(crops[:4])
    with pytest.raises(DeviceLost):
        backend.infer(crops[:1])
    backend.close()
    assert time.monotonic() - begun < 1
    fresh = hailo.Backend(artifact)
    assert fresh.infer(crops)
    fresh.close()


def test_device_that_comes_back_is_opened_anew(
    world: Any, backend: Any, hailo: ModuleType, artifact: Artifact, crops: np.ndarray
) -> None:
    world.lose()
    with pytest.raises(DeviceLost):
        backend.infer(crops)
    backend.close()
    with pytest.raises(BackendUnavailable, match="no Hailo device"):
        hailo.Backend(artifact)
    world.restore()
    again = hailo.Backend(artifact)
    assert again.infer(crops)
    again.close()


def test_close_twice_and_use_after_it(hailo: ModuleType, artifact: Artifact, crops: np.ndarray) -> None:
    threads = threading.active_count()
    backend = hailo.Backend(artifact)
    backend.close()
    backend.close()
    assert threading.active_count() == threads
    with pytest.raises(DeviceLost, match="closed"):
        backend.infer(crops)


def test_two_models_share_one_device(world: Any, hailo: ModuleType, artifact: Artifact, crops: np.ndarray) -> None:
    one, other = hailo.Backend(artifact), hailo.Backend(artifact)
    assert [(chip.group, chip.scheduled, chip.handles) for chip in world.chips] == [("calmcam", True, 1)]
    results: dict[int, Any] = {}

    def classify(place: int, backend: Any) -> None:
        results[place] = backend.infer(crops)

    work = [threading.Thread(target=classify, args=pair) for pair in enumerate((one, other))]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    np.testing.assert_array_equal(results[0]["small/fc1"], results[1]["small/fc1"])
    one.close()
    assert other.infer(crops) and world.chips
    other.close()


def test_threads_that_share_a_model_get_their_own_faces(
    world: Any, backend: Any, artifact: Artifact, crops: np.ndarray
) -> None:
    pictures = [crops[:4], 255 - crops[:4]]
    expected = [backend.infer(rows) for rows in pictures]
    world.latency_ms = 1.0

    def wrong(place: int) -> list[str]:
        answers = [backend.infer(pictures[place]) for _ in range(10)]
        return [name for given in answers for name in given if not np.array_equal(given[name], expected[place][name])]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(wrong, range(2))) == [[], []]


def test_outputs_that_the_manifest_does_not_name_are_left_alone(
    hailo: ModuleType, artifact: Artifact, crops: np.ndarray
) -> None:
    name = artifact.outputs["mood"]
    whole, part = hailo.Backend(artifact), hailo.Backend(dataclasses.replace(artifact, outputs={"mood": name}))
    given = part.infer(crops)
    assert list(given) == [name]
    np.testing.assert_array_equal(given[name], whole.infer(crops)[name])
    part.close()
    whole.close()


def test_a_chip_that_hangs_under_one_model_is_opened_anew_by_all(
    world: Any, hailo: ModuleType, artifact: Artifact, crops: np.ndarray
) -> None:
    one, other = hailo.Backend(artifact, timeout=0.1), hailo.Backend(artifact)
    world.hang_at = world.transfers + 1
    with pytest.raises(DeviceLost, match="no answer within 0.1 s"):
        one.infer(crops)
    with pytest.raises(DeviceLost, match="under another model"):
        other.infer(crops)
    one.close()
    other.close()


def test_loss_under_one_model_frees_the_device_from_all(
    world: Any, hailo: ModuleType, artifact: Artifact, crops: np.ndarray
) -> None:
    one, other = hailo.Backend(artifact), hailo.Backend(artifact)
    world.lose()
    with pytest.raises(DeviceLost):
        one.infer(crops)
    one.close()
    world.restore()
    with pytest.raises(BackendUnavailable, match="other models of this process"):
        hailo.Backend(artifact)
    with pytest.raises(DeviceLost, match="under another model"):
        other.infer(crops)
    other.close()
    fresh = hailo.Backend(artifact)
    assert fresh.infer(crops)
    fresh.close()


def test_second_process_is_told_the_way_out(
    world: Any, hailo: ModuleType, compiled: Manifest, tmp_path: Path, crops: np.ndarray
) -> None:
    world.lock = str(tmp_path / "lock")
    backend = hailo.Backend(compiled.artifact("hailo8"))
    script = (
        f"from edge_app.devices import open_best; from edge_app.manifest import find_model; "
        f"open_best(find_model({str(compiled.folder)!r}), None, 'hailo')"
    )
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/doubles'}", "CALMCAM_DOUBLE": f"lock={world.lock}"}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "another process holds it" in done.stderr and "sudo fuser -v /dev/hailo0" in done.stderr
    backend.infer(crops)
    backend.close()


def test_forked_child_leaves_the_device_alone(backend: Any, crops: np.ndarray) -> None:
    backend._pid += 1
    with pytest.raises(BackendError, match="opened in another process"):
        backend.infer(crops)
    backend._pid -= 1
    assert backend.infer(crops)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_closes_nothing_and_opens_its_own(
    world: Any, hailo: ModuleType, backend: Any, crops: np.ndarray
) -> None:
    parents, child = hailo._chip._vdevice, os.fork()
    if not child:
        signal.alarm(60)
        code = 1
        try:
            backend.close()
            code = 2 * (not world.chips) + 4 * (hailo._chip.take() is parents)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert backend.infer(crops)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _random(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(4096))


def _newer(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4] = 9  # header version
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "spoil, words",
    [
        (Path.unlink, "no file; copy the .hef again"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"abc"), "status 14"),
        (_cut, "cut off or damaged"),
        (_random, "no HEF, or one of a newer compiler"),
        (_newer, "one of a newer compiler.*upgrade HailoRT"),
    ],
)
def test_bad_file(hailo: ModuleType, artifact: Artifact, spoil: Callable[[Path], None], words: str) -> None:
    spoil(artifact.path)
    with pytest.raises(ModelError, match=words):
        hailo.Backend(artifact)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"input": {"height": 48}}, r"manifest says one input \(48, 32, 3\) uint8, the file has \[\(32, 32, 3\)\]"),
        ({"input": {"dtype": "float32"}}, "float32, the file has"),
        ({"outputs": {"mood": "small/fc9", "tease": "small/fc1"}}, r"names outputs \['small/fc9'\], the file has"),
    ],
)
def test_file_that_is_not_the_manifests(hailo: ModuleType, artifact: Artifact, changes: dict, words: str) -> None:
    if "input" in changes:
        changes = {"input": dataclasses.replace(artifact.input, **changes["input"])}
    with pytest.raises(ModelError, match=words):
        hailo.Backend(dataclasses.replace(artifact, **changes))


def test_input_whose_normalisation_was_forgotten(hailo: ModuleType, artifact: Artifact) -> None:
    network = artifact.path.with_name("small_int8.tflite")
    importlib.import_module("make_hef").make_hef(network, artifact.path, name="small", scale=0.0078, zero=128)
    with pytest.raises(ModelError, match="expected raw pixels as input, got scale 0.0078; compile the model again"):
        hailo.Backend(artifact)


def test_boxes_are_refused(hailo: ModuleType, artifact: Artifact, world: Any) -> None:
    infos = hailo.hailo_platform.HEF(str(artifact.path)).get_output_vstream_infos()
    infos[0].format.order = hailo.hailo_platform.FormatOrder.HAILO_NMS_BY_CLASS
    inputs = hailo.hailo_platform.HEF(str(artifact.path)).get_input_vstream_infos()
    with pytest.raises(ModelError, match=r"plain tensors out, got UINT8 NHWC and box outputs \['small"):
        check_streams(artifact, inputs, infos)


def test_empty_axes_are_dropped(hailo: ModuleType, artifact: Artifact, crops: np.ndarray) -> None:
    backend = hailo.Backend(artifact)
    flat = backend.infer(crops)
    backend.close()
    network = artifact.path.with_name("small_int8.tflite")
    importlib.import_module("make_hef").make_hef(network, artifact.path, name="small", axes=(1, 1))
    backend = hailo.Backend(artifact)
    for name, values in backend.infer(crops).items():
        np.testing.assert_array_equal(values, flat[name])
    backend.close()


@pytest.mark.parametrize("contexts, batch", [(1, 0), (3, 4)])
def test_networks_in_several_contexts_run_in_bursts(
    world: Any, hailo: ModuleType, artifact: Artifact, contexts: int, batch: int
) -> None:
    world.contexts = contexts
    hailo.Backend(artifact, depth=4).close()
    assert world.batch == batch


@pytest.mark.parametrize(
    "state, kind, words",
    [
        ({"arch": "hailo8l"}, ModelError, "for another chip.*hailo8l"),
        ({"arch": "hailo8l", **dict.fromkeys(("library", "driver", "firmware"), "4.20.0")}, ModelError, "another chip"),
        ({"driver": "4.22.0"}, BackendUnavailable, "driver's version differs.*full-upgrade"),
        ({"driver": ""}, BackendUnavailable, "driver is not loaded"),
        ({"firmware": "4.21.0"}, BackendUnavailable, "firmware's version differs.*one version"),
        ({"ids": ()}, BackendUnavailable, "no Hailo device.*hailortcli scan"),
        ({"busy": True}, BackendUnavailable, "another process holds it.*--device cpu"),
        ({"page_size": 16384}, BackendUnavailable, "force_desc_page_size=4096"),
    ],
)
def test_bad_machine(world: Any, artifact: Artifact, state: dict, kind: type, words: str) -> None:
    for name, value in state.items():
        setattr(world, name, value)
    with pytest.raises(kind, match=words):
        importlib.import_module("edge_app.backends.hailo").Backend(artifact)


def test_errors_keep_nothing_of_hailort_alive(world: Any, hailo: ModuleType, artifact: Artifact) -> None:
    kept = []
    for state in ({"arch": "hailo8l"}, {"arch": "hailo8", "firmware": "4.1.0"}, {"firmware": "4.23.0", "fail_at": 1}):
        for name, value in state.items():
            setattr(world, name, value)
        with pytest.raises(CalmcamError) as caught:
            hailo.Backend(artifact)
        kept.append(caught.value)
    assert len(kept) == 3 and world.outlived == 0


def test_no_permission_on_the_node(
    hailo: ModuleType, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "hailo0"
    node.touch()
    monkeypatch.setattr("edge_app.hailo_checks.NODES", str(tmp_path / "hailo*"))
    monkeypatch.setattr(os, "access", lambda *args: False)  # tests may run as root, who may do anything
    with pytest.raises(BackendUnavailable, match=r"hailo0: no permission.*usermod -aG \w+"):
        hailo.Backend(artifact)


@pytest.mark.parametrize(
    "version, words", [("4.17.0", "no async API"), ("5.2.0", "Hailo-10H"), ("", "unknown version")]
)
def test_other_generations_are_refused(version: str, words: str) -> None:
    assert words in version_problem(version, "1.26.4", [])


def test_release_4_17_is_refused_with_a_sentence(world: Any, artifact: Artifact) -> None:
    world.library = world.driver = "4.17.0"
    with pytest.raises(BackendUnavailable, match=r"HailoRT 4.17.0 has no async API; install 4.18"):
        importlib.import_module("edge_app.backends.hailo").Backend(artifact)


def test_numpy_2_is_refused_unless_the_library_says_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_app.hailo_checks.HAS_NUMPY_1", True)
    assert "constraints-hailo.txt" in version_problem("4.23.0", "2.4.0", ["numpy<2", "argcomplete"])
    assert "constraints-hailo.txt" in version_problem("4.23.0", "2.4.0", None)
    assert version_problem("4.23.0", "1.26.4", ["numpy<2"]) == version_problem("4.24.0", "2.4.0", ["numpy"]) == ""
    monkeypatch.setattr("os.access", lambda *_: False)
    assert version_problem("4.23.0", "2.4.0", None).endswith(": deploy/install.sh"), "an environment of root's"
    monkeypatch.setattr("edge_app.hailo_checks.HAS_NUMPY_1", False)
    assert version_problem("4.23.0", "2.4.0", ["numpy<2"]) == "", "the trial at opening decides"


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="shows what happens under NumPy 2")
def test_why_numpy_2_is_refused(
    world: Any, hailo: ModuleType, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.zero_bytes = True
    with pytest.raises(BackendError, match="status 6, INVALID_OPERATION"):
        hailo.Backend(artifact)
    pinned = tmp_path / "hailort-4.23.0.dist-info"
    pinned.mkdir()
    lines = ("Metadata-Version: 2.1", "Name: hailort", "Version: 4.23.0", "Requires-Dist: numpy<2", "")
    pinned.joinpath("METADATA").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("edge_app.hailo_checks.HAS_NUMPY_1", True)
    with pytest.raises(BackendUnavailable, match="zero bytes.*constraints-hailo.txt"):
        hailo.Backend(artifact)


def test_importing_writes_no_logs(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAILORT_LOGGER_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    assert hailo_probe.identify() == "HAILO8"
    importlib.import_module("edge_app.backends.hailo")
    assert not (tmp_path / "hailort.log").exists()


def test_package_absent_or_broken(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.native = "4.22.0"
    with pytest.raises(MissingPackage, match=r"\(4.22.0\) does not match.*hailo-all.*--device cpu"):
        plugins.load("backends", "hailo")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not place.endswith("doubles")])
    for name in [name for name in sys.modules if name.startswith("hailo_platform")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingPackage, match=r"No module named 'hailo_platform'.*apt install hailo-all"):
        plugins.load("backends", "hailo")


@pytest.mark.parametrize(
    "arch, variants, chosen",
    [
        ("hailo8", ("hailo8", "hailo8l"), "hailo8"),
        ("hailo8", ("hailo8l",), "hailo8l"),
        ("hailo8l", ("hailo8", "hailo8l"), "hailo8l"),
        ("hailo8l", ("hailo8",), ""),
    ],
)
def test_available_takes_the_variant_for_the_chip(
    tell: Any, hailo: ModuleType, artifact: Artifact, arch: str, variants: tuple, chosen: str
) -> None:
    tell(arch=arch)
    variant, why = hailo.available({name: artifact for name in variants})
    assert variant == chosen
    assert why.startswith(arch.upper()) if chosen else "compile MODEL --arch hailo8l" in why


def test_the_chip_is_asked_elsewhere(tell: Any, hailo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hailo_probe.identify() == "HAILO8"
    assert signal.SIGWINCH not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    tell(driver="4.20.0")
    with pytest.raises(BackendUnavailable, match="driver's version differs"):
        hailo_probe.identify()
    monkeypatch.setattr(
        hailo_probe, "_SCRIPT", "print('[HailoRT] [info]', '{\"error\": \"61\"}', '[warning]', 7, sep='\\n')"
    )
    with pytest.raises(BackendUnavailable, match="61"):
        hailo_probe.identify()
    monkeypatch.setattr(hailo_probe, "_SCRIPT", "import os; os.abort()")
    with pytest.raises(BackendUnavailable, match="ended the process"):
        hailo_probe.identify()
    monkeypatch.setattr(hailo_probe, "_SCRIPT", "import threading; threading.Event().wait()")
    monkeypatch.setattr(hailo_probe, "PATIENCE", 0.3)
    with pytest.raises(BackendUnavailable, match="no answer within 0.3 s"):
        hailo_probe.identify()


@pytest.mark.parametrize("state", [{"ids": ()}, {"driver": ""}, {"driver": "4.1.0"}])
def test_auto_on_a_machine_without(tell: Any, hailo: ModuleType, compiled: Manifest, state: dict) -> None:
    tell(**state)
    variant, why = hailo.available(compiled.artifacts)
    assert variant == "" and len(why) > 30
