"""The older plugin with our import name is noticed."""

import pytest

from napari_sam.core.namesake import check_no_namesake
from napari_sam.errors import DependencyError


def test_its_absence_is_fine():
    check_no_namesake()


def test_it_is_named_with_what_to_do(older_plugin):
    with pytest.raises(DependencyError, match=r"napari-sam 0\.4\.15 is installed.*pip uninstall napari-sam"):
        check_no_namesake()
