"""Asking for help is quick and loads nothing heavy."""

import subprocess
import sys


def test_help_loads_neither_torch_nor_zarr():
    code = (
        "import sys; from napari_sam.cli.app import run; code = run(['--help']);"
        "heavy = {'torch', 'zarr', 'dask', 'napari', 'scipy', 'skimage', 'distributed'} & set(sys.modules);"
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    assert "segment" in result.stdout


def test_the_older_plugin_of_the_same_name_is_refused_but_help_is_given(older_plugin, call):
    code, said, err = call("models")
    assert (code, said) == (1, "")
    assert err.startswith("DependencyError: the older plugin napari-sam 0.4.15 is installed")
    assert len(err.splitlines()) == 1
    assert call("--help")[0] == 0


def test_console_script_is_main():
    code = "import sys; sys.argv = ['napari-sam', '--version']; from napari_sam.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert result.stdout.strip()
