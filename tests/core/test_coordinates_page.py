"""The examples of docs/coordinates.md do what the page says."""

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coordinates.md"


def test_the_examples_hold() -> None:
    if not PAGE.is_file():
        pytest.skip("the documentation is not part of this checkout")
    outcome = doctest.testfile(str(PAGE), module_relative=False)
    assert outcome.attempted >= 7
    assert outcome.failed == 0
