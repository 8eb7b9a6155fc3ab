"""The command line, one file a command. ``napari-sam --help`` loads nothing heavy."""

from __future__ import annotations


def main() -> None:
    """Run ``napari-sam`` and leave with its exit code."""
    from napari_sam.cli.app import run

    raise SystemExit(run())
