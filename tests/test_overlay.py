"""What is drawn: where, in which colours and words, and what is never covered or shown."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from edge_app.drawing import text
from edge_app.drawing.canvas import text_size
from edge_app.drawing.overlay import GREY, PALETTE, Overlay, colour
from edge_app.drawing.pixelate import HOLD_NS, pixelate
from edge_app.drawing.words import KOREAN, word
from edge_app.types import NO_FACES, Decision, Faces, Frame, Result, Status

ROOT = Path(__file__).parent.parent
CASES = ROOT / "tests" / "cases"
PORTRAIT = cv2.cvtColor(cv2.imread(str(CASES / "astronaut.jpg")), cv2.COLOR_BGR2RGB)
FACE = (168, 62, 283, 185)  # in the portrait of 512 x 512
PROBS = dict(angry=0.02, disgust=0.01, fear=0.03, happy=0.81, neutral=0.08, sad=0.03, surprise=0.02)
SIZES = [(320, 240), (640, 360), (1280, 720), (3840, 2160)]


def decided(label: str = "happy", *, unsure: str = "") -> Decision:
    return Decision("unsure" if unsure else label, 0.81, PROBS, bool(unsure), unsure)


def found(
    boxes: list[tuple[float, ...]], decisions: list[Decision] | None = None, ids: list[int] | None = None
) -> Faces:
    n = len(boxes)
    return Faces(
        np.array(boxes, np.float32).reshape(n, 4),
        np.full(n, 0.97, np.float32),
        ids=np.array(ids if ids is not None else range(1, n + 1)),
        decisions=tuple(decisions or [decided()] * n),
        device="cpu",
    )


def result(image: np.ndarray, faces: Faces = NO_FACES, time_ns: int = 4_004_000_000, source: str = "a.mp4") -> Result:
    return Result(Frame(image, 120, time_ns, source), faces, {}, Status(29.94, 21.4, 3, "cpu"))


def grey(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def portrait(width: int, height: int, picture: np.ndarray = PORTRAIT) -> Result:
    """The portrait (or another square) in the middle of a grey picture, with its face."""
    scale = height / 512
    image, left = grey(width, height), (width - height) // 2
    image[:, left : left + height] = cv2.resize(picture, (height, height), interpolation=cv2.INTER_AREA)
    return result(image, found([tuple(value * scale + left * (index % 2 == 0) for index, value in enumerate(FACE))]))


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


def is_colour(image: np.ndarray, ink: tuple[int, int, int]) -> np.ndarray:
    return (image == np.array(ink, np.uint8)).all(axis=2)


@pytest.mark.parametrize("size", [(320, 240), (1280, 720)])
@pytest.mark.parametrize("labels", ["en", "ko"])
def test_golden_pictures(size: tuple[int, int], labels: str) -> None:
    """Compared with pictures that were looked at; FreeType versions may differ by a shade. On a plain ground: small."""
    drawn = Overlay(labels=labels)(portrait(*size, grey(512, 512)))
    golden = cv2.cvtColor(cv2.imread(str(CASES / f"overlay_{size[0]}_{labels}.png")), cv2.COLOR_BGR2RGB)
    difference = np.abs(drawn.astype(int) - golden)
    assert difference.mean() < 0.1 and (difference.max(axis=2) > 64).mean() < 0.001


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_is_drawn_and_the_face_stays_free(size: tuple[int, int]) -> None:
    item = portrait(*size)
    before = item.frame.image.copy()
    drawn = Overlay()(item)
    np.testing.assert_array_equal(item.frame.image, before)
    assert drawn.shape == before.shape and drawn.dtype == np.uint8
    x1, y1, x2, y2 = item.faces.boxes[0].astype(int)
    pad = text_size(*size) // 2
    assert not changed(before, drawn)[y1 + pad : y2 - pad, x1 + pad : x2 - pad].any()
    assert changed(before, drawn).any()


def test_captions_that_never_come_again_are_not_kept() -> None:
    draw, image = Overlay(status="clock"), grey(720, 720)

    def show(numbers: range) -> int:
        for number in numbers:
            said = replace(decided(), confidence=number % 100 / 100)
            draw(result(image, found([(200, 200, 400, 400)], [said], [number]), number * 40_000_000))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = show(range(100, 200))
        assert show(range(200, 500)) - before < 500_000
    finally:
        tracemalloc.stop()


def test_text_grows_with_the_picture() -> None:
    assert [text_size(*size) for size in SIZES] == [12, 12, 20, 60]


def test_a_chart_shows_each_probability_where_there_is_room() -> None:
    item = portrait(1280, 720)
    ink = PALETTE[1]
    with_bars, without = Overlay()(item), Overlay(bars=False)(item)
    right = int(item.faces.boxes[0, 2]) + 6
    lengths = [run for run in is_colour(with_bars, ink)[:, right:].sum(axis=1).tolist() if run]
    runs = [length for index, length in enumerate(lengths) if index == 0 or length != lengths[index - 1]]
    assert not is_colour(without, ink)[:, right:].any()
    assert runs == [2, 1, 2, 65, 6, 2]  # of 80 px; sad and surprise round to the same
    assert not is_colour(Overlay()(portrait(320, 240)), ink)[:, int(portrait(320, 240).faces.boxes[0, 2]) + 40 :].any()


def test_a_small_face_gets_no_chart() -> None:
    image = grey(1280, 720)
    for side, expected in ((60, False), (100, True)):
        touched = changed(image, Overlay(status="")(result(image, found([(400, 300, 400 + side, 300 + side)]))))
        assert touched[300 + side // 2, 400 + side + 8 :].any() == expected


def test_a_chart_does_not_flicker_where_a_face_is_just_tall_enough() -> None:
    draw, image, there = Overlay(status=""), grey(1280, 720), []
    for number, side in enumerate((66, 100, 66, 50)):
        touched = changed(image, draw(result(image, found([(400, 300, 400 + side, 300 + side)]), number * 40_000_000)))
        there.append(bool(touched[300 + side // 2, 400 + side + 12 :].any()))
    assert there == [False, True, True, False]


def test_a_chart_covers_no_neighbour() -> None:
    image = grey(1280, 720)
    boxes = [(20 + 130 * i, 200, 140 + 130 * i, 340) for i in range(8)]
    drawn = Overlay()(result(image, found(boxes)))
    for x1, y1, x2, y2 in boxes:
        assert not changed(image, drawn)[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8].any()
    assert changed(image, drawn)[208:332, boxes[-1][2] + 20 : boxes[-1][2] + 40].any(), (
        "where there is room there is one"
    )


def test_a_chart_stays_on_its_side_while_there_is_room() -> None:
    draw, image, sides = Overlay(status=""), grey(640, 480), []
    for number, left in enumerate((300, 500, 300)):  # beside the right border there is none on that side
        touched = changed(image, draw(result(image, found([(left, 150, left + 100, 300)]), number * 40_000_000)))
        sides.append(
            ("left" if touched[200, :left].any() else "") + ("right" if touched[200, left + 100 :].any() else "")
        )
    assert sides == ["right", "left", "left"]


def test_a_chart_that_had_to_go_stays_away_for_a_while() -> None:
    draw, image, there = Overlay(status=""), grey(1280, 720), []
    for time_ms, side in ((0, 100), (40, 30), (80, 100), (1200, 100)):
        box = (400, 300, 400 + side, 300 + side)
        touched = changed(image, draw(result(image, found([box]), time_ms * 1_000_000)))
        there.append(bool(touched[300 + side // 2, 400 + side + 12 :].any()))
    assert there == [True, False, False, True]


def test_a_percentage_stands_long_enough_to_be_read() -> None:
    draw, image, first, shown = Overlay(bars=False, status=""), grey(640, 480), None, []
    for time_ms, confidence in ((0, 0.81), (40, 0.83), (440, 0.79), (520, 0.83), (560, 0.81), (600, 0.88), (640, 0.81)):
        faces = found([(300, 200, 400, 300)], [replace(decided(), confidence=confidence)])
        drawn = draw(result(image, faces, time_ms * 1_000_000))
        first = drawn if first is None else first
        shown.append(bool(np.array_equal(drawn, first)))
    assert shown == [True, True, True, False, False, False, True], "after half a second, or 5 points away"


BORDERS = [(-30, -20, 60, 80), (600, -20, 660, 80), (600, 400, 660, 500), (-30, 420, 40, 500), (0, 0, 640, 480)]


@pytest.mark.parametrize("box", [*BORDERS, (300, 2, 340, 40), (630, 200, 640, 210)])
def test_labels_stay_in_the_picture(box: tuple[int, ...]) -> None:
    drawn = Overlay(bars=False, status="")(result(grey(640, 480), found([box])))
    assert tag_count(drawn) == 1


def tag_count(drawn: np.ndarray) -> int:
    """How often the tag of track 1, "happy 81%", stands in a picture."""
    alone = Overlay(bars=False, status="")(result(grey(640, 480), found([(300, 200, 330, 230)])))
    rows, columns = np.nonzero(changed(grey(640, 480), alone)[:198])
    tag = alone[rows.min() : 198, columns.min() : columns.max() + 1]
    scores = cv2.matchTemplate(drawn, tag[2:-2], cv2.TM_SQDIFF_NORMED)
    return int((scores < 1e-4).sum())


def test_tags_of_neighbours_do_not_overlap() -> None:
    boxes = [(200, 200, 240, 250), (220, 205, 260, 255), (230, 195, 270, 245)]
    drawn = Overlay(bars=False, status="")(result(grey(640, 480), found(boxes, ids=[1, 1, 1])))
    assert tag_count(drawn) == 3


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2), (16, 16), (33, 1)])
def test_pictures_too_small_for_words(size: tuple[int, int]) -> None:
    for blur in (False, True):
        drawn = Overlay(blur=blur)(result(grey(*size), found([(0, 0, *size), (-5, -5, 40, 40)])))
        assert drawn.shape == (size[1], size[0], 3)


def test_faces_outside_the_picture_or_without_size_do_no_harm() -> None:
    boxes = [(-90, -90, -50, -50), (900, 900, 950, 950), (10, 10, 10, 10), (30, 30, 20, 20)]
    for blur in (False, True):
        assert Overlay(blur=blur)(result(grey(320, 240), found(boxes))).shape == (240, 320, 3)


# --- words and colours


def test_colours_stay_with_the_track_and_grey_is_unsure() -> None:
    box = (10, 10, 50, 50)
    assert colour(found([box], ids=[7]), 0) == colour(found([box, box], ids=[3, 7]), 1) == PALETTE[7 % len(PALETTE)]
    assert colour(found([box], [decided(unsure="small")], ids=[7]), 0) == GREY
    untracked = replace(found([box]), ids=None)
    assert colour(untracked, 0) == PALETTE[0]
    drawn = Overlay()(result(grey(320, 240), found([(100, 80, 200, 180)], [decided(unsure="blurred")])))
    assert is_colour(drawn, GREY).sum() > 400


def test_of_two_words_the_one_that_denies_is_grey() -> None:
    boxes, said = [(40, 80, 140, 180), (240, 80, 340, 180)], [decided("non_teasing"), decided("teasing")]
    item = result(grey(640, 480), found(boxes, said, ids=[3, 7]))
    drawn = Overlay(muted="non_teasing")(item)
    assert is_colour(drawn, GREY).sum() > 400 and not is_colour(drawn, PALETTE[3]).any()
    assert is_colour(drawn, PALETTE[0]).sum() > 400
    assert is_colour(Overlay()(item), PALETTE[3]).sum() > 400, "of several words none denies the others"


def test_neighbouring_colours_differ_and_carry_dark_ink() -> None:
    for first, second in zip(PALETTE, (*PALETTE[1:], PALETTE[0]), strict=True):
        assert np.abs(np.subtract(first, second)).sum() > 150
    for ink in (*PALETTE, GREY):  # contrast by WCAG 2.1, 1.4.3
        light = np.array(ink) / 255
        linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
        assert (linear + 0.05) / (0.009 + 0.05) > 4.5


def test_words() -> None:
    assert [word(name, "ko") for name in ("happy", "non_teasing", "mood 7")] == ["행복", "약올림 아님", "mood 7"]
    assert [word(name, "en") for name in ("happy", "non_teasing", "행복")] == ["happy", "not teasing", "행복"]
    labels = (
        "angry disgust fear happy neutral sad surprise calm teasing non_teasing contempt embarrassment confused shy"
    )
    assert {*labels.split(), "unsure", "small", "blurred", "dark", "turned", "confidence"} <= KOREAN.keys()


@pytest.mark.parametrize(
    "unsure,shown", [("small", "unsure · small"), ("confidence", "unsure · low confidence"), ("", "happy 81%")]
)
def test_what_a_tag_says(unsure: str, shown: str) -> None:
    """The same pixels as a picture of the text."""
    box = (100, 100, 200, 200)
    drawn = Overlay(status="")(result(grey(320, 240), found([box], [decided(unsure=unsure)])))
    ink = text.line(shown, 12)
    ground = np.array(GREY if unsure else PALETTE[1], np.float32)
    darkness = (ground - drawn[:100, 100:300]).max(axis=2) / (ground - 24).max() * 255
    scores = cv2.matchTemplate(darkness.astype(np.float32), ink.astype(np.float32), cv2.TM_SQDIFF_NORMED)
    assert scores.min() < 0.01


@pytest.mark.parametrize("status,least,most", [("live", 100, 240), ("clock", 30, 90), ("", 0, 0)])
def test_the_status_line_is_in_the_lower_left(status: str, least: int, most: int) -> None:
    image = grey(320, 240)
    touched = changed(image, Overlay(status=status)(result(image)))
    assert not touched[:220].any() and least <= touched[-1].sum() <= most


@pytest.mark.parametrize(
    ("status", "fps", "shown"),
    [
        ("live", 29.96, "30.0 fps   21 ms   dropped 12   hailo"),
        ("live", 0.0, "21 ms   dropped 12   hailo"),
        ("clock", 29.96, "1:04.00"),
    ],
)
def test_the_status_line_says_what_the_run_does(status: str, fps: float, shown: str) -> None:
    frame = Frame(grey(640, 480), 0, 64_009_000_000)
    item = replace(result(frame.image), frame=frame, status=Status(fps, 20.6, 12, "hailo"))
    drawn, ink = Overlay(status=status)(item), text.line(shown, 13)
    scores = cv2.matchTemplate(drawn[..., 0].astype(np.float32), ink.astype(np.float32), cv2.TM_CCOEFF_NORMED)
    assert scores.max() > 0.98
    assert scores.argmax() % scores.shape[1] < 20


# --- glyphs


def test_every_hangul_word_has_glyphs_of_its_own() -> None:
    tofu = text.line("?", 24)
    syllables = sorted(set("".join(KOREAN.values())) - {" "})
    pictures = [text.line(syllable, 24) for syllable in syllables]
    assert all(picture.shape != tofu.shape or (picture != tofu).any() for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(syllables)


def test_all_of_ks_x_1001_and_ascii_is_in_the_font() -> None:
    tofu = text.line("\U0001f600", 16).tobytes()
    hangul = [bytes([high, low]).decode("euc_kr") for high in range(0xB0, 0xC9) for low in range(0xA1, 0xFF)]
    drawn = {
        character: text.line(character, 16).tobytes()
        for character in [*hangul, *map(chr, range(33, 127))]
        if character != "?"
    }
    assert len(hangul) == 2350 and tofu not in drawn.values()


def test_hangul_from_a_file_system_that_takes_it_apart() -> None:
    np.testing.assert_array_equal(text.line("\u1112\u1162\u11bc\u1107\u1169\u11a8", 20), text.line("행복", 20))


@pytest.mark.parametrize("size", [12, 20, 60])
def test_no_ink_is_cut_off(size: int) -> None:
    """A glyph in a line has as much ink as on a large ground."""
    font = ImageFont.truetype(
        str(ROOT / "edge_app" / "drawing" / text.FONT), size, layout_engine=ImageFont.Layout.BASIC
    )
    for sample in "gjpqy|(){}Q@행복뛰쌓":
        ground = Image.new("L", (200, 200))
        ImageDraw.Draw(ground).text((60, 100), sample, font=font, fill=255, anchor="ls")
        assert text.line(sample, size).sum(dtype=int) == pytest.approx(np.sum(ground, dtype=int), rel=0.01)


def test_what_the_font_lacks_is_not_passed_over() -> None:
    np.testing.assert_array_equal(text.line("Ängstlich", 20), text.line("Angstlich", 20))
    np.testing.assert_array_equal(text.line("\U0001f600", 20), text.line("?", 20))


def test_a_label_in_hangul_is_drawn_in_an_english_picture() -> None:
    image = grey(320, 240)
    one, other = (Overlay()(result(image, found([(100, 80, 200, 180)], [decided(name)]))) for name in ("기쁨", "슬픔"))
    assert changed(one, other).sum() > 10


# --- pixelated faces


def test_faces_are_pixelated_beyond_their_box() -> None:
    item = portrait(1280, 720)
    drawn = Overlay(blur=True, bars=False, status="")(item)
    x1, y1, x2, y2 = item.faces.boxes[0].astype(int)
    inner = drawn[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8]
    assert len(np.unique(inner.reshape(-1, 3), axis=0)) < 36
    margin = (x2 - x1) // 6
    assert changed(item.frame.image, drawn)[y2 + 4 : y2 + margin, x1:x2].mean() > 0.8


def test_unsure_faces_are_pixelated_too() -> None:
    item = portrait(1280, 720)
    item = replace(item, faces=replace(item.faces, decisions=(decided(unsure="turned"),)))
    x1, y1, x2, y2 = item.faces.boxes[0].astype(int)
    inner = Overlay(blur=True)(item)[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8]
    assert len(np.unique(inner.reshape(-1, 3), axis=0)) < 36


def test_faces_beyond_the_limits_are_pixelated_too() -> None:
    item = portrait(1280, 720)
    item = replace(item, faces=replace(NO_FACES, left_out=item.faces.boxes))
    x1, y1, x2, y2 = item.faces.left_out[0].astype(int)
    overlay = Overlay(blur=True, status="")
    later = result(item.frame.image, NO_FACES, item.frame.time_ns + HOLD_NS)
    for drawn in (overlay(item), overlay(later)):
        inner = drawn[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8]
        assert len(np.unique(inner.reshape(-1, 3), axis=0)) < 36


@pytest.mark.parametrize("tracked", [True, False])
def test_a_face_the_detector_loses_stays_covered_for_a_while(tracked: bool) -> None:
    overlay, item = Overlay(blur=True, status=""), portrait(640, 360)
    seen = item.faces if tracked else replace(item.faces, ids=None, decisions=None)
    x1, y1, x2, y2 = item.faces.boxes[0].astype(int)

    def covered(after_ns: int, source: str = "a.mp4", faces: Faces = NO_FACES) -> bool:
        again = overlay(result(item.frame.image, faces, 4_000_000_000 + after_ns, source))
        return bool(changed(item.frame.image, again)[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8].mean() > 0.8)

    assert covered(0, faces=seen)
    assert covered(HOLD_NS // 2) and covered(HOLD_NS)
    assert not covered(HOLD_NS + 1)
    assert covered(HOLD_NS + 2, faces=seen)
    assert not covered(HOLD_NS + 3, source="b.mp4")


def test_pixels_of_a_face_are_few_and_even() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    before = image.copy()
    pixelate(image, np.array([30, 30, 70, 70], np.float32))
    assert len(np.unique(image[22:78, 22:78].reshape(-1, 3), axis=0)) == 36
    np.testing.assert_array_equal(image[:22], before[:22])
