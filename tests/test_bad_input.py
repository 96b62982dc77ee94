"""Everything wrong that a user may give: one sentence, the right exit code, and nothing that was there is harmed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from clips import times, write_clip, write_sound
from small_model import LABELS, write_model

from edge_app.cli import cli

ROOT = Path(__file__).parent.parent
ASTRONAUT = Path(__file__).parent / "cases" / "astronaut.jpg"


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Good files to spoil copies of."""
    folder = tmp_path_factory.mktemp("material")
    write_model(folder / "model")
    write_clip(folder / "clip.mp4", frames=12, size=(160, 120))
    write_clip(folder / "clip.mkv", frames=50, size=(160, 120))
    write_sound(folder / "sound.m4a")
    return folder


@pytest.fixture
def calmcam(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path.parent / "no-settings"))
    monkeypatch.delenv("DISPLAY", raising=False)
    return lambda *arguments: CliRunner().invoke(cli, [str(argument) for argument in arguments])


def tree(folder):
    """Every file below `folder` with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(result, sentence):
    """Exit code 2 and nothing but one sentence, which says `sentence`."""
    assert result.exit_code == 2, result.output
    last = [line for line in result.stderr.splitlines() if not line.startswith("classifying on")]
    assert last[-1].startswith("Error: ") and sentence in last[-1], result.stderr
    assert "Traceback" not in result.stderr and "unexpected" not in result.stderr
    assert len(last) == 1 or last[0].startswith("Usage:"), result.stderr


def missing(folder, material):
    return folder / "missing.mp4"


def no_media(folder, material):
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("x")
    return folder / "empty"


def zero_bytes(folder, material):
    (folder / "zero.mp4").touch()
    return folder / "zero.mp4"


def zero_bytes_picture(folder, material):
    (folder / "zero.jpg").touch()
    return folder / "zero.jpg"


def text(folder, material):
    (folder / "text.mp4").write_text("This is no video.\n" * 100)
    return folder / "text.mp4"


def text_picture(folder, material):
    (folder / "text.png").write_text("This is no picture.\n" * 100)
    return folder / "text.png"


def audio_only(folder, material):
    return Path(shutil.copy(material / "sound.m4a", folder / "sound.mp4"))


def cut_before_the_index(folder, material):
    data = (material / "clip.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: data.index(b"moov") - 4])
    return folder / "cut.mp4"


def huge_picture(folder, material):
    """A PNG that says it has 30,000 x 30,000 pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return folder / "huge.png"


def heic(folder, material):
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    return folder / "phone.heic"


def no_match(folder, material):
    return folder / "*.mp4"


def a_device(folder, material):
    return "/dev/null"


def a_pipe(folder, material):
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


def a_loop_of_links(folder, material):
    (folder / "loop.jpg").symlink_to("loop.jpg")
    return folder / "loop.jpg"


def named_like_a_camera(folder, material):
    return "0"


def named_like_a_source(folder, material):
    return "synthetic"


INPUTS = [
    (missing, "there is no such file"),
    (no_media, "expected pictures or videos in this folder"),
    (zero_bytes, "zero bytes"),
    (zero_bytes_picture, "zero bytes"),
    (text, "expected a video, got something that is none"),
    (text_picture, "expected a picture"),
    (audio_only, "got a file with only sound"),
    (cut_before_the_index, "cut off before its index was written"),
    (huge_picture, "megapixels"),
    (heic, "HEIC"),
    (no_match, "no picture or video matches this pattern"),
    (a_device, "/dev/null"),
    (a_pipe, "got a pipe, a device or a folder"),
    (a_loop_of_links, "loop.jpg: cannot be read (Too many levels of symbolic links)"),
    (named_like_a_camera, "0: there is no such file"),
    (named_like_a_source, "synthetic: there is no such file"),
]


@pytest.mark.parametrize(("make", "sentence"), INPUTS, ids=[make.__name__ for make, _ in INPUTS])
def test_an_input_that_cannot_be_read(calmcam, material, tmp_path, make, sentence):
    given = make(tmp_path, material)
    before = tree(tmp_path)
    refused(calmcam("annotate", "--model", material / "model", given), sentence)
    assert tree(tmp_path) == before


def test_a_name_of_two_lines_is_printed_on_one(calmcam, material, tmp_path):
    shutil.copy(ASTRONAUT, tmp_path / "two\nlines.jpg")
    result = calmcam("annotate", "--model", material / "model", tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 0 and (tmp_path / "out" / "two\nlines.jpg").is_file()
    assert "[1/1] two\ufffdlines.jpg: 1 frame" in result.stderr
    assert sum(line.startswith("two\ufffdlines.jpg") for line in result.stdout.splitlines()) == 1


@pytest.mark.parametrize("make", [missing, text, audio_only, cut_before_the_index], ids=lambda make: make.__name__)
def test_a_clip_that_cannot_be_watched(calmcam, material, tmp_path, make):
    given = make(tmp_path, material)
    before = tree(tmp_path)
    refused(calmcam("live", "--model", material / "model", "--source", given, "--no-show"), given.name)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("source", ["/dev/video97", "97"])
def test_a_camera_that_does_not_exist(calmcam, material, source):
    refused(calmcam("live", "--model", material / "model", "--source", source, "--no-show"), "/dev/video97")


def test_a_stream_that_is_not_there(calmcam, material):
    url = "http://me:secret@127.0.0.1:9/live?token=secret"
    result = calmcam("live", "--model", material / "model", "--source", url, "--no-show", "--log-level", "error")
    refused(result, "expected a stream, got none")
    assert "secret" not in result.output


def test_a_cut_video_is_annotated_as_far_as_it_goes(calmcam, material, tmp_path):
    data = (material / "clip.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    result = calmcam("annotate", "--model", material / "model", "cut.mkv", "-o", "out")
    assert result.exit_code == 2 and "cut off; it can be read up to" in result.stderr and "broke off" in result.stdout
    assert (
        10
        < len(times(tmp_path / "out" / "cut.mp4"))
        == len((tmp_path / "out" / "results.jsonl").read_text().splitlines())
    )


@pytest.mark.parametrize(
    ("origin", "name", "copy"), [("clip.mp4", "clip.jpg", "clip.mp4"), (ASTRONAUT, "face.mp4", "face.jpg")]
)
def test_a_wrong_extension_is_seen_through(calmcam, material, tmp_path, origin, name, copy):
    shutil.copy(material / origin, tmp_path / name)
    result = calmcam("annotate", "--model", material / "model", name, "-o", "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / copy).stat().st_size > 1000


@pytest.mark.parametrize(
    "name", ["with space.jpg", 'it\'s "quoted".jpg', "100%d %s.jpg", "웃는 얼굴.jpg", "-o.jpg", "[1]*.jpg", "a:b.mp4"]
)
def test_a_name_may_be_anything(calmcam, material, tmp_path, name):
    shutil.copy(ASTRONAUT if name.endswith(".jpg") else material / "clip.mp4", tmp_path / name)
    result = calmcam("annotate", "--model", material / "model", "-o", "out", "--", name)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / name).stat().st_size > 1000
    assert json.loads((tmp_path / "out" / "results.jsonl").read_text().splitlines()[0])["source"] == name


def test_a_picture_of_one_pixel_has_no_face(calmcam, material, tmp_path):
    from PIL import Image

    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    result = calmcam("annotate", "--model", material / "model", "dot.png", "-o", "out")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "results.jsonl").read_text())["faces"] == []


def test_a_frame_size_that_changes_in_the_middle(calmcam, material, tmp_path):
    parts = [write_clip(tmp_path / f"{width}.ts", frames=10, size=(width, 120)) for width in (160, 240)]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    result = calmcam("annotate", "--model", material / "model", "both.ts", "-o", "out")
    assert result.exit_code == 0, result.output
    assert (
        len(times(tmp_path / "out" / "both.mp4"))
        == len((tmp_path / "out" / "results.jsonl").read_text().splitlines())
        > 15
    )


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_folder_that_cannot_be_made(calmcam, material, tmp_path, place):
    (tmp_path / "file").write_text("dear")
    before = tree(tmp_path)
    refused(calmcam("annotate", "--model", material / "model", ASTRONAUT, "-o", place), "folder")
    assert tree(tmp_path) == before


def test_an_output_that_would_replace_its_input(calmcam, material, tmp_path):
    shutil.copy(material / "clip.mp4", tmp_path / "clip.mp4")
    before = tree(tmp_path)
    refused(
        calmcam("annotate", "--model", material / "model", "clip.mp4", "-o", ".", "--exist-ok"),
        "would replace the input",
    )
    assert tree(tmp_path) == before


def test_a_full_output_folder(calmcam, material, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text("dear")
    before = tree(tmp_path)
    refused(calmcam("annotate", "--model", material / "model", ASTRONAUT, "-o", "out"), "not empty")
    assert tree(tmp_path) == before


def test_a_disk_that_fills_up(material, tmp_path):
    """A limit on the size of files fails like a full disk, by another number."""
    write_clip(tmp_path / "long.avi", frames=100, size=(320, 240))
    before = tree(tmp_path)
    command = [sys.executable, "-m", "edge_app", "annotate", "--model", material / "model", tmp_path / "long.avi"]
    command += ["-o", tmp_path / "out", "--no-audio"]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("Error: "), run.stderr
    assert "cannot be written (File too large)" in run.stderr
    assert run.stderr.count("\n") == 1
    left = {path: data for path, data in tree(tmp_path).items() if path.parts[0] != "out"}
    assert left == before
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.mp4"))


def powerless(*arguments, **environment):
    """What becomes of `calmcam` where permissions hold for root, too."""
    powers = "-dac_override,-dac_read_search"
    becoming = ["setpriv", f"--inh-caps={powers}", f"--bounding-set={powers}"] if os.geteuid() == 0 else []
    command = [*becoming, sys.executable, "-m", "edge_app", *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


permissions_hold = pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may do everything"
)


@pytest.fixture
def closed(tmp_path):
    """A folder that nobody may enter."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    yield folder
    folder.chmod(0o700)


@permissions_hold
@pytest.mark.parametrize(
    "words",
    [
        "annotate {face} --model {closed}/x",
        "annotate {face} --model {closed}",
        "annotate {face} -o {closed}/x",
        "annotate --resume {closed}/x",
        "evaluate {closed}/x --data .",
        "crop {closed}/x",
        "moments {closed}/x --label happy",
        "moments {closed}/x/results.jsonl --label happy",
        "models show {closed}/x",
    ],
)
def test_a_folder_that_may_not_be_entered_is_told(closed, words):
    run = powerless(*words.format(face=ASTRONAUT, closed=closed).split())
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith(f"Error: {closed}") and "Permission denied" in run.stderr
    assert run.stderr.count("\n") == 1 and "unexpected" not in run.stderr


@permissions_hold
@pytest.mark.parametrize("name", ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"])
def test_a_home_that_may_not_be_entered_holds_nothing_up(closed, name):
    home = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_DATA_HOME"), "") | {name: str(closed)}
    assert powerless("models", "list", **home).returncode == 0
    said = powerless("doctor", **home).stdout
    assert " settings" in said and (name == "XDG_DATA_HOME" or "config.toml may not be looked at" in said)


@permissions_hold
def test_a_model_file_that_may_not_be_read_is_told(tmp_path):
    file = write_model(tmp_path / "model") / "small_int8.tflite"
    file.chmod(0)
    run = powerless("models", "verify", tmp_path / "model")
    assert run.returncode == 1 and f"{file}: cannot be read (Permission denied)" in run.stdout, run.stderr


@permissions_hold
@pytest.mark.parametrize("what", ["input", "output", "folder of the input"])
def test_no_permission(material, tmp_path, what):
    shutil.copy(ASTRONAUT, tmp_path / "face.jpg")
    closed = tmp_path / "closed"
    closed.mkdir()
    if what == "folder of the input":
        given = shutil.move(tmp_path / "face.jpg", closed)
        closed.chmod(0)
    else:
        given = tmp_path / "face.jpg"
        (given if what == "input" else closed).chmod(0 if what == "input" else 0o500)
    out = (tmp_path if what == "folder of the input" else closed) / "out"
    run = powerless("annotate", "--model", material / "model", given, "-o", out)
    closed.chmod(0o700)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("Error: ") and "Permission denied" in run.stderr and run.stderr.count("\n") == 1
    assert set(tree(closed)) <= {Path("face.jpg")}


def spoil_unknown_key(model):
    spoil(model, lambda raw: raw.update(licens="Apache-2.0"))


def spoil_nested_key(model):
    spoil(model, lambda raw: raw["crop"].update(margn=0.1))


def spoil_label_count(model):
    spoil(model, lambda raw: raw["heads"][0].update(labels=[*LABELS, "surprise"]))


def spoil_json(model):
    (model / "manifest.json").write_text("{")


def spoil_input_size(model):
    spoil(model, lambda raw: raw["artifacts"]["int8"]["input"].update(height=48, width=48))


def spoil_output_name(model):
    spoil(model, lambda raw: raw["artifacts"]["int8"]["outputs"].update(mood="moods"))


def flip_a_byte(model):
    path = model / "small_int8.tflite"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_the_file(model):
    path = model / "small_int8.tflite"
    path.write_bytes(path.read_bytes()[:1000])


def remove_the_file(model):
    (model / "small_int8.tflite").unlink()


def spoil(model, change):
    path = model / "manifest.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


MODELS = [
    (spoil_unknown_key, "unknown key 'licens'; did you mean 'licence'?"),
    (spoil_nested_key, "crop: unknown key 'margn'; did you mean 'margin'?"),
    (spoil_label_count, "head 'mood': expected 4 values"),
    (spoil_json, "expected JSON"),
    (spoil_input_size, "manifest says one input (1, 48, 48, 3)"),
    (spoil_output_name, "manifest names outputs ['moods']"),
    (flip_a_byte, "expected sha256"),
    (cut_the_file, "bytes, got 1,000"),
    (remove_the_file, "missing"),
]


@pytest.mark.parametrize(("change", "sentence"), MODELS, ids=[change.__name__ for change, _ in MODELS])
def test_a_model_that_does_not_hold(calmcam, tmp_path, change, sentence):
    model = write_model(tmp_path / "model")
    change(model)
    before = tree(tmp_path)
    refused(calmcam("annotate", "--model", model, ASTRONAUT), sentence)
    assert tree(tmp_path) == before


NAMES = [
    (("--device", "hialo"), "unknown device 'hialo'; did you mean 'hailo'?"),
    (("--detector", "ful"), "unknown detector 'ful'; did you mean 'full'?"),
    (("--labels", "kr"), "unknown labels 'kr'; did you mean 'ko'?"),
    (("--variant", "int9"), "unknown variant 'int9'; did you mean 'int8'?"),
    (("--model", "runs/export/none"), "runs/export/none: there is no such folder; expected a model's, or one of"),
    (("--model", "face_detecton"), "unknown model 'face_detecton'; did you mean 'face_detection'?"),
    (("--model", "face_detection"), "expected a model for face_expression"),
    (("--conf", "1.5"), "conf: expected 0.0 to 1.0, got 1.5"),
    (("--threads", "0"), "threads: expected 1 to 64, got 0"),
    (("--config", "missing.toml"), "missing.toml: cannot be read"),
    (("--modl", "x"), "--model"),
]


@pytest.mark.parametrize(("flags", "sentence"), NAMES, ids=[" ".join(flags) for flags, _ in NAMES])
def test_a_name_that_nobody_knows(calmcam, material, tmp_path, flags, sentence):
    model = () if "--model" in flags else ("--model", material / "model")
    refused(calmcam("annotate", *model, *flags, ASTRONAUT), sentence)
    assert tree(tmp_path) == {}


def test_a_key_that_nobody_knows(calmcam, tmp_path):
    (tmp_path / "c.toml").write_text("max-faces = 3")
    refused(calmcam("--config", "c.toml", "annotate", ASTRONAUT), "unknown key 'max-faces'; did you mean 'max_faces'?")


def test_a_hailo_where_there_is_none(calmcam, material):
    result = calmcam("annotate", "--model", material / "model", "--device", "hailo", ASTRONAUT)
    assert result.exit_code == 1 and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


def test_a_recipe_that_nobody_knows(calmcam):
    pytest.importorskip("keras")
    refused(calmcam("train", "emotoins", "--data", "."), "did you mean 'emotions'?")
