"""Models that the user made are found by their names, with the recipe of their parent."""

import pytest
import torch

from napari_sam.core.models import InputRecipe
from napari_sam.errors import InputWarning, ModelNotFoundError
from napari_sam.inference.predictor import load_model
from napari_sam.inference.registry import (
    MODELS,
    find_model,
    is_on_disk,
    model_file,
    recipe_of,
    user_model_dir,
    user_models,
)
from napari_sam.model.checkpoints import save_safetensors
from napari_sam.model.configs import CONFIGS
from napari_sam.model.sam import build_sam


@pytest.fixture
def mine():
    folder = user_model_dir()
    folder.mkdir(parents=True)
    facts = {"recipe": "micro_sam", "licence": "BSD-3-Clause", "good_for": "neurites"}
    save_safetensors(build_sam(CONFIGS["micro_test"]), folder / "mine.safetensors", metadata=facts)
    return folder / "mine.safetensors"


def test_a_model_of_the_user_has_a_name(mine):
    assert list(MODELS)[-1] == "mine"
    assert len(MODELS) == len(list(MODELS))
    entry = MODELS["mine"]
    assert (entry.architecture, entry.recipe, entry.good_for) == (
        "micro_test",
        InputRecipe.MICRO_SAM,
        "neurites",
    )
    assert entry.size == mine.stat().st_size
    assert model_file("mine") == mine
    assert is_on_disk("mine")
    assert load_model("mine", device="cpu").recipe is InputRecipe.MICRO_SAM
    mine.unlink()
    assert "mine" not in MODELS
    with pytest.raises(ModelNotFoundError):
        find_model("mine")


def test_a_file_given_by_its_path_keeps_its_recipe_too(mine, tmp_path):
    assert load_model(mine, device="cpu").recipe is InputRecipe.MICRO_SAM
    torch.save({}, tmp_path / "plain.pt")
    assert recipe_of(tmp_path / "plain.pt") is InputRecipe.SAM


def test_published_names_are_not_taken_over(mine):
    mine.rename(mine.with_name("default.safetensors"))
    assert MODELS["default"].folder is None
    assert list(MODELS).count("default") == 1


def test_a_damaged_file_is_left_out_with_a_word(mine):
    broken = mine.with_name("broken.safetensors")
    broken.write_bytes(mine.read_bytes()[:40])
    with pytest.warns(InputWarning, match="not a complete model"):
        assert list(user_models()) == ["mine"]
    assert list(user_models()) == ["mine"]  # said once
    mine.with_name(".partial.safetensors").write_bytes(b"")
    assert list(user_models()) == ["mine"]
