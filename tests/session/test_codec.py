"""Values as JSON and back."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.errors import SessionError
from napari_sam.propagation.settings import Direction, PropagationSettings
from napari_sam.session.codec import decode, encode
from napari_sam.session.marks import Marks, ShapeKind, ShapeMark


def there_and_back(value, **kwargs):
    return decode(json.loads(json.dumps(encode(value))), **kwargs)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        0.1,
        "ä",
        [1, (2, "b")],
        {PlaneRef(1, 2): (3,), 4: {"a": None}},
        PlaneRef(2, 7, 1, 3),
        Direction.BACKWARD,
        ModelSpec("vit_b", "cpu", "float32"),
        PropagationSettings(plane_range=(2, 9)),
        Path("a/b"),
    ],
)
def test_values_come_back(value):
    assert there_and_back(value) == value


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_masks_come_back(mask):
    region = there_and_back(Region.from_mask(mask))
    np.testing.assert_array_equal(region.mask, mask)


@given(hnp.arrays(st.sampled_from([np.uint8, np.float32]), (3, 4)))
def test_arrays_come_back(array):
    again = there_and_back(array)
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


def test_marks_come_back():
    shape = ShapeMark(ShapeKind.PATH, [(0, 1, 2, 3), (0, 1, 5, 6)], positive=False)
    marks = Marks([(0, 1, 2.5, 3)], [True], (shape,))
    assert there_and_back(marks).same_as(marks)


def test_a_mask_may_stand_elsewhere():
    region = Region.from_mask(np.eye(4, dtype=bool))
    written = encode((region,), refer=lambda r: {"at": 7})
    assert "bits" not in json.dumps(written)
    assert decode(written, resolve=lambda v: region if v["at"] == 7 else None) == (region,)
    with pytest.raises(SessionError, match="another record"):
        decode(written)


def test_settings_written_before_there_was_a_rule_are_without_it():
    written = json.loads(json.dumps(encode(PropagationSettings(min_likeness=0.4))))
    assert decode(written) == PropagationSettings(min_likeness=0.4)
    del written["min_presence"], written["follow_motion"]
    old = PropagationSettings(min_likeness=0.4, min_presence=None, follow_motion=False)
    assert decode(written) == old


@pytest.mark.parametrize("name", ["session.marks:Nothing", "nowhere:Marks", "session.codec:encode"])
def test_unknown_names_are_refused(name):
    with pytest.raises(SessionError, match="newer version"):
        decode({"!": name})


def test_what_cannot_be_written_is_refused():
    with pytest.raises(TypeError, match="object"):
        encode(object())
