import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import VolumeError
from napari_sam.io.samples import SAMPLES, open_sample, sample_path


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_real_and_small(name):
    with open_sample(name) as image, open_sample(name, "labels") as labels:
        assert image.shape_zyx() == labels.shape_zyx()
        assert (image.dtype, image.axes, image.unit) == (np.dtype("u1"), "ZYX", "")
        middle = PlaneRef(0, image.shape_zyx()[0] // 2)
        pixels, ids = image.read_plane(middle), labels.read_plane(middle)
        assert pixels.std() > 10
        assert len(np.unique(ids)) > 5
        # The objects differ from what is around them, so the labels belong to the image.
        assert abs(float(pixels[ids > 0].mean()) - float(pixels[ids == 0].mean())) > 5
    sizes = [sample_path(name, kind).stat().st_size for kind in ("image", "labels")]
    assert sum(sizes) < 2 * 2**20


def test_their_licences_are_beside_them():
    text = (sample_path("chloroplasts").parent / "README.md").read_text()
    for needed in (
        "MIT License",
        "WSU_PlantBio_ML",
        "45f72c37",
        "plant-seg",
        "9d748063",
        "Permission is hereby granted",
    ):
        assert needed in text


@pytest.mark.parametrize(("name", "kind"), [("cells", "image"), ("chloroplasts", "mask")])
def test_samples_that_do_not_exist(name, kind):
    with pytest.raises(VolumeError, match=r"choose one of \['chloroplasts', 'ovule_nuclei'\]"):
        sample_path(name, kind)
