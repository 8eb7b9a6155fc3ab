import pytest

from napari_sam.io.units import (
    METERS,
    SECONDS,
    SYMBOLS,
    TIME_SYMBOLS,
    parse_time_unit,
    parse_unit,
    unit_ratio,
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("µm", "micrometer"),
        ("\u03bcm", "micrometer"),
        ("um", "micrometer"),
        ("micron", "micrometer"),
        ("Micrometer", "micrometer"),
        ("\\u00B5m", "micrometer"),
        ("nm", "nanometer"),
        ("mm", "millimeter"),
        ("Å", "angstrom"),
        ("pixel", ""),
        ("", ""),
        (None, ""),
        ("parsec", "parsec"),
    ],
)
def test_spellings(text, name):
    assert parse_unit(text) == name


def test_every_symbol_is_understood():
    assert set(SYMBOLS) == set(METERS)
    assert all(parse_unit(symbol) == name for name, symbol in SYMBOLS.items())


def test_every_symbol_of_time_is_understood():
    assert set(TIME_SYMBOLS) == set(SECONDS)
    assert all(parse_time_unit(symbol) == name for name, symbol in TIME_SYMBOLS.items())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("us", "microsecond"),
        ("sec", "second"),
        ("Hours", "hour"),
        ("mins", "minute"),
        (None, ""),
        ("moon", "moon"),
    ],
)
def test_spellings_of_time(text, name):
    assert parse_time_unit(text) == name


def test_ratios():
    assert unit_ratio("micrometer", "nanometer") == pytest.approx(1000)
    assert unit_ratio("parsec", "nanometer") == 1.0
