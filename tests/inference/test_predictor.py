"""A loaded model from image to mask."""

import numpy as np
import pytest
import torch

import napari_sam as ns
from napari_sam.core.models import InputRecipe, ModelSpec
from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.errors import CheckpointError, ModelNotFoundError, PromptError, PromptWarning
from napari_sam.inference.device import choose_runtime
from napari_sam.inference.encode import CachedEncoder
from napari_sam.inference.predictor import SamPredictor, load_spec
from napari_sam.inference.preprocess import to_tensor
from napari_sam.model.checkpoints import load_sam
from napari_sam.testing.fakes import ArrayVolume


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(100, 20, (50, 60))


@pytest.fixture(scope="module")
def embedding(predictor, image):
    return predictor.encode(image)


def test_the_documented_use(model_path, image):
    model = ns.load_model(model_path, device="cpu", dtype="auto")
    embedding = model.encode(image)
    prediction = model.predict(
        embedding, ns.PromptSet(points_yx=[(20, 30)], positive=[True], box_yxyx=None, low_res_logits=None)
    )
    assert embedding.array.shape == (32, 8, 8)
    assert prediction.mask.shape == (50, 60)
    assert prediction.mask.dtype == bool
    assert isinstance(prediction.predicted_iou, float)
    assert prediction.low_res_logits.shape == (32, 32)
    assert len(prediction.candidates) == 3


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((7, 9), np.uint8),
        np.full((30, 20), 7, np.uint16),
        np.random.default_rng(1).integers(0, 4096, (64, 64), np.uint16),
        np.random.default_rng(1).random((33, 65, 3)),
        np.random.default_rng(1).integers(0, 255, (40, 40, 4), np.uint8),
        np.random.default_rng(1).random((20, 20, 2)),
        np.random.default_rng(1).random((20, 20, 5)).astype(np.float32),
        np.array([[np.nan, np.inf], [-np.inf, 1.0]]),
        np.random.default_rng(1).random((20, 20)) > 0.5,
    ],
    ids=lambda a: f"{a.shape}{a.dtype}",
)
@pytest.mark.parametrize("recipe", [InputRecipe.SAM, InputRecipe.MICRO_SAM, InputRecipe.MEDSAM])
def test_any_image_is_encoded(predictor, image, recipe, monkeypatch):
    monkeypatch.setattr(predictor, "recipe", recipe)
    embedding = predictor.encode(image)
    assert np.isfinite(embedding.array).all()
    assert embedding.plane_shape == image.shape[:2]


@pytest.mark.parametrize("shape", [(0, 5), (5,), (2, 2, 0), (1, 2, 3, 4)])
def test_what_is_no_image(predictor, shape):
    with pytest.raises(ValueError, match="image must be"):
        predictor.encode(np.zeros(shape))


PROMPTS = [
    PromptSet([(20, 30)]),
    PromptSet([(5, 5)]),
    PromptSet([(20, 30), (2, 3)], [True, False]),
    PromptSet(box_yxyx=(5, 5, 30, 40)),
    PromptSet([(20, 30)], [True], (5, 5, 30, 40)),
    PromptSet(mask=np.pad(np.ones((20, 20), bool), ((10, 20), (10, 30)))),
    PromptSet([(20, 30)], [True], None, None, np.random.default_rng(0).normal(size=(32, 32)) * 5),
    PromptSet(low_res_logits=np.random.default_rng(0).normal(size=(32, 32)) * 5),
    PromptSet([(20, 30)], [False]),
]


def test_many_give_what_each_gives_alone(predictor, embedding):
    together = predictor.predict_many(embedding, PROMPTS)
    for prompts, answer in zip(PROMPTS, together):
        alone = predictor.predict(embedding, prompts)
        assert alone.chosen == answer.chosen
        for one, other in zip(alone.candidates, answer.candidates):
            np.testing.assert_allclose(one.low_res_logits, other.low_res_logits, atol=1e-4)
            assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-5)
            assert one.region.iou(other.region) > 0.98
    assert predictor.predict_many(embedding, []) == []


def test_equals_the_network_step_by_step(predictor, model_path, image, embedding):
    """Against the plain path: whole tensors, no fusing, interpolation to the input and then to the plane."""
    sam = load_sam(model_path)
    with torch.inference_mode():
        rgb = ns.Contrast.from_samples([image]).apply(image)
        encoded = sam.encode(to_tensor(rgb, sam.config, InputRecipe.SAM))
        scale = torch.tensor([64 / 60, 53 / 50])
        points = torch.tensor([[[30.0, 20.0]]]) * scale
        logits, iou = sam.decode(encoded, points, torch.ones(1, 1))
        full = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear")[..., :53, :]
        full = torch.nn.functional.interpolate(full, (50, 60), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(embedding.array, encoded[0], atol=1e-4)
    answer = predictor.predict(embedding, PromptSet([(20, 30)]))
    found = {round(c.predicted_iou, 4): c for c in answer.candidates}
    for output in (1, 2, 3):
        candidate = found[round(float(iou[0, output]), 4)]
        np.testing.assert_allclose(candidate.low_res_logits, logits[0, output], atol=1e-3)
        clear = abs(full[output]) > 0.3 * full[output].std()  # interpolated twice there, once here
        assert (candidate.region.mask == (full[output] > 0))[clear].mean() > 0.98
    assert answer.best is max(answer.candidates, key=lambda c: c.predicted_iou * c.stability_score**0.5)


@pytest.mark.parametrize("polarity", [True, False])
@pytest.mark.parametrize("shape", [(50, 60), (150, 100)])
def test_a_correction_holds(predictor, shape, polarity):
    """Whatever the network answers: in the mask, and in the logits that are fed back for the next click."""
    rng = np.random.default_rng(3)
    embedding = predictor.encode(rng.normal(size=shape))
    points, clicks = [(20.0, 30.0)], [True]
    answer = predictor.predict(embedding, PromptSet(points, clicks))
    for _ in range(6):
        points.append(tuple(rng.integers(0, (50, 60)).tolist()))
        clicks.append(polarity)
        prompts = PromptSet(points, clicks, None, None, answer.low_res_logits)
        answer = predictor.predict(embedding, prompts)
        assert answer.candidates[0].region.mask[tuple(map(int, points[-1]))] == polarity
    mask = np.zeros(shape, bool)
    mask[35:45, 5:15] = True  # the click is outside, or
    mask[10:30, 10:40] = not polarity  # inside
    held = predictor.predict(embedding, PromptSet([(20, 25)], [polarity], mask=mask))
    assert held.mask[20, 25] == polarity


def test_small_objects_are_encoded_finer(predictor, model_path, image):
    finer = ns.load_model(model_path, device="cpu", object_diameter=8)
    assert (predictor.tile_size, finer.tile_size) == (64, 32)
    embedding = finer.encode(image)
    assert len(embedding.tiles) > len(predictor.encode(image).tiles) == 1
    first = finer.predict(embedding, PromptSet([(20, 30)]))
    assert first.low_res_logits.shape == image.shape[:2]
    again = PromptSet([(20, 30), (40, 8)], [True, True], None, None, first.low_res_logits)
    assert finer.predict(embedding, again).mask[40, 8]
    encoder = CachedEncoder(ArrayVolume(image[None]), finer)
    for prompts in (None, [PromptSet([(20, 30)])]):
        cached = encoder.embedding(PlaneRef(0, 0), prompts)
        assert {tile.box_yxyx for tile in cached.tiles} <= {tile.box_yxyx for tile in embedding.tiles}
        answer = finer.predict(cached, PromptSet([(20, 30)]))
        assert answer.low_res_logits.shape == image.shape[:2]


def test_an_embedding_of_another_model_is_refused(predictor, embedding, make_model):
    other = ns.load_model(make_model("micro_test", 5), device="cpu")
    assert other.digest != predictor.digest
    with pytest.raises(ValueError, match="another model"):
        other.predict(embedding, PROMPTS[0])


@pytest.mark.parametrize(
    "prompts",
    [
        PromptSet([(-3, 5)]),
        PromptSet([(20, 60)]),
        PromptSet(box_yxyx=(60, 70, 80, 90)),
        PromptSet(mask=np.ones((9, 9), bool)),
        PromptSet(low_res_logits=np.zeros((9, 9))),
    ],
)
def test_prompts_that_do_not_fit(predictor, embedding, prompts):
    with pytest.raises(PromptError):
        predictor.predict(embedding, prompts)


def test_large_images_are_tiled(predictor):
    image = np.random.default_rng(0).normal(size=(150, 100))
    embedding = predictor.encode(image)
    assert embedding.array.ndim == 4
    assert [t.box_yxyx for t in embedding.tiles] == sorted(t.box_yxyx for t in embedding.tiles)
    first = predictor.predict(embedding, PromptSet([(100, 70)]))
    assert first.mask.shape == (150, 100)
    again = predictor.predict(
        embedding, PromptSet([(100, 70), (5, 5)], [True, False], None, None, first.low_res_logits)
    )
    assert again.mask.shape == (150, 100)


@pytest.mark.parametrize("config", ["vit_test", "tiny_vit_test"])
def test_other_architectures(make_model, config, image):
    model = load_spec(ModelSpec(str(make_model(config)), "cpu", "float32"))
    assert model.architecture == config
    assert model.predict(model.encode(image), PROMPTS[0]).mask.shape == (50, 60)


@pytest.mark.parametrize("seed", range(6))
def test_medsam_gives_its_single_output_and_wants_boxes(make_model, image, seed):
    sam = load_sam(make_model("vit_test", seed))
    model = SamPredictor(sam, ModelSpec("medsam"), choose_runtime("cpu", "float32"), InputRecipe.MEDSAM)
    embedding = model.encode(image)
    box = (5.0, 5.0, 30.0, 40.0)
    for prompts in (PromptSet(box_yxyx=box), PromptSet([(20, 30)], box_yxyx=box)):
        found = model.predict(embedding, prompts)
        assert (found.chosen, len(found.candidates)) == (0, 1)
    with pytest.warns(PromptWarning, match="medsam was trained with boxes"):
        assert len(model.predict(embedding, PromptSet([(20, 30)])).candidates) == 1


def test_half_precision_is_close(make_model, image):
    path = make_model("tiny_vit_test")
    exact = ns.load_model(path, device="cpu", dtype="float32").encode(image).array
    half = ns.load_model(path, device="cpu", dtype="bfloat16").encode(image).array
    assert 0 < np.linalg.norm(half - exact) / np.linalg.norm(exact) < 0.05


def test_files_that_are_no_model(tmp_path):
    with pytest.raises(ModelNotFoundError, match="vit_b_lm"):
        ns.load_model("vit_q", device="cpu")
    (tmp_path / "a.pth").write_text("hello")
    with pytest.raises(CheckpointError):
        ns.load_model(tmp_path / "a.pth", device="cpu")
