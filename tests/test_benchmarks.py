"""The benchmark of a large volume runs, at a size that takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "bench_big.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory as Linux tells it")
def test_a_large_volume_from_opening_to_the_saved_file(tmp_path):
    table = tmp_path / "page.md"
    table.write_text("# Page\n\n<!-- big: begin -->\nold\n<!-- big: end -->\n\nend\n")
    command = [sys.executable, str(SCRIPT), "--quick", "--table", str(table)]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert run.returncode == 0, run.stderr
    text = table.read_text()
    assert text.startswith("# Page\n\n<!-- big: begin -->\n")
    assert text.endswith("\n<!-- big: end -->\n\nend\n")
    assert "old" not in text
    assert "| 6 planes of 256 x 256 | 60 planes of 768 x 768 |" in text
    assert "| saved labels equal the session's | yes | yes |" in text
    assert "| planes that the object was carried through | 3 | 3 |" in text
