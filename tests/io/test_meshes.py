import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sam.errors import ExportError, InputWarning
from napari_sam.io import meshes
from napari_sam.io.label_source import label_source
from napari_sam.io.measure import measure_objects
from napari_sam.io.meshes import MeshFormat, MeshOptions, iter_mesh, iter_save_mesh
from napari_sam.io.volume import open_volume
from napari_sam.testing.phantoms import ball_volume

TWO = ball_volume((24, 64, 80), [(12, 20, 20), (11, 40, 55)], [8.2, 9.4]).labels

MOVIE = np.zeros((3, 4, 9, 9), np.uint8)
MOVIE[0, 1, 2:4, 2:4], MOVIE[2, 2, 5:8, 5:8] = 9, 4


def whole(labels, label, **given):
    """All parts of an object's mesh: vertices, faces, corners."""
    source = label_source(labels, **given)
    parts = list(iter_mesh(source, label, tuple((0, n) for n in labels.shape)))
    return [
        np.concatenate([getattr(p, name) for p in parts]) for name in ("vertices_xyz", "faces", "corners_xyz")
    ]


def read_obj(path):
    """Name -> (vertices, faces), vertices counted over the file."""
    vertices, objects = [], {}
    for line in path.read_text().splitlines():
        kind, *rest = line.split()
        if kind == "o":
            faces = objects[rest[0]] = []
        elif kind == "v":
            vertices.append([float(v) for v in rest])
        elif kind == "f":
            faces.append([int(v) - 1 for v in rest])
    return np.array(vertices), {name: np.array(faces) for name, faces in objects.items()}


def signed_volume(corners):
    a, b, c = corners.transpose(1, 0, 2)
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 1)).filter(np.any),
    st.integers(1, 4),
)
def test_parts_make_one_closed_surface(labels, step):
    side = (labels.shape[1] + 2) * (labels.shape[2] + 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meshes, "PART_VOXELS", step * side)
        vertices, faces, corners = whole(labels, 1)
    patch_free = whole(labels, 1)
    assert len(vertices) == len(patch_free[0])  # shared vertices were written once
    np.testing.assert_allclose(vertices[faces], corners)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forward, backward = sorted(map(tuple, edges.tolist())), sorted(map(tuple, edges[:, ::-1].tolist()))
    assert forward == backward  # each edge is crossed as often one way as the other: no hole
    assert signed_volume(corners) > 0  # normals point out


def test_size_place_and_surface_are_physical(tmp_path):
    labels = np.zeros((8, 30, 30), np.uint16)
    labels[2:6, 10:20, 10:20] = 3
    volume = open_volume(
        labels, axes="ZYX", spacing=(2, 0.5, 0.25), translate=(100, 10, 1), unit="micrometer"
    )
    list(iter_save_mesh(volume, tmp_path / "one.obj"))
    vertices, objects = read_obj(tmp_path / "one.obj")
    assert list(objects) == ["object_3"]
    low, high = vertices.min(0), vertices.max(0)
    np.testing.assert_allclose(low, [1 + 9.5 * 0.25, 10 + 9.5 * 0.5, 100 + 1.5 * 2])
    np.testing.assert_allclose(high, [1 + 19.5 * 0.25, 10 + 19.5 * 0.5, 100 + 5.5 * 2])
    corners = vertices[objects["object_3"]]
    a, b, c = corners.transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert area == pytest.approx(measure_objects(volume)[0].surface, rel=1e-4)
    assert signed_volume(corners) == pytest.approx(100.0, rel=0.1)


def test_stl_says_how_many_triangles(tmp_path):
    assert list(iter_save_mesh(TWO, tmp_path / "all.stl"))[-1][0] > 0
    data = (tmp_path / "all.stl").read_bytes()
    (count,) = struct.unpack("<I", data[80:84])
    assert len(data) == 84 + 50 * count
    assert count > 100


def test_folder_has_a_file_an_object(tmp_path):
    labels = TWO
    for kind in MeshFormat:
        list(iter_save_mesh(labels, tmp_path / "m", options=MeshOptions(format=kind)))
    names = sorted(p.name for p in (tmp_path / "m").iterdir())
    n = len(np.unique(labels)) - 1
    assert len(names) == 2 * n
    assert names[:2] == ["object_00001.obj", "object_00001.stl"]
    list(iter_save_mesh(labels, tmp_path / "some", options=MeshOptions(objects=[2])))
    assert [p.name for p in (tmp_path / "some").iterdir()] == ["object_00002.obj"]


@pytest.mark.parametrize(("time", "names"), [(0, ["object_9"]), (2, ["object_4"])])
def test_meshes_are_of_the_time_point_asked_for(tmp_path, time, names):
    list(iter_save_mesh(MOVIE, tmp_path / "a.obj", options=MeshOptions(time=time)))
    assert list(read_obj(tmp_path / "a.obj")[1]) == names


def test_time_points_that_are_left_out_are_said(tmp_path):
    with pytest.warns(InputWarning, match="3 time points; the meshes are of the first one alone"):
        list(iter_save_mesh(MOVIE, tmp_path / "a.obj"))
    with pytest.raises(ExportError, match="no object at time 1"):
        list(iter_save_mesh(MOVIE, tmp_path / "b.obj", options=MeshOptions(time=1)))
    with pytest.raises(ExportError, match="no time point 3; the labels have 0 to 2"):
        list(iter_save_mesh(MOVIE, tmp_path / "b.obj", options=MeshOptions(time=3)))


@pytest.mark.parametrize("unit", ["мкм", "µm²", "a" * 100])
def test_any_name_of_a_unit_can_be_written(tmp_path, unit):
    source = label_source(TWO, unit=unit)
    for ending in MeshFormat:
        list(iter_save_mesh(source, tmp_path / f"a.{ending}"))
    assert (tmp_path / "a.obj").read_text("utf-8").startswith(f"# unit: {unit}\n")
    data = (tmp_path / "a.stl").read_bytes()
    assert len(data) == 84 + 50 * struct.unpack("<I", data[80:84])[0]


def test_what_cannot_be_is_said(tmp_path):
    labels = TWO
    with pytest.raises(ExportError, match="no object 77"):
        list(iter_save_mesh(labels, tmp_path / "x.obj", options=MeshOptions(objects=[77])))
    with pytest.raises(ExportError, match="no mesh"):
        list(iter_save_mesh(np.zeros_like(labels), tmp_path / "x.obj"))
    (tmp_path / "x.obj").write_text("precious")
    with pytest.raises(ExportError, match="exists"):
        list(iter_save_mesh(labels, tmp_path / "x.obj"))
    assert (tmp_path / "x.obj").read_text() == "precious"


def test_others_read_it(tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed")
    labels = TWO
    for name in ("one.obj", "one.stl"):
        list(iter_save_mesh(labels, tmp_path / name, options=MeshOptions(objects=[1])))
        mesh = trimesh.load_mesh(tmp_path / name)
        (measured,) = [m for m in measure_objects(labels) if m.label == 1]
        assert mesh.is_watertight
        assert mesh.is_winding_consistent
        assert mesh.area == pytest.approx(measured.surface, rel=1e-4)
        assert mesh.volume == pytest.approx(measured.volume, rel=0.1)
