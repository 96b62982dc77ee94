"""Identities as short stories, told at several frame rates."""

from __future__ import annotations

import numpy as np
import pytest

from edge_app.track import Tracker
from edge_app.types import NO_FACES, Faces, Frame

PICTURE = np.zeros((720, 1280, 3), np.uint8)
RATES = pytest.mark.parametrize("fps", [5, 15, 30, 120])


def frame(seconds: float, source: str = "clip") -> Frame:
    return Frame(PICTURE, 0, round(seconds * 1e9), source)


def faces(*centres, side: float = 100.0) -> Faces:
    """One face of `side` px at every (x, y)."""
    middle = np.array(centres, np.float32).reshape(-1, 2)
    boxes = np.concatenate([middle - side / 2, middle + side / 2], axis=1)
    return Faces(boxes, np.ones(len(boxes), np.float32))


def tell(tracker: Tracker, fps: int, seconds: float, story) -> list[list[int]]:
    """Ids of every frame; `story` gives the Faces at a time in seconds."""
    return [tracker(frame(n / fps), story(n / fps)).ids.tolist() for n in range(round(seconds * fps))]


@RATES
def test_a_face_is_numbered_at_once_and_keeps_its_number(fps):
    rng = np.random.default_rng(1)
    ids = tell(Tracker(), fps, 3, lambda t: faces((300, 200) + rng.normal(0, 3, 2), side=100 + rng.normal(0, 3)))
    assert ids == [[1]] * (3 * fps)


@RATES
@pytest.mark.parametrize("gap", [0.2, 0.5, 0.8])
def test_a_gap_of_less_than_a_second_keeps_the_number(fps, gap):
    def story(t):
        return NO_FACES if 1 <= t < 1 + gap - 1e-6 else faces((300 + 20 * t, 200))

    ids = tell(Tracker(), fps, 3, story)
    assert {number for row in ids for number in row} == {1}
    assert [] in ids


@RATES
def test_a_face_that_moves_on_during_the_gap_keeps_its_number(fps):
    def story(t):
        return NO_FACES if 1 < t < 1.45 else faces((200 + 250 * t, 200))  # two and a half faces per second

    ids = tell(Tracker(), fps, 3, story)
    assert {number for row in ids for number in row} == {1}


@RATES
def test_after_a_long_gap_it_is_somebody_new(fps):
    ids = tell(Tracker(), fps, 5, lambda t: NO_FACES if 1 <= t < 2.5 else faces((300, 200)))
    assert ids[0] == [1]
    assert ids[-1] == [2]


@RATES
def test_a_flash_does_not_wait_as_long_as_a_face(fps):
    ids = tell(Tracker(), fps, 2, lambda t: faces((300, 200)) if t == 0 or t >= 0.75 else NO_FACES)
    assert ids[-1] == [2]


@pytest.mark.parametrize(("fps", "people"), [(2.5, {1}), (1.25, {1}), (0.99, {1}), (0.4, {1}), (0.3, {1, 2, 3, 4})])
def test_few_frames_a_second_are_enough_to_be_known_by(fps, people):
    """--vid-stride, and a slow machine: who is in two frames that follow each other is known for up to three seconds."""
    tracker = Tracker()
    assert {tracker(frame(n / fps), faces((300 + 5 * n, 200))).ids[0] for n in range(4)} == people


@pytest.mark.parametrize("where", [(650, 200), (300, 500)])
def test_somebody_else_in_the_next_of_few_frames_is_new(where):
    tracker = Tracker()
    assert tracker(frame(0), faces((300, 200))).ids.tolist() == [1]
    assert tracker(frame(2), faces(where)).ids.tolist() == [2]


def test_a_frame_without_the_face_ends_it_when_frames_are_few():
    tracker = Tracker()
    assert [tracker(frame(t), faces(*at)).ids.tolist() for t, at in enumerate([[(9, 9)], [], [(9, 9)]])] == [
        [1],
        [],
        [2],
    ]


@RATES
def test_a_fast_face_keeps_its_number(fps):
    ids = tell(Tracker(), fps, 2, lambda t: faces((100 + 400 * t, 200)))  # four faces per second
    assert {number for row in ids for number in row} == {1}


@RATES
def test_a_face_that_has_just_begun_to_move_is_found_where_it_goes(fps):
    def story(t):
        return NO_FACES if 1.41 < t < 1.9 else faces((300 + 400 * max(0, t - 1), 200))

    ids = tell(Tracker(), fps, 2.5, story)
    assert {number for row in ids for number in row} == {1}


@RATES
def test_a_face_that_comes_nearer_keeps_its_number(fps):
    ids = tell(Tracker(), fps, 2, lambda t: faces((640, 360), side=60 * 2**t))
    assert {number for row in ids for number in row} == {1}


@RATES
def test_a_jump_across_the_picture_is_another_face(fps):
    ids = tell(Tracker(), fps, 2, lambda t: faces((200, 200) if t < 1 else (900, 500)))
    assert ids[0] == [1]
    assert ids[-1] == [2]


@RATES
def test_a_face_of_another_size_in_the_same_place_is_another_face(fps):
    ids = tell(Tracker(), fps, 2, lambda t: faces((200, 200), side=60 if t < 1 else 150))
    assert ids[-1] == [2]


@RATES
@pytest.mark.parametrize("speed", [100, 250])
def test_faces_that_pass_each_other_keep_their_numbers(fps, speed):
    """They meet at 2 s; the detector sees only the front one, the first, while they overlap by more than half."""

    def story(t):
        right, left = (640 + speed * (t - 2), 300), (640 - speed * (t - 2), 320)
        return faces(right) if abs(right[0] - left[0]) < 60 else faces(right, left)

    ids = tell(Tracker(), fps, 4, story)
    assert ids[0] == [1, 2]
    assert ids[-1] == [1, 2]
    assert {number for row in ids for number in row} == {1, 2}


@RATES
def test_numbers_follow_faces_and_not_rows(fps):
    ids = tell(Tracker(), fps, 2, lambda t: faces((200, 200), (600, 200)) if t < 1 else faces((600, 200), (200, 200)))
    assert ids[0] == [1, 2]
    assert ids[-1] == [2, 1]


@RATES
def test_one_of_three_leaves(fps):
    def story(t):
        return faces((200, 200), (600, 200), (1000, 200)) if t < 1 else faces((200, 200), (1000, 200))

    assert tell(Tracker(), fps, 2, story)[-1] == [1, 3]


@pytest.mark.parametrize(("seconds", "source"), [(0.5, "clip"), (2, "another")])
def test_time_that_runs_backwards_and_another_source_begin_anew(seconds, source):
    tracker = Tracker()
    tell(tracker, 30, 2, lambda t: faces((300, 200)))
    assert tracker(frame(seconds, source), faces((300, 200))).ids.tolist() == [2]


def test_frames_of_the_same_time_are_told_apart_by_place():
    tracker = Tracker()
    assert tracker(frame(1), faces((300, 200), (600, 200))).ids.tolist() == [1, 2]
    assert tracker(frame(1), faces((600, 200), (300, 200))).ids.tolist() == [2, 1]


def test_numbers_belong_to_one_tracker():
    first, second = Tracker(), Tracker()
    assert first(frame(0), faces((300, 200))).ids.tolist() == [1]
    assert second(frame(0), faces((300, 200))).ids.tolist() == [1]
    assert first(frame(9), faces((300, 200))).ids.tolist() == [2]


def test_what_it_remembers_is_bounded():
    tracker = Tracker()
    rng = np.random.default_rng(0)
    for n in range(2000):
        tracker(frame(n / 30), faces(*rng.uniform(0, 100_000, (3, 2))))
    assert len(tracker._tracks) <= 3 * 31
    tracker(frame(1000), NO_FACES)
    assert not tracker._tracks


def test_boxes_without_an_area_are_tracked():
    empty = Faces(np.array([[5, 5, 5, 5], [900, 9, 800, 3]], np.float32), np.ones(2, np.float32))
    tracker = Tracker()
    assert tracker(frame(0), empty).ids.tolist() == [1, 2]
    assert tracker(frame(0.1), empty).ids.tolist() == [1, 2]
    assert tracker(frame(0.2), NO_FACES).ids.dtype == np.int64


@pytest.mark.parametrize(("x", "number"), [(255, 1), (275, 2)])
def test_a_face_in_the_middle_of_two_faces_takes_the_nearer(x, number):
    tracker = Tracker()
    tracker(frame(0), faces((200, 200), (330, 200)))
    assert tracker(frame(0.03), faces((x, 200))).ids.tolist() == [number]


@pytest.mark.parametrize("fps", [15, 30, 120])
@pytest.mark.parametrize("where", [(430, 200), (300, 330)])
def test_the_neighbour_who_appears_where_one_leaves_is_somebody_else(fps, where):
    """1.3 face sizes from one frame to the next is no movement."""
    ids = tell(Tracker(), fps, 2, lambda t: faces((300, 200) if t < 1 else where))
    assert ids[0] == [1] and ids[-1] == [2]


def test_two_faces_in_nearly_the_same_place_are_told_apart_by_their_size():
    def two(big, small):
        return Faces(
            np.array(
                [[big - 50, 150, big + 50, 250], [small - 30, 170, small + 30, 230]],
                np.float32,
            ),
            np.ones(2, np.float32),
        )

    tracker = Tracker()
    assert tracker(frame(0), two(300, 330)).ids.tolist() == [1, 2]
    assert tracker(frame(1 / 30), two(318, 312)).ids.tolist() == [1, 2]


def test_a_face_that_stops_while_unseen_keeps_its_number():
    """What is not seen is taken to come to rest, not to fly on."""

    def story(t):
        return NO_FACES if 1 <= t < 1.8 else faces((200 + 400 * min(t, 1.1), 200))

    ids = tell(Tracker(), 30, 2.5, story)
    assert {number for row in ids for number in row} == {1}


@RATES
@pytest.mark.parametrize("speed", [100, 250])
def test_faces_that_pass_each_other_upwards_keep_their_numbers(fps, speed):
    def story(t):
        down, up = (300, 360 + speed * (t - 2)), (320, 360 - speed * (t - 2))
        return faces(down) if abs(down[1] - up[1]) < 60 else faces(down, up)

    ids = tell(Tracker(), fps, 4, story)
    assert ids[0] == ids[-1] == [1, 2]
    assert {number for row in ids for number in row} == {1, 2}


def test_a_tall_box_and_a_wide_one_of_the_same_width_are_of_two_sizes():
    def box(height):
        return Faces(np.array([[100, 300 - height / 2, 160, 300 + height / 2]], np.float32), np.ones(1, np.float32))

    tracker = Tracker()
    assert tracker(frame(0), box(60)).ids.tolist() == [1]
    assert tracker(frame(1 / 30), box(300)).ids.tolist() == [2]


def test_a_trembling_detector_does_not_throw_a_face_far_in_a_gap():
    rng = np.random.default_rng(4)
    for _ in range(20):
        tracker = Tracker()
        for n in range(60):
            tracker(frame(n / 30), faces((300, 200) + rng.normal(0, 4, 2)))
        assert tracker(frame(2.6), faces((300, 200))).ids.tolist() == [1]
