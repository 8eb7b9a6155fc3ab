"""Run the comparison where the reference packages are installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGES = {
    "segment-anything:vit_b": "segment_anything",
    "mobile-sam:vit_t": "mobile_sam",
    "transformers:vit_b": "transformers",
}


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize("reference", sorted(PACKAGES))
def test_our_networks_agree_with(reference):
    if find_spec(PACKAGES[reference]) is None:
        pytest.skip(f"{PACKAGES[reference]} is not installed; see tests/parity/compare.py")
    script = Path(__file__).with_name("compare.py")
    done = subprocess.run([sys.executable, script, reference], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
