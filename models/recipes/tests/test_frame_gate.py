"""The distance of features is that of the head (head/src/policy/gate.rs)."""

import numpy as np

from recipe.frame_gate import MARGIN, changes, distance, place


def test_the_distance_is_that_of_the_tile_that_moved_most():
    still = np.zeros((2, 9, 10), np.int8)
    first, last = still.copy(), still.copy()
    first[:, 0, :4] = -8
    last[:, 8, 4:] = 10
    assert distance(still, still) == 0
    assert distance(still, first) == 2
    # The last tile is larger: rows 4 to 8 and columns 4 to 9.
    assert distance(still, last) == 2
    assert distance(np.array([[[-128]]], np.int8), np.array([[[127]]], np.int8)) == 255


def test_every_change_has_the_size_of_the_scene():
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 256, (128 + 2 * MARGIN, 128 + 2 * MARGIN, 3), np.uint8)
    found = dict(changes(wide, wide[MARGIN:-MARGIN, MARGIN:-MARGIN], rng))
    assert len(found) == 19 and all(pixels.shape == (128, 128, 3) for pixels in found.values())


def test_frames_are_placed_by_their_names():
    assert [place(name) for name in ("0006R0_f00960.jpg", "0016E5_00390.jpg")] == [("0006R0", 960), ("0016E5", 390)]
