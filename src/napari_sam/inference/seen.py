"""One image, asked as the program asks: the public door to `inference.sight`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from napari_sam.core.arrays import Array
from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import Predictor
from napari_sam.core.results import MaskPrediction
from napari_sam.inference.encode import CachedEncoder
from napari_sam.inference.sight import Sight, answers
from napari_sam.io.volume import open_volume


class SeenImage:
    """An image as a model sees it in the program: at its own contrast, each object at the scale that suits it.

    Small objects are looked at closely and doubtful answers asked for from several sides, which a model's own `predict`
    leaves out. What is encoded is kept in memory for the next question.

    Parameters
    ----------
    image : (H, W) or (H, W, C) array
        Of any dtype.
    predictor : Predictor
        A loaded model, as `napari_sam.load_model` gives it.

    Examples
    --------
    >>> seen = napari_sam.SeenImage(image, model)  # doctest: +SKIP
    >>> (answer,) = seen.ask([napari_sam.PromptSet(points_yx=[(40, 55)])])  # doctest: +SKIP
    """

    def __init__(self, image: Array, predictor: Predictor) -> None:
        self._encoder = CachedEncoder(open_volume(image, axes="YXC"[: image.ndim]), predictor)

    def ask(
        self, prompts: Sequence[PromptSet], earlier: Sequence[MaskPrediction | None] | None = None
    ) -> list[MaskPrediction]:
        """Default answers, those of the command line and of the window.

        Parameters
        ----------
        prompts : sequence of PromptSet
            One an object, all its clicks together.
        earlier : sequence of MaskPrediction or None, optional
            The answers that these prompts correct, one an object; their logits are fed back.

        Returns
        -------
        list of MaskPrediction
            In the order of `prompts`.

        Raises
        ------
        PromptError
            A prompt lies outside the image or does not fit it.
        """
        before = [None] * len(prompts) if earlier is None else earlier
        asked = [
            one if answer is None else replace(one, low_res_logits=answer.low_res_logits)
            for one, answer in zip(prompts, before, strict=True)
        ]
        sights = [
            Sight(1 if answer is None else answer.scale, is_fixed=one.low_res_logits is not None)
            for one, answer in zip(asked, before, strict=True)
        ]
        return answers(self._encoder, PlaneRef(0, 0), asked, sights)
