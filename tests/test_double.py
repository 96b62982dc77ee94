"""The double behaves as the fact sheet says, section by section (in brackets): what the other Hailo tests rest on."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_app.manifest import Manifest

pytest_plugins = ("hailo_fixtures",)
SIGNATURES = json.loads((Path(__file__).parent / "cases" / "hailo_signatures.json").read_text())
ROOT = Path(__file__).parents[1]


@pytest.fixture
def hp(world: Any) -> SimpleNamespace:
    """The package, its Python layer and its native module."""
    names = {"top": "", "py": ".pyhailort.pyhailort", "native": ".pyhailort._pyhailort"}
    return SimpleNamespace(**{key: importlib.import_module(f"hailo_platform{name}") for key, name in names.items()})


@pytest.fixture
def hef(compiled: Manifest) -> str:
    return os.fspath(compiled.artifact("hailo8").path)


class Rig:
    """A VDevice with one configured model and ready bindings; `with` closes all in the right order."""

    def __init__(self, hp: SimpleNamespace, hef: str, *, scheduled: bool = True) -> None:
        self._hp, self._hef, self._scheduled = hp, hef, scheduled

    def __enter__(self) -> Rig:
        params = self._hp.top.VDevice.create_params()
        if self._scheduled:
            params.scheduling_algorithm = self._hp.top.HailoSchedulingAlgorithm.ROUND_ROBIN
        self.vdevice = self._hp.top.VDevice(params)
        self.infer_model = self.vdevice.create_infer_model(self._hef)
        for stream in self.infer_model.outputs:
            stream.set_format_type(self._hp.top.FormatType.FLOAT32)
        self.model = self.infer_model.configure()
        self.seen: list[Any] = []
        self.called = threading.Event()
        return self

    def __exit__(self, *exc: object) -> None:
        self.model.__exit__(*exc)
        self.vdevice.release()

    def buffers(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        given = {stream.name: np.zeros(stream.shape, np.uint8) for stream in self.infer_model.inputs}
        return given, {stream.name: np.full(stream.shape, 7, np.float32) for stream in self.infer_model.outputs}

    def bindings(self) -> Any:
        return self.model.create_bindings(*self.buffers())

    def callback(self, completion_info: Any) -> None:
        self.seen.append((threading.current_thread().name, completion_info.exception))
        self.called.set()


@pytest.fixture
def rig(hp: SimpleNamespace, hef: str) -> Iterator[Rig]:
    with Rig(hp, hef) as rig:
        yield rig


def number(error: BaseException) -> int:
    return int(error.__cause__.args[0])


@pytest.mark.parametrize("entry", SIGNATURES, ids=lambda entry: entry["name"])
def test_signatures(hp: SimpleNamespace, entry: dict) -> None:
    place = hp.py
    for name in entry["name"].split("."):
        place = getattr(place, name)
    if entry.get("property"):
        assert isinstance(place, property)
        return
    parameters = list(inspect.signature(place).parameters.values())
    if "required" in entry:
        assert sum(parameter.default is inspect.Parameter.empty for parameter in parameters) == entry["required"]
        return
    said = []
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in said:
            said.append("*")
        default = "" if parameter.default is inspect.Parameter.empty else f"={parameter.default!r}"
        said.append(parameter.name + default)
    assert said == entry["parameters"]


def test_names_at_top_level(hp: SimpleNamespace) -> None:  # 1.1
    there = """HEF ConfigureParams FormatType FormatOrder HailoPowerMode HailoStreamInterface HailoStreamDirection
    HailoFormatFlags HailoCpuId Device VDevice DvmTypes PowerMeasurementTypes SamplingPeriod AveragingFactor
    MeasurementBufferIndex HailoRTException HailoSchedulingAlgorithm HailoRTStreamAbortedByUser AsyncInferJob
    HailoCommunicationClosedException Endianness"""
    hidden = """InferModel ConfiguredInferModel AsyncInferCompletionInfo HailoRTTimeout HailoRTInvalidHEFException
    HailoRTHEFNotCompatibleWithDevice HailoRTInvalidOperationException HailoRTInvalidArgumentException
    HailoRTNotFoundException HailoRTStreamAborted"""
    assert all(hasattr(hp.top, name) for name in there.split())
    assert not any(hasattr(hp.top, name) for name in hidden.split())
    assert all(hasattr(hp.py, name) for name in hidden.split())


def test_two_unrelated_families(hp: SimpleNamespace) -> None:  # 1.2
    raw = [hp.native.HailoRTException, hp.native.HailoRTCustomException, hp.native.HailoRTStatusException]
    assert all(kind.__bases__ == (Exception,) for kind in raw)
    assert not issubclass(hp.py.HailoStatusInvalidValueException, hp.top.HailoRTException)
    special = {2, 4, 6, 15, 18, 19, 21, 25, 26, 36, 48, 61, 62, 63, 69, 93}
    for status in range(1, 94):
        error = hp.py.ExceptionWrapper.create_exception_from_status(status)
        assert isinstance(error, hp.top.HailoRTException)
        assert (type(error) is not hp.top.HailoRTException) == (status in special)
        assert status in special or str(error).startswith(f"libhailort failed with error: {status} (HAILO_")
    with pytest.raises(hp.py.HailoStatusInvalidValueException):
        hp.py.ExceptionWrapper.create_exception_from_status(94)


def test_vdevice_without_a_device(hp: SimpleNamespace, world: Any) -> None:  # 1.15
    world.ids = ()
    assert hp.top.Device.scan() == []
    with pytest.raises(hp.top.HailoRTException, match="not found in the system") as caught:
        hp.top.Device()
    assert caught.value.__cause__ is None
    with pytest.raises(hp.native.HailoRTStatusException) as raw:
        hp.top.Device("garbage")
    assert raw.value.args == ("2",)
    with pytest.raises(hp.top.HailoRTException) as plain:
        hp.top.VDevice()
    assert number(plain.value) == 74 and type(plain.value) is hp.top.HailoRTException
    with pytest.raises(hp.py.HailoRTInvalidArgumentException):
        hp.top.VDevice(device_ids=["nonsense"])


def test_vdevice_params(hp: SimpleNamespace) -> None:  # 1.3
    params = hp.top.VDevice.create_params()
    defaults = (params.device_count, params.device_ids, params.scheduling_algorithm, params.group_id)
    assert defaults == (1, [], 0, "UNIQUE") and params.multi_process_service is False
    assert type(params.scheduling_algorithm) is int
    for name, value in [("scheduling_algorithm", 1), ("group_id", None), ("device_ids", "0000:01:00.0")]:
        with pytest.raises(TypeError):
            setattr(params, name, value)
    with pytest.raises(AttributeError):
        params.unknown = 1
    params.multi_process_service = True
    with pytest.raises(hp.py.HailoRTInvalidOperationException):
        hp.top.VDevice(params)
    with pytest.raises(TypeError):
        hp.top.VDevice("0000:01:00.0")


def test_vdevice_sharing(hp: SimpleNamespace, world: Any) -> None:  # 1.3
    params = hp.top.VDevice.create_params()
    params.group_id = "a"
    with hp.top.VDevice(params), hp.top.VDevice(params):
        assert len(world.chips) == 1
        with pytest.raises(hp.top.HailoRTException) as taken:
            hp.top.VDevice()
        assert number(taken.value) == 74
        with pytest.raises(hp.top.HailoRTException) as taken:
            hp.top.VDevice(device_ids=list(world.ids))
        assert number(taken.value) == 73


def test_vdevice_driver_mismatch(hp: SimpleNamespace, world: Any) -> None:  # 1.2
    world.driver = "4.20.0"
    with pytest.raises(hp.top.HailoRTException) as caught:
        hp.top.VDevice()
    assert number(caught.value) == 76
    with pytest.raises(hp.native.HailoRTStatusException, match="76"):
        hp.top.Device()


@pytest.mark.parametrize(
    "source, file_status, bytes_status",
    [
        (b"abc", 14, 91),
        (np.random.default_rng(0).bytes(4096), 92, 92),
        ("cut", 91, 91),
        ("longer", 91, 91),
        ("v9", 92, 92),
    ],
)
def test_hef_damage(
    hp: SimpleNamespace, hef: str, tmp_path: Path, source: Any, file_status: int, bytes_status: int
) -> None:  # 1.2, 1.15
    good = Path(hef).read_bytes()
    made = {"cut": good[: len(good) // 2], "longer": good + b"more", "v9": good[:4] + b"\x09" + good[5:]}
    data = source if isinstance(source, bytes) else made[source]
    path = tmp_path / "damaged.hef"
    path.write_bytes(data)
    for given, status in ((str(path), file_status), (data, bytes_status)):
        with pytest.raises(hp.top.HailoRTException) as caught:
            hp.top.HEF(given)
        assert number(caught.value) == status


def test_hef_sources(hp: SimpleNamespace, hef: str, tmp_path: Path, world: Any) -> None:  # 1.4, 1.15
    for wrong in (Path(hef), bytearray(b"x"), memoryview(b"x"), None):
        with pytest.raises(ValueError):
            hp.top.HEF(wrong)
    for place, status in ((tmp_path / "missing.hef", 13), (tmp_path, 14)):
        with pytest.raises(hp.top.HailoRTException) as caught:
            hp.top.HEF(str(place))
        assert number(caught.value) == status
    with pytest.raises(BaseException, match="reads beyond its buffer"):
        hp.top.HEF(b"")
    assert world.killed.pop()
    assert hp.top.HEF(Path(hef).read_bytes()).path is None


def test_hef_content(hp: SimpleNamespace, hef: str) -> None:  # 1.4
    file = hp.top.HEF(hef)
    assert file.get_network_group_names() == ["small"] and file.get_networks_names() == ["small/small"]
    (given,), outputs = file.get_input_vstream_infos(), file.get_output_vstream_infos()
    assert (given.name, given.shape, given.format.type.name) == ("small/input_layer1", (32, 32, 3), "UINT8")
    assert [info.name for info in outputs] == file.get_sorted_output_names()
    assert all(isinstance(info.shape, tuple) and info.name.startswith("small/fc") for info in outputs)
    with pytest.raises(hp.native.HailoRTStatusException, match="61"):
        file.get_input_vstream_infos("nope")
    with pytest.raises(hp.py.HailoRTNotFoundException):
        file.bottleneck_fps("nope")
    with pytest.raises(hp.native.HailoRTCustomException):
        _ = given.nms_shape


def test_infer_model_sources(rig: Rig, hp: SimpleNamespace, hef: str) -> None:  # 1.3
    for wrong in (Path(hef), memoryview(b"x"), None):
        with pytest.raises(TypeError):
            rig.vdevice.create_infer_model(wrong)
    for wrong, status in ((bytearray(b"x"), 13), ("missing.hef", 13)):
        with pytest.raises(hp.top.HailoRTException) as caught:
            rig.vdevice.create_infer_model(wrong)
        assert number(caught.value) == status
    with pytest.raises(hp.py.HailoRTNotFoundException):
        rig.vdevice.create_infer_model(hef, "other")


def test_infer_model_streams(rig: Rig, hp: SimpleNamespace) -> None:  # 1.5
    assert rig.infer_model.input().shape == [32, 32, 3]
    with pytest.raises(hp.py.HailoRTNotFoundException):
        rig.infer_model.output("nope")
    with pytest.raises(hp.py.HailoRTInvalidOperationException):
        rig.infer_model.output()
    with pytest.raises(TypeError):
        rig.infer_model.set_batch_size(65536)
    rig.infer_model.set_batch_size(64)
    with pytest.raises(hp.py.HailoRTInvalidArgumentException):
        rig.infer_model.configure()
    rig.infer_model.set_batch_size(0)
    rig.infer_model.input().set_format_type(hp.top.FormatType.UINT16)
    with pytest.raises(hp.py.HailoRTInvalidArgumentException):
        rig.infer_model.configure()


@pytest.mark.parametrize(
    "state, status",
    [({"arch": "hailo8l"}, 93), ({"firmware": "4.20.0"}, 16), ({"page_size": 16384}, 8)],
)
def test_configure_refusals(rig: Rig, world: Any, hp: SimpleNamespace, state: dict, status: int) -> None:  # 1.2
    for name, value in state.items():
        setattr(world, name, value)
    with pytest.raises(hp.top.HailoRTException) as caught:
        rig.infer_model.configure()
    assert number(caught.value) == status


def test_outputs_lie_on_the_grid(hp: SimpleNamespace, hef: str, crops: np.ndarray) -> None:  # 1.5, 1.14
    with Rig(hp, hef) as rig:
        given, outputs = rig.buffers()
        given["small/input_layer1"][:] = crops[0]
        rig.model.run([rig.model.create_bindings(given, outputs)], 1000)
        raw = rig.vdevice.create_infer_model(hef)
        with raw.configure() as model:
            levels = {stream.name: np.zeros(stream.shape, np.uint8) for stream in raw.outputs}
            model.run([model.create_bindings(given, levels)], 1000)
        for stream in raw.outputs:
            quant = stream.quant_infos[0]
            real = (levels[stream.name].astype(np.float32) - np.float32(quant.qp_zp)) * np.float32(quant.qp_scale)
            np.testing.assert_array_equal(outputs[stream.name], real)


def test_float_input_wraps(hp: SimpleNamespace, hef: str) -> None:  # 1.5
    with Rig(hp, hef) as rig:
        raw = rig.vdevice.create_infer_model(hef)
        raw.input().set_format_type(hp.top.FormatType.FLOAT32)
        results = []
        with raw.configure() as model:
            for value in (255.6, 0.0, -1.0, 255.0):
                given = {"small/input_layer1": np.full((32, 32, 3), value, np.float32)}
                levels = {stream.name: np.zeros(stream.shape, np.uint8) for stream in raw.outputs}
                model.run([model.create_bindings(given, levels)], 1000)
                results.append(levels["small/fc2"].tolist())
        assert results[0] == results[1] != results[2] == results[3]


def test_buffers(rig: Rig, hp: SimpleNamespace) -> None:  # 1.7
    stream = rig.bindings().input()
    for wrong in ([1], b"x", None):
        with pytest.raises(AttributeError):
            stream.set_buffer(wrong)
    with pytest.raises(hp.top.HailoRTException, match="C_CONTIGUOUS"):
        stream.set_buffer(np.zeros((32, 32, 6), np.uint8)[..., ::2])
    with pytest.raises(ValueError):
        stream.set_buffer(np.frombuffer(bytes(32 * 32 * 3), np.uint8))
    stream.set_buffer(np.zeros(32 * 32 * 3, np.int8))  # neither dtype nor shape is looked at
    with pytest.raises(hp.py.HailoRTNotFoundException):
        rig.bindings().output("nope")
    with pytest.raises(hp.py.HailoRTInvalidOperationException):
        rig.bindings().output()
    assert rig.model.create_bindings().input().get_buffer() is None


def test_missing_output_is_survived_missing_input_is_not(rig: Rig, hp: SimpleNamespace) -> None:  # 1.7
    given, outputs = rig.buffers()
    with pytest.raises(hp.py.HailoRTInvalidOperationException):
        rig.model.run_async([rig.model.create_bindings(given, {})])
    rig.model.run([rig.bindings()], 1000)
    with pytest.raises(hp.py.HailoRTNotFoundException):
        rig.model.run_async([rig.model.create_bindings({}, outputs)])
    with pytest.raises(hp.py.HailoRTStreamAborted):
        rig.model.run_async([rig.bindings()])


def test_wrong_size_is_told_late_and_is_final(rig: Rig, hp: SimpleNamespace) -> None:  # 1.7, 1.8 (a)
    given, outputs = rig.buffers()
    wrong = {name: array.astype(np.float32) for name, array in given.items()}
    bindings = rig.model.create_bindings(wrong, outputs)
    with pytest.raises(hp.py.HailoRTInvalidOperationException):
        rig.model.run_async([rig.bindings(), bindings], rig.callback)
    with pytest.raises(hp.py.HailoRTStreamAborted):
        rig.model.run_async([rig.bindings()])
    assert not rig.called.wait(0.05)  # half launched: the callback never comes


def test_callbacks(rig: Rig) -> None:  # 1.8
    job = rig.model.run_async([rig.bindings(), rig.bindings()], rig.callback)
    job.wait(1000)
    job.wait(1000)
    assert rig.seen == [("double-callbacks", None)]  # one for two frames, elsewhere


def test_lists_only(rig: Rig, hp: SimpleNamespace) -> None:  # 1.6
    with pytest.raises(TypeError):
        rig.model.run_async(rig.bindings())
    with pytest.raises(TypeError):
        rig.model.run([rig.bindings()])
    job = rig.model.run_async([], rig.callback)
    with pytest.raises(hp.py.HailoRTTimeout):
        job.wait(20)


def test_queue_limits(rig: Rig, world: Any, hp: SimpleNamespace) -> None:  # 1.6
    assert rig.model.get_async_queue_size() == 32
    rig.model.wait_for_async_ready(10, 63)
    with pytest.raises(hp.py.HailoRTTimeout):
        rig.model.wait_for_async_ready(10, 64)
    world.latency_ms = 60_000  # nothing comes back while these are launched
    for _ in range(96):
        rig.model.wait_for_async_ready(10)
        rig.model.run_async([rig.bindings()])
    with pytest.raises(hp.py.HailoRTTimeout):
        rig.model.wait_for_async_ready(10)
    with pytest.raises(hp.top.HailoRTException) as caught:
        rig.model.run_async([rig.bindings()])
    assert number(caught.value) == 82
    with pytest.raises(hp.py.HailoRTStreamAborted):
        rig.model.run_async([rig.bindings()])


def test_failure_with_the_scheduler(rig: Rig, world: Any, hp: SimpleNamespace) -> None:  # 1.8 (c)
    world.fail_at = 1
    given, outputs = rig.buffers()
    rig.model.run_async([rig.model.create_bindings(given, outputs)], rig.callback).wait(1000)  # says nothing
    assert number_of_first(rig) is hp.py.HailoRTDriverOperationFailedException
    rig.called.clear()
    job = rig.model.run_async([rig.bindings()], rig.callback)
    with pytest.raises(hp.py.HailoRTTimeout):
        job.wait(20)
    assert not rig.called.is_set()
    rig.model.wait_for_async_ready(10)


def number_of_first(rig: Rig) -> type:
    return type(rig.seen[0][1])


@pytest.mark.parametrize("scheduled, knob", [(False, "fail_at"), (True, "refuse_at")])
def test_failure_that_aborts_what_follows(
    hp: SimpleNamespace, hef: str, world: Any, scheduled: bool, knob: str
) -> None:  # 1.8 (b)
    with Rig(hp, hef, scheduled=scheduled) as rig:
        if not scheduled:
            rig.model.activate()
        setattr(world, knob, 1)
        rig.model.run([rig.bindings()], 1000)
        rig.model.run_async([rig.bindings()], rig.callback).wait(1000)
        assert number_of_first(rig) is hp.py.HailoRTStreamAborted


def test_no_scheduler(hp: SimpleNamespace, hef: str) -> None:  # 1.6, 1.8
    with Rig(hp, hef, scheduled=False) as rig:
        rig.model.run_async([rig.bindings()], rig.callback).wait(1000)
        assert "72 (HAILO_STREAM_NOT_ACTIVATED)" in str(rig.seen[0][1])
        rig.model.activate()
        rig.model.run_async([rig.bindings()], rig.callback).wait(1000)
        assert rig.seen[1][1] is None
        for call in (rig.model.activate, lambda: rig.model.set_scheduler_threshold(2)):
            with pytest.raises(hp.py.HailoRTInvalidOperationException):
                call()
        rig.model.deactivate()
        rig.model.deactivate()


def test_scheduler(rig: Rig, hp: SimpleNamespace) -> None:  # 1.6
    with pytest.raises(hp.py.HailoRTInvalidOperationException):
        rig.model.activate()
    rig.model.deactivate()
    rig.model.set_scheduler_timeout(-1)
    rig.model.set_scheduler_priority(31)
    with pytest.raises(hp.py.HailoRTInvalidArgumentException):
        rig.model.set_scheduler_priority(32)
    with pytest.raises(TypeError):
        rig.model.set_scheduler_priority(256)


def test_leaving_aborts_what_flies_and_then_is_over(hp: SimpleNamespace, hef: str, world: Any) -> None:  # 1.6
    with Rig(hp, hef) as rig:
        world.latency_ms = 1000
        job = rig.model.run_async([rig.bindings()], rig.callback)
        rig.model.__exit__(None, None, None)
        assert number_of_first(rig) is hp.py.HailoRTStreamAborted
        job.wait(10)
        with pytest.raises(AttributeError):
            rig.model.run_async([])
        with pytest.raises(AttributeError):
            rig.model.get_async_queue_size()


def test_what_kills_the_process(hp: SimpleNamespace, hef: str, world: Any) -> None:  # 1.8, 1.14
    Killed = importlib.import_module("hailo_world").Killed

    def raises(completion_info: Any) -> None:
        raise RuntimeError("boom")

    for callback in (raises, lambda info: None):
        with Rig(hp, hef) as rig:
            job = rig.model.run_async([rig.bindings()], callback)
            with pytest.raises(hp.py.HailoRTTimeout):
                job.wait(100)
        assert "escaped a callback" in world.killed.pop()
    with Rig(hp, hef) as rig:
        rig.model.run_async([rig.bindings()], lambda completion_info: rig.model.__exit__(None, None, None))
        threading.Event().wait(0.1)
        assert "closed inside a callback" in world.killed[0]
        world.killed.clear()
        rig.model = rig.infer_model.configure()
    rig = Rig(hp, hef).__enter__()
    rig.vdevice.release()
    with pytest.raises(Killed, match="outlived its VDevice"):
        rig.model.__exit__(None, None, None)
    with pytest.raises(Killed, match="after the VDevice was released"):
        rig.infer_model.configure()
    world.killed.clear()


def test_the_real_process_dies(hef: str) -> None:  # 1.14
    script = "import hailo_platform; hailo_platform.HEF(b'')"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "tests/doubles"), "CALMCAM_DOUBLE": ""}
    environ["HAILORT_LOGGER_PATH"] = "NONE"
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGABRT and "the real process dies here" in done.stderr


def test_device(hp: SimpleNamespace, world: Any) -> None:  # 1.11
    asked: list[Any] = []

    def ask() -> None:
        device = hp.top.Device()
        asked.append(device.control.identify())
        asked.append(device.control.get_chip_temperature().ts0_temperature)
        asked.append(signal.SIGWINCH in signal.pthread_sigmask(signal.SIG_BLOCK, []))

    world.arch = "hailo8l"
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert (asked[0].device_architecture.name, asked[0].board_name) == ("HAILO8L", "Hailo-8\0")
    assert asked[1] > 0 and asked[2]
    errors: list[BaseException] = []

    def one_liner() -> None:
        try:
            hp.top.Device().control.identify()
        except hp.py.HailoRTInvalidOperationException as error:
            errors.append(error)

    thread = threading.Thread(target=one_liner)
    thread.start()
    thread.join()
    assert len(errors) == 1


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="is about NumPy 2")
def test_arrays_of_numpy_2_count_as_nothing_when_told(rig: Rig, world: Any, hp: SimpleNamespace) -> None:  # 1.1
    world.zero_bytes = True
    with pytest.raises(hp.py.HailoRTInvalidOperationException):
        rig.model.run_async([rig.bindings()])


def test_older_releases(world: Any, hef: str) -> None:  # 1.1, 1.2
    world.library = "4.17.0"
    top = importlib.import_module("hailo_platform")
    assert not hasattr(top, "AsyncInferJob") and not hasattr(top.VDevice, "create_infer_model")
    damaged = Path(hef).read_bytes()[:-1]
    py = importlib.import_module("hailo_platform.pyhailort.pyhailort")
    with pytest.raises(py.HailoRTInvalidHEFException):
        top.HEF(damaged)


def test_it_never_ships() -> None:
    assert "doubles" not in (ROOT / "setup.cfg").read_text()
