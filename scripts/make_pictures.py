"""Make the pictures of docs/images again, from a scripted session in a real window."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run the scripted session with the documentation's folder."""
    folder = ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"tests/plugin/test_{name}.py" for name in ("pictures", "objects_pictures", "long_session")]
    command = [sys.executable, "-m", "pytest", "-q", *files]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"NAPARI_SAM_PICTURES": str(folder)}).returncode


if __name__ == "__main__":
    sys.exit(main())
