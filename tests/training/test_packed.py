"""Which planes are learned from, and which are kept out."""

import numpy as np
import tifffile

from napari_sam.training.packed import read_folder


def test_no_voxel_that_is_held_out_is_learned_from(tmp_path):
    """Not even in a plane along another axis."""
    (tmp_path / "volumes").mkdir()
    numbers = np.arange(1, 1 + 24**3, dtype=np.uint16).reshape(24, 24, 24)
    for kind in ("img", "lbl"):
        tifffile.imwrite(tmp_path / "volumes" / f"cube_{kind}.tif", numbers)
    planes = read_folder(tmp_path, validation=0.1)
    assert {plane.volume for plane in planes} == {0, 1, 2}
    learned, held_out = (
        set(np.concatenate([p.labels.ravel() for p in planes if p.held_out == kind]).tolist())
        for kind in (False, True)
    )
    assert held_out
    assert not learned & held_out
