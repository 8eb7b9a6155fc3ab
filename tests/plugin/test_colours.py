"""The colour of an object in the table is its colour in the labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Labels
from qtpy.QtCore import Qt

from napari_sam.plugin.colours import own_colours
from napari_sam.plugin.objects_table import COLOUR
from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui
CENTRES = [(6, 20, 22), (6, 40, 60)]
RED = (1.0, 0.0, 0.0)
BASE = Labels(np.zeros((2, 2), np.uint32)).colormap
LABELS = st.integers(1, 20_000)


@settings(max_examples=30, deadline=None)
@given(st.lists(LABELS, min_size=1, max_size=5), st.lists(LABELS, max_size=5))
def test_others_keep_theirs(coloured, others):
    made = own_colours(BASE, dict.fromkeys(coloured, RED), max(coloured + others))
    for label in coloured:
        np.testing.assert_allclose(made.map(label), (*RED, 1))
    for label in set(others) - set(coloured):
        np.testing.assert_allclose(made.map(label), BASE.map(label), atol=1e-6)


@pytest.fixture
def widget(segment, wait):
    made = segment(ball_volume((12, 60, 80), CENTRES, 8.0).image, name="balls", show=True)
    made.viewer.dims.set_point(0, 6)
    for number, centre in enumerate(CENTRES):
        made.controller.layers.points.add(centre)
        wait(made)
        (made.session.next_object if number == 0 else made.session.commit)()
        wait(made)
    return made


def seen(widget, wait):
    """Whether anything red is on the canvas."""
    widget.viewer.layers.selection.clear()
    widget.controller.layers.points.visible = False
    widget.controller.layers.labels.opacity = 1.0
    wait(widget)
    picture = widget.viewer.screenshot(flash=False)[..., :3].astype(int)
    return bool(((picture[..., 0] > 200) & (picture[..., 1:] < 60).all(-1)).any())


def test_a_colour_is_shown_undone_and_kept_apart_from_the_others(widget, wait):
    layer, editing = widget.controller.layers.labels, widget.session.editing
    before = layer.get_color(1), layer.get_color(2)
    assert not seen(widget, wait)
    editing.colour(1, RED)
    assert seen(widget, wait)
    np.testing.assert_allclose(layer.get_color(1), (*RED, 1))
    np.testing.assert_allclose(layer.get_color(2), before[1])
    table = widget.object_list.table
    cell = table.data(table.index(table.row_of(1), COLOUR), Qt.ItemDataRole.DecorationRole)
    assert cell.getRgbF()[:3] == RED
    layer.new_colormap(seed=7)  # as napari's button does
    editing.rename(1, "left")
    assert seen(widget, wait)
    widget.session.undo()
    widget.session.undo()
    assert not seen(widget, wait)
    np.testing.assert_allclose(layer.get_color(2), layer._random_colormap.map(2))


def test_a_large_label_with_a_colour_is_drawn_in_part_as_in_whole(widget, wait):
    session, layer = widget.session, widget.controller.layers.labels
    session.state.object_id = 4000  # its table needs 16 bits on the graphics card
    widget.controller.layers.points.add((6, 20, 22))
    wait(widget)
    session.editing.colour(4000, RED)
    wait(widget)
    session.erase_object()
    session.undo()
    wait(widget)
    image = layer._slice.image
    np.testing.assert_array_equal(image.view, layer._raw_to_displayed(image.raw))
    session.state.object_id = 1
    session.editing.colour(1, RED)
    assert seen(widget, wait)
