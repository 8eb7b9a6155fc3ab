"""What `make` would run."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("target", ["demo", "test", "lint", "docs", "pictures"])
def test_no_target_replaces_the_editable_install(target):
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    installs = [line for line in done.splitlines() if "pip install" in line]
    assert all("--editable" in line for line in installs)
    assert bool(installs) == (target == "docs")
