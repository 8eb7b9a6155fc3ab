"""Choose the labelled crops that fine-tuning rehearses on, from the folder that the model in the package learned from.

::

    python scripts/make_rehearsed.py DATA/train

Only sets whose licences and notices are in `training/rehearsed/README.md`; nothing that validation holds out.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_sam.training.packed import LabelledPlane, read_folder, write_packed
from napari_sam.training.rehearsal import REHEARSED

COUNTS = {
    "dsb2018": 24,
    "bbbc039": 6,
    "usiigaci": 6,
    "bacteria_colicoords": 6,
    "chloroplast_em": 4,
    "ovule_nuclei_1135": 4,
}
"""Crops of each set."""
SIDE = 320
"""Of a crop, in pixels, where the plane is as large."""


def crop(plane: LabelledPlane, rng: np.random.Generator) -> LabelledPlane:
    """A square around a random pixel of an object."""
    places = np.argwhere(plane.labels)
    middle = places[rng.integers(len(places))]
    low = np.clip(middle - SIDE // 2, 0, np.maximum(np.array(plane.labels.shape) - SIDE, 0))
    part = tuple(slice(int(start), int(start) + SIDE) for start in low)
    return replace(plane, image=plane.image[part], labels=plane.labels[part], volume=-1, index=0)


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    planes = [plane for plane in read_folder(parser.parse_args().folder) if not plane.held_out]
    rng = np.random.default_rng(0)
    chosen = []
    for name, count in COUNTS.items():
        own = [plane for plane in planes if plane.set_name == name]
        chosen += [crop(own[i], rng) for i in rng.permutation(len(own))[:count]]
    write_packed(chosen, REHEARSED)


if __name__ == "__main__":
    main()
