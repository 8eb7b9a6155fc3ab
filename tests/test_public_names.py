"""The public surface is what the documentation says, and every name in it can be had."""

import pytest

import napari_sam as ns

PUBLIC = {
    "Contrast",
    "ImageEmbedding",
    "MaskPrediction",
    "ModelSpec",
    "PlaneRef",
    "PromptSet",
    "PropagationStep",
    "SeenImage",
    "Volume",
    "evaluate",
    "finetune",
    "load_model",
    "open_volume",
    "propagate",
    "save_labels",
}


def test_public_names_are_stable() -> None:
    assert {name for name in ns.__all__ if not name.startswith("_")} == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(ns, name).__doc__


def test_an_unknown_name_says_so() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ns.nonsense  # noqa: B018
