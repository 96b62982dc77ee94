"""Pictures of every kind, in folders, patterns and lists; and those that cannot be read."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from edge_app.errors import SourceError
from edge_app.media import LIMIT_MEGAPIXELS
from edge_app.sources.images import Source
from edge_app.types import Frame

RED, WHITE = (255, 0, 0), (255, 255, 255)


def frames(spec: object) -> list[Frame]:
    with Source(str(spec)) as source:
        return list(source)


def halves() -> Image.Image:
    """40 x 20, left half red, right half blue."""
    image = Image.new("RGB", (40, 20), "blue")
    image.paste(RED, (0, 0, 20, 20))
    return image


def pixel(image: np.ndarray, x: int = 0, y: int = 0) -> tuple[int, ...]:
    return tuple(int(value) for value in image[y, x])


def test_files_of_one_name_are_different_sources(tmp_path: Path) -> None:
    for name in ("fear/face.png", "happy/face.png", "other.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        halves().save(tmp_path / name)
    (tmp_path / "list.txt").write_text("fear/face.png\nother.png\nhappy/face.png\n")
    assert [frame.source for frame in frames(tmp_path / "list.txt")] == ["fear/face.png", "other.png", "happy/face.png"]
    assert [frame.source for frame in frames(tmp_path / "*" / "face.png")] == ["fear/face.png", "happy/face.png"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.asarray(halves())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored[orientation])).save(tmp_path / "a.png", exif=exif)
    (frame,) = frames(tmp_path / "a.png")
    np.testing.assert_array_equal(frame.image, upright)


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("grey.png", Image.new("L", (4, 3), 90), (90, 90, 90)),
        ("bits.png", Image.new("1", (4, 3), 1), WHITE),
        ("cmyk.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), RED),
        ("16bit.png", Image.fromarray(np.full((3, 4), 0x8080, np.uint16)), (128, 128, 128)),
        ("16bit.tif", Image.fromarray(np.full((3, 4), 0x4040, np.uint16)), (64, 64, 64)),
        ("float.tif", Image.fromarray(np.full((3, 4), 0.5, np.float32)), (128, 128, 128)),
        ("glass.png", Image.new("RGBA", (4, 3), (0, 0, 255, 0)), WHITE),
        ("half.png", Image.new("LA", (4, 3), (0, 128)), (127, 127, 127)),
        ("palette.png", Image.new("RGB", (4, 3), RED).quantize(4), RED),
        ("one.png", Image.new("RGB", (1, 1), RED), RED),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_mode_becomes_rgb(tmp_path: Path, name: str, image: Image.Image, expected: tuple[int, ...]) -> None:
    image.save(tmp_path / name)
    (frame,) = frames(tmp_path / name)
    assert frame.image.shape == (image.height, image.width, 3)
    assert frame.image.flags.c_contiguous
    np.testing.assert_allclose(pixel(frame.image), expected, atol=2)


def test_the_colours_of_a_profile_become_srgb(tmp_path: Path) -> None:
    """A profile in which red and green are changed over, and damage."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    for profile, expected in ((srgb, (200, 40, 90)), (swapped, (40, 200, 90)), (b"damaged", (200, 40, 90))):
        Image.new("RGB", (8, 8), (200, 40, 90)).save(tmp_path / "a.png", icc_profile=profile)
        assert np.allclose(pixel(frames(tmp_path / "a.png")[0].image), expected, atol=3)


def test_transparent_palette_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 3), 0)
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.save(tmp_path / "a.gif", transparency=0)
    assert pixel(frames(tmp_path / "a.gif")[0].image) == WHITE


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame_is_taken_and_said_once(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second], duration=100, lossless=True)
    for _ in range(2):
        (frame,) = frames(tmp_path / f"a.{suffix}")
        assert pixel(frame.image) == RED
    (told,) = caplog.records
    assert told.levelname == "WARNING" and f"a.{suffix}: of its 2 pictures only the first" in told.message


def test_a_phones_jpeg_with_a_small_copy_is_one_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    halves().save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[halves().reduce(2)])
    assert len(frames(tmp_path / "a.jpg")) == 1
    assert not caplog.messages


def test_content_counts_and_not_the_extension(tmp_path: Path) -> None:
    halves().save(tmp_path / "really_png.jpg", format="PNG")
    assert pixel(frames(tmp_path / "really_png.jpg")[0].image) == RED


def test_folder_comes_in_natural_order_a_second_apart(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "1.PNG", "._1.png", "notes.md"):
        halves().save(tmp_path / name, format="PNG")
    (tmp_path / "sub.png").mkdir()
    with Source(str(tmp_path)) as source:
        assert source.frames == 3
        got = list(source)
    assert [frame.source for frame in got] == ["1.PNG", "2.png", "10.png"]
    assert [(frame.index, frame.time_ns) for frame in got] == [(0, 0), (1, 10**9), (2, 2 * 10**9)]


def test_pattern_reaches_into_subfolders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    halves().save(tmp_path / "a" / "x.png")
    halves().save(tmp_path / "y.png")
    assert [frame.source for frame in frames(tmp_path / "**" / "*.png")] == ["x.png", "y.png"]


def test_list_keeps_its_order_and_is_relative_to_itself(tmp_path: Path) -> None:
    for name in ("b.png", "a b.png"):
        halves().save(tmp_path / name)
    (tmp_path / "list.txt").write_text(f"# mine\n\nb.png\n{tmp_path / 'a b.png'}\n", encoding="utf-8")
    assert [frame.source for frame in frames(tmp_path / "list.txt")] == ["b.png", "a b.png"]


@pytest.mark.parametrize(
    "name", ["a b.png", 'it\'s "so".png', "100%.png", "%03d.png", "얼굴.png", "[x]*.png", "a:b.png"]
)
def test_unusual_names(tmp_path: Path, name: str) -> None:
    halves().save(tmp_path / name)
    (frame,) = frames(tmp_path / name)
    assert (frame.source, pixel(frame.image)) == (name, RED)


def huge_png(path: Path, side: int) -> None:
    """A picture of side x side that says so and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b""))


def make_bad(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.png"
    if kind == "zero bytes":
        path.touch()
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "cut":
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind.startswith("huge"):
        huge_png(path, int(kind.split()[1]))
    elif kind == "heic":
        path = folder / "a.heic"
        path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    elif kind == "empty folder":
        path = folder / "empty"
        path.mkdir()
        (path / "notes.md").touch()
    elif kind == "empty list":
        path = folder / "list.txt"
        path.write_text("# nothing\n")
    elif kind == "pattern":
        path = folder / "*.none"
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no such file"),
        ("zero bytes", "zero bytes"),
        ("text", "expected a picture"),
        ("cut", "damaged"),
        ("huge 11000", f"at most {LIMIT_MEGAPIXELS} megapixels, got 11000 x 11000"),
        ("huge 30000", f"at most {LIMIT_MEGAPIXELS} megapixels"),
        ("heic", "convert it to JPEG"),
        ("empty folder", "folder with pictures"),
        ("empty list", "list with one path per line"),
        ("pattern", "some picture matches"),
    ],
)
def test_bad_input_is_refused_when_opened(tmp_path: Path, kind: str, says: str) -> None:
    path = make_bad(kind, tmp_path)
    with pytest.raises(SourceError, match=says) as caught, Source(str(path)):
        pass
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_bad_picture_among_good_ones_is_named_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 3):
        halves().save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").touch()
    with Source(str(tmp_path)) as source:
        got = list(source)
    assert [frame.index for frame in got] == [0, 2]
    assert [path.name for path, _ in source.failed] == ["2.png"]
    assert "2.png" in caplog.text


def test_only_bad_pictures_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "2.png").write_text("x")
    with pytest.raises(SourceError, match="none of its 2 pictures"):
        frames(tmp_path)
