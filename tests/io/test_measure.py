import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import marching_cubes, mesh_surface_area, regionprops

from napari_sam.errors import ExportError
from napari_sam.io.label_source import label_source
from napari_sam.io.measure import ObjectMeasures, iter_save_table, measure_objects
from napari_sam.io.volume import open_volume
from napari_sam.testing.fakes import ArrayVolume, CountingVolume

SPACINGS = st.tuples(*[st.sampled_from([0.25, 1.0, 2.5])] * 3)
LABELS = hnp.arrays(np.uint16, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 3))


def surface_of(mask, spacing):
    vertices, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5, spacing=spacing)
    return mesh_surface_area(vertices, faces)


@settings(max_examples=60, deadline=None)
@given(LABELS, SPACINGS)
def test_agrees_with_scikit_image(labels, spacing):
    image = np.random.default_rng(0).integers(0, 4000, labels.shape).astype(np.uint16)
    found = measure_objects(labels, image=ArrayVolume(image, spacing_zyx=spacing, translate_zyx=(5, -3, 1)))
    wanted = regionprops(labels, intensity_image=image, spacing=spacing)
    assert [one.label for one in found] == [one.label for one in wanted]
    for mine, theirs in zip(found, wanted):
        assert mine.n_voxels == theirs.num_pixels
        assert mine.volume == pytest.approx(theirs.area)
        np.testing.assert_allclose(mine.centroid_zyx, np.add(theirs.centroid, (5, -3, 1)))
        low, high = theirs.bbox[:3], theirs.bbox[3:]
        np.testing.assert_array_equal(mine.box_zyx, [low, np.subtract(high, 1)])
        np.testing.assert_allclose(mine.extent_zyx, np.subtract(high, low) * spacing)
        assert mine.equivalent_diameter == pytest.approx((6 * theirs.area / np.pi) ** (1 / 3))
        assert mine.intensity[0, 0] == pytest.approx(theirs.intensity_mean)
        assert mine.intensity[1, 0] == pytest.approx(image[labels == mine.label].std(), abs=1e-6)
        assert mine.intensity[2:, 0].tolist() == [theirs.intensity_min, theirs.intensity_max]
        assert mine.surface == pytest.approx(surface_of(labels == mine.label, spacing), rel=1e-5)


def test_a_box_computed_by_hand():
    labels = np.zeros((6, 20, 20), np.uint8)
    labels[1:5, 2:12, 3:6] = 7
    volume = open_volume(labels, axes="ZYX", spacing=(2.0, 0.5, 0.5), unit="micrometer")
    (one,) = measure_objects(volume)
    assert (one.label, one.n_voxels) == (7, 120)
    assert one.volume == 60.0
    assert one.centroid_zyx.tolist() == [5.0, 3.25, 2.0]
    assert one.extent_zyx.tolist() == [8.0, 5.0, 1.5]
    assert not one.touches_border
    assert 0 < one.sphericity < 1


def read_table(steps):
    """The rows of a table, once it is written."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return list(csv.DictReader(end.value.read_text().splitlines()))


def test_intensities_of_the_level_that_the_labels_are_as_large_as(tmp_path):
    fine = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)
    image = open_volume([fine, fine[:, ::2, ::2]], axes="ZYX")
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1:3, 1, 2] = 1
    source = label_source(labels)
    (row,) = read_table(iter_save_table(source, tmp_path / "t.csv", image=image, image_level=1))
    assert float(row["mean_intensity"]) == fine[1:3, 2, 4].mean()
    with pytest.raises(ExportError, match="do not fit the image"):
        next(iter_save_table(source, tmp_path / "u.csv", image=image))


def test_intensities_of_a_tracked_volume(tmp_path):
    movie = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
    image = open_volume(movie, axes="TYX:T")
    labels = np.zeros(movie.shape, np.uint8)
    labels[2:4, 3, 1:3] = 1
    rows = read_table(iter_save_table(labels, tmp_path / "t.csv", image=image))
    assert [row["time"] for row in rows] == ["2", "3"]
    assert [float(row["mean_intensity"]) for row in rows] == [movie[t, 3, 1:3].mean() for t in (2, 3)]


def test_a_ball_is_round():
    z, y, x = np.ogrid[-20:21, -20:21, -20:21]
    (one,) = measure_objects((z**2 + y**2 + x**2 <= 18**2).astype(np.uint8))
    assert one.volume == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.01)
    assert one.sphericity == pytest.approx(0.92, abs=0.03)  # the stairs of voxels add surface


def test_planes_are_read_once_and_memory_is_that_of_two_planes():
    image = CountingVolume(ArrayVolume(np.zeros((30, 8, 8), np.uint8)))
    labels = np.ones((30, 8, 8), np.uint8)
    assert len(measure_objects(labels, image=image)) == 1
    assert image.n_reads == 30


def test_time_points_and_large_ids_are_kept_apart():
    labels = np.zeros((2, 3, 5, 5), np.uint32)
    labels[0, 1, 2, 2] = labels[1, 1, :2, 2] = 4_000_000_000
    found = measure_objects(labels)
    assert [(one.label, one.time, one.n_voxels) for one in found] == [
        (4_000_000_000, 0, 1),
        (4_000_000_000, 1, 2),
    ]
    assert [one.touches_border for one in found] == [False, True]


def test_table_has_properties_first_and_one_row_an_object(tmp_path):
    labels = np.zeros((3, 5, 5), np.uint8)
    labels[1, 1:3, 1], labels[:, 4, 4] = 1, 2
    image = ArrayVolume(np.stack([np.full(labels.shape, 5), np.full(labels.shape, 9)], -1), "ZYXC")
    steps = iter_save_table(
        labels, tmp_path / "t.csv", image=image, properties={1: {"name": "left"}, 2: {"doubt": 0.5}}
    )
    assert list(steps) == [(1, 3), (2, 3), (3, 3)]
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert list(rows[0])[:5] == ["label", "name", "doubt", "time", "voxels"]
    assert [(r["label"], r["name"], r["doubt"], r["voxels"]) for r in rows] == [
        ("1", "left", "", "2"),
        ("2", "", "0.5", "3"),
    ]
    assert [float(rows[0][f"mean_intensity_{c}"]) for c in (0, 1)] == [5.0, 9.0]
    assert rows[0]["unit"] == "voxel"


@pytest.mark.parametrize(
    "properties",
    [{1: {"name": "a"}, 2: {"time": 3, "area": 4}}, {1: {"volume": 3, "unit": "q"}}, {2: {"label": 7}}],
)
def test_properties_never_hide_what_is_measured(tmp_path, properties):
    labels = np.zeros((3, 5, 5), np.uint8)
    labels[1, 1:3, 1], labels[:, 4, 4] = 1, 2
    list(iter_save_table(labels, tmp_path / "plain.csv"))
    list(iter_save_table(labels, tmp_path / "t.csv", properties=properties))
    plain, rows = (
        list(csv.DictReader((tmp_path / name).read_text().splitlines())) for name in ("plain.csv", "t.csv")
    )
    assert [{name: row[name] for name in plain[0]} for row in rows] == plain
    for row in rows:
        for name, value in properties.get(int(row["label"]), {}).items():
            assert row[f"own_{name}" if name in plain[0] else name] == str(value)


def test_nothing_there_makes_a_table_without_rows(tmp_path):
    list(iter_save_table(np.zeros((2, 4, 4), np.uint8), tmp_path / "t.csv"))
    assert (tmp_path / "t.csv").read_text().strip() == "label"


def test_what_cannot_be_is_said_and_leaves_the_old_file(tmp_path):
    target = tmp_path / "t.csv"
    target.write_text("precious")
    labels = np.ones((2, 4, 4), np.uint8)
    with pytest.raises(ExportError, match="exists"):
        list(iter_save_table(labels, target))
    with pytest.raises(ExportError, match="do not fit"):
        list(iter_save_table(labels, target, image=ArrayVolume(np.zeros((2, 4, 5))), overwrite=True))
    with pytest.raises(ExportError, match="no folder"):
        list(iter_save_table(labels, tmp_path / "no" / "t.csv"))
    steps = iter_save_table(labels, target, overwrite=True)
    next(steps)
    steps.close()
    assert target.read_text() == "precious"
    assert isinstance(measure_objects(labels)[0], ObjectMeasures)
