"""Make a virtual environment with the pinned packages of constraints.txt."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(folder: str, extra: str) -> None:
    """Create `folder` and install the package with an extra, editable."""
    if sys.version_info < (3, 11):
        sys.exit(
            f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; run `make PYTHON=python3.12 ...`"
        )
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        sys.exit("Python has no ensurepip, so it cannot make virtual environments; install python3-venv")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [
        str(Path(folder, "bin", "python")),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    constraints = str(ROOT / "constraints.txt")
    # torch first and by its exact version: anything newer that a dependency asks for would bring GPU packages.
    torch = next(line for line in Path(constraints).read_text().splitlines() if line.startswith("torch=="))
    subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, "--constraint", constraints, "--editable", f"{ROOT}[{extra}]"], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
