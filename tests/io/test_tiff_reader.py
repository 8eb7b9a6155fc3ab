"""TIFF files as volumes, without reading them whole."""

import gc
import os
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import AxesError, InputWarning, VolumeError
from napari_sam.io.readers import tiff
from napari_sam.io.save import save_labels
from napari_sam.io.volume import open_volume

ARRAY = np.arange(2 * 3 * 4 * 16 * 32, dtype="u2").reshape(2, 3, 4, 16, 32)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["TCZYX", "TZCYX", "ZCTYX"])
def test_ome_tiff(tmp_path, axes, compression):
    path = tmp_path / "a.ome.tif"
    array = np.ascontiguousarray(np.einsum(f"TCZYX->{axes}", ARRAY))
    metadata = {
        "axes": axes,
        "PhysicalSizeX": 0.25,
        "PhysicalSizeY": 0.5,
        "PhysicalSizeZ": 3,
        "TimeIncrement": 5,
    }
    tifffile.imwrite(path, array, metadata=metadata, compression=compression)
    with open_volume(path) as volume:
        assert volume.spacing_zyx == (3.0, 0.5, 0.25)
        assert (volume.unit, volume.time_step, volume.time_unit) == ("micrometer", 5.0, "second")
        assert (volume.n_time, volume.n_channels) == (2, 3)
        plane = volume.read_plane(PlaneRef(2, 7, 0, 1))
    assert np.array_equal(plane, ARRAY[1, :, :, :, 7].transpose(1, 2, 0))


def test_units_of_ome_tiff_that_differ(tmp_path):
    units = {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "nm", "PhysicalSizeZUnit": "µm"}
    sizes = {"PhysicalSizeX": 5, "PhysicalSizeY": 5, "PhysicalSizeZ": 0.05}
    tifffile.imwrite(tmp_path / "a.ome.tif", ARRAY[0, 0], metadata={"axes": "ZYX", **units, **sizes})
    with open_volume(tmp_path / "a.ome.tif") as volume:
        assert volume.unit == "nanometer"
        assert volume.spacing_zyx == pytest.approx((50, 5, 5))


@pytest.mark.parametrize("ending", [".tif", ".tf2", ".ome.tf2", ".tf8", ".btf"])
def test_all_endings_that_are_written_open(tmp_path, ending):
    save_labels(ARRAY[0, 0], tmp_path / f"a{ending}")
    with open_volume(tmp_path / f"a{ending}") as volume:
        assert np.array_equal(volume.read_plane(PlaneRef(0, 1)), ARRAY[0, 0, 1])


def test_imagej_hyperstack(tmp_path):
    array = np.ascontiguousarray(ARRAY.transpose(0, 2, 1, 3, 4))
    metadata = {"axes": "TZCYX", "spacing": 3.0, "unit": "um", "finterval": 5.0}
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, resolution=(4, 2), metadata=metadata)
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.spacing_zyx == (3.0, 0.5, 0.25)
        assert (volume.unit, volume.time_step) == ("micrometer", 5.0)
        assert volume.dtype == np.dtype("u2").newbyteorder("=")
        assert np.array_equal(volume.read_plane(PlaneRef(0, 1, 0, 1)), ARRAY[1, :, 1].transpose(1, 2, 0))


def test_plain_pages_are_planes(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for plane in ARRAY[0, 0]:
            tif.write(plane, metadata=None, contiguous=False)
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.axes == "ZYX"
        assert (volume.unit, volume.spacing_zyx) == ("", (1.0, 1.0, 1.0))
        assert np.array_equal(volume.read_plane(PlaneRef(1, 3)), ARRAY[0, 0, :, 3])


@pytest.mark.parametrize("compression", ["lzw", "jpeg", "jpeg2000", "packbits", "zstd", "lzma"])
def test_compressed_planes(tmp_path, compression):
    plane = np.zeros((64, 64), "u1")
    plane[16:32, 8:48] = 200
    args = {"lossless": True} if compression == "jpeg" else None
    tifffile.imwrite(tmp_path / "a.tif", plane, compression=compression, compressionargs=args)
    with open_volume(tmp_path / "a.tif") as volume:
        assert np.array_equal(volume.read_plane(PlaneRef(0, 0)), plane)


def test_fax_compression(tmp_path):
    plane = np.zeros((64, 64), bool)
    plane[16:32, 8:48] = True
    Image.fromarray(plane).save(tmp_path / "a.tif", compression="group4")
    with open_volume(tmp_path / "a.tif") as volume:
        assert np.array_equal(volume.read_plane(PlaneRef(0, 0)), plane)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours(tmp_path, planar):
    image = np.random.default_rng(0).integers(0, 255, (16, 32, 3)).astype("u1")
    data = image if planar == "contig" else np.ascontiguousarray(image.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig=planar)
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.is_rgb
        assert np.array_equal(volume.read_plane(PlaneRef(0, 0)), image)


def test_pyramids(tmp_path):
    fine = ARRAY[0, 0].repeat(8, 1).repeat(4, 2)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        options = {"tile": (32, 32), "compression": "zlib"}
        tif.write(fine, subifds=1, metadata={"axes": "ZYX"}, **options)
        tif.write(fine[:, ::2, ::2], subfiletype=1, **options)
    with open_volume(tmp_path / "a.ome.tif") as volume:
        assert volume.n_levels == 2
        assert volume.level_factors(1) == (1.0, 2.0, 2.0)
        assert np.array_equal(volume.read_plane(PlaneRef(0, 2, 1)), fine[2, ::2, ::2])


def test_axes_that_a_file_leaves_open(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 3, 4, 5, 6), "u2"), photometric="minisblack")
    with pytest.raises(AxesError, match="pass axes"):
        open_volume(tmp_path / "a.tif")
    with open_volume(tmp_path / "a.tif", "TCZYX") as volume:
        assert volume.shape_zyx() == (4, 5, 6)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_plane_of_a_long_file_reads_only_that_plane(tmp_path, monkeypatch, compression):
    path = tmp_path / "long.tif"
    plane = np.random.default_rng(0).integers(0, 255, (128, 128)).astype("u1")
    with tifffile.TiffWriter(path) as tif:
        for _ in range(400):
            tif.write(plane, metadata=None, contiguous=False, compression=compression)
    read = []
    original = tifffile.FileHandle.read

    def counting(self, size=-1, /):
        data = original(self, size)
        read.append(len(data))
        return data

    monkeypatch.setattr(tifffile.FileHandle, "read", counting)
    with open_volume(path) as volume:
        assert volume.shape_zyx() == (400, 128, 128)
        read.clear()
        assert np.array_equal(volume.read_plane(PlaneRef(0, 250)), plane)
    assert plane.size * 0.9 < sum(read) < plane.size * 2


def test_files_that_are_no_tiff(tmp_path):
    path = tmp_path / "notes.tif"
    path.write_text("this is a text file")
    with pytest.raises(VolumeError, match=r"notes\.tif is named like a TIFF but cannot be read as one"):
        open_volume(path)
    path.write_bytes(b"")
    with pytest.raises(VolumeError, match=r"notes\.tif"):
        open_volume(path)


def cut(path, share):
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.truncate(int(size * share))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["ome", "imagej", "shaped", "pages", "zlib"])
def test_files_that_are_cut_off(tmp_path, kind, share):
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    array = np.random.default_rng(0).integers(0, 60000, (20, 64, 64)).astype("u2")
    if kind in ("pages", "zlib"):
        with tifffile.TiffWriter(path) as tif:
            for plane in array:
                tif.write(
                    plane, metadata=None, contiguous=False, compression="zlib" if kind == "zlib" else None
                )
    else:
        tifffile.imwrite(path, array, imagej=kind == "imagej", metadata={"axes": "ZYX"})
    cut(path, share)
    if share == 0.99 and kind in ("imagej", "shaped"):  # the pixels come first in these, and are all there
        with open_volume(path) as volume:
            assert np.array_equal(volume.read_plane(PlaneRef(0, 19)), array[19])
        return
    with pytest.raises(VolumeError, match=r"a\.(ome\.)?tif"), open_volume(path) as volume:
        volume.read_plane(PlaneRef(0, volume.shape_zyx()[0] - 1))


def test_pages_that_are_cut_off_tell_of_their_planes(tmp_path):
    """Half of a file of pages must not open as a shorter volume."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for plane in ARRAY[0].reshape(12, 16, 32):
            tif.write(plane, metadata=None, contiguous=False)
    cut(tmp_path / "a.tif", 0.5)
    with pytest.raises(VolumeError, match=r"a\.tif"):
        open_volume(tmp_path / "a.tif")


@pytest.fixture(params=[None, "zlib"])
def ome_set(tmp_path, request):
    """Four planes in two OME-TIFF files of very different sizes, and what they hold."""
    planes = np.random.default_rng(0).integers(0, 60000, (4, 64, 64)).astype("u2")
    planes[1:] //= 50000
    places = [(0, 0), (1, 0), (1, 1), (1, 2)]
    data = "".join(
        f'<TiffData FirstC="0" FirstT="0" FirstZ="{z}" IFD="{page}" PlaneCount="1">'
        f'<UUID FileName="{file}.ome.tif">urn:uuid:{file}</UUID></TiffData>'
        for z, (file, page) in enumerate(places)
    )
    pixels = (
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="64" SizeY="64" '
        f'SizeZ="4" SizeC="1" SizeT="1" PhysicalSizeX="2" PhysicalSizeY="2" PhysicalSizeZ="5">{data}</Pixels></Image>'
    )
    for file in range(2):
        xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{file}">{pixels}</OME>'
        own = [plane for plane, (home, _) in zip(planes, places, strict=True) if home == file]
        write_pages(tmp_path / f"{file}.ome.tif", own, xml, request.param)
    return tmp_path, planes


def write_pages(path, planes, xml, compression=None):
    with tifffile.TiffWriter(path) as tif:
        for i, plane in enumerate(planes):
            first = {"description": xml.encode()} if i == 0 else {}
            tif.write(plane, metadata=None, contiguous=False, compression=compression, **first)


@pytest.mark.parametrize("member", ["0.ome.tif", "1.ome.tif"])
def test_sets_of_ome_tiff_open_from_every_member(ome_set, member):
    folder, planes = ome_set
    with open_volume(folder / member) as volume:
        assert volume.spacing_zyx == (5.0, 2.0, 2.0)
        assert all(np.array_equal(volume.read_plane(PlaneRef(0, z)), planes[z]) for z in range(4))


def test_a_set_of_which_another_file_is_cut_off(ome_set):
    folder, _ = ome_set
    cut(folder / "1.ome.tif", 0.99)
    with pytest.raises(VolumeError, match=r"1\.ome\.tif is cut off"):
        open_volume(folder / "0.ome.tif")


@pytest.mark.parametrize(("name", "remedy"), [("0.ome.tif", "open 0.ome.tif"), ("a.ome", "convert the set")])
def test_a_part_that_another_file_describes(tmp_path, name, remedy):
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        f'<BinaryOnly MetadataFile="{name}" UUID="urn:uuid:0"/></OME>'
    )
    write_pages(tmp_path / "1.ome.tif", ARRAY[0, 0], xml)
    with pytest.warns(InputWarning, match=f"{name} describes.*{remedy}"):
        open_volume(tmp_path / "1.ome.tif").close()


@pytest.mark.parametrize(
    ("name", "left"), [("two.ome.tif", "ZYX (4, 16, 32) 'main'"), ("pages.tif", "YX (8, 32)")]
)
def test_other_images_of_a_file_are_named(tmp_path, name, left):
    with tifffile.TiffWriter(tmp_path / name) as tif:
        if name == "two.ome.tif":
            tif.write(ARRAY[0, 0, :2, :8], metadata={"axes": "ZYX", "Name": "thumbnail"})
            tif.write(ARRAY[0, 0], metadata={"axes": "ZYX", "Name": "main"})
        else:
            for height in (16, 8, 16):
                tif.write(ARRAY[0, 0, 0, :height], metadata=None)
    with pytest.warns(InputWarning, match="holds 2 images.*is opened, not 1 " + re.escape(f"({left}")):
        open_volume(tmp_path / name).close()


def test_a_voxel_size_that_is_left_out_is_said(tmp_path):
    metadata = {"axes": "ZYX", **{f"PhysicalSize{a}": 2 for a in "XY"}}
    metadata |= {f"PhysicalSize{a}Unit": "nm" for a in "XY"}
    tifffile.imwrite(tmp_path / "a.ome.tif", ARRAY[0, 0], metadata=metadata)
    with pytest.warns(InputWarning, match="along Z; 1 nanometer is used"):
        volume = open_volume(tmp_path / "a.ome.tif")
    assert (volume.spacing_zyx, volume.unit) == ((1.0, 2.0, 2.0), "nanometer")
    volume.close()


@pytest.mark.parametrize(
    ("unit", "name"), [("µs", "microsecond"), ("d", "day"), ("ns", "nanosecond"), ("s", "second")]
)
def test_units_of_time_of_ome_tiff(tmp_path, unit, name):
    metadata = {"axes": "TYX", "TimeIncrement": 5.0, "TimeIncrementUnit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", ARRAY[0, 0], metadata=metadata)
    with open_volume(tmp_path / "a.ome.tif") as volume:
        assert (volume.time_step, volume.time_unit) == (5.0, name)


def test_unit_of_time_of_imagej(tmp_path):
    metadata = {"axes": "TYX", "finterval": 3.0, "tunit": "min"}
    tifffile.imwrite(tmp_path / "a.tif", ARRAY[0, 0], imagej=True, metadata=metadata)
    with open_volume(tmp_path / "a.tif") as volume:
        assert (volume.time_step, volume.time_unit) == (3.0, "minute")


def test_files_are_closed(tmp_path, recwarn):
    tifffile.imwrite(tmp_path / "a.tif", ARRAY[0, 0])
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    volume = open_volume(tmp_path / "a.tif")
    part = volume.subset(channels=0)
    del volume
    gc.collect()
    assert part.read_plane(PlaneRef(0, 0)).shape == (16, 32)
    del part
    gc.collect()
    after = set(os.listdir("/proc/self/fd")) if before else set()
    assert len(after) <= len(before)
    # only of this file: the collector may meet here what earlier tests left
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning) and "a.tif" in str(w.message)]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"VoxelSizeX": 2e-7, "VoxelSizeY": 2e-7, "VoxelSizeZ": 1e-6}, (1.0, 0.2, 0.2)),
        ({"VoxelSizeX": 2e-7, "VoxelSizeY": 2e-7, "VoxelSizeZ": 0.0}, (1.0, 0.2, 0.2)),
        ({}, None),
    ],
)
def test_voxel_size_of_lsm_is_in_meters(metadata, expected):
    known = tiff._lsm_geometry(metadata)
    assert known.get("spacing_zyx") == (pytest.approx(expected) if expected else None)
