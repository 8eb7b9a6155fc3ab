"""A loaded model: `load_model(...)`, `.encode(image)`, `.predict(embedding, prompts)`.

Prediction is a function of embedding and prompts; nothing is remembered between calls::

    model = load_model("default")
    embedding = model.encode(image)
    answer = model.predict(embedding, PromptSet(points_yx=[(40, 52)]))
    answer.mask, answer.predicted_iou
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.contrast import Contrast
from napari_sam.core.models import InputRecipe, ModelSpec
from napari_sam.core.planes import BoxYXYX, Shape2D
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import ImageEmbedding, MaskPrediction, TileEmbedding, as_image
from napari_sam.errors import PromptWarning
from napari_sam.inference import preprocess
from napari_sam.inference.decoding import answer_plane
from napari_sam.inference.device import Runtime, choose_runtime, prepare_cpu
from napari_sam.inference.fallback import Stepper, is_out_of_memory
from napari_sam.inference.fuse import is_convolutional, prepare
from napari_sam.inference.registry import Progress, fetch_model, find_model, recipe_of
from napari_sam.inference.tiles import overview, plan_tiles, tile_size_for
from napari_sam.model.checkpoints import encoder_digest, load_sam
from napari_sam.model.configs import SamConfig
from napari_sam.model.sam import Sam


class SamPredictor:
    """A SAM-family model on a device. Use `load_model`.

    Parameters
    ----------
    sam : Sam
        Freshly loaded; it is fused and moved, and belongs to the predictor from here on.
    spec : ModelSpec
        How it was named.
    runtime : Runtime
        Device and precision.
    recipe : InputRecipe
        How pixels are prepared.
    batch_size : int, optional
        Most tiles in one call of the encoder; 1 on a CPU, where more gain nothing.
    """

    def __init__(
        self,
        sam: Sam,
        spec: ModelSpec,
        runtime: Runtime,
        recipe: InputRecipe = InputRecipe.SAM,
        batch_size: int | None = None,
    ) -> None:
        self.spec = spec
        if recipe is InputRecipe.MEDSAM:  # its authors train and run it with the single output
            sam.config = replace(sam.config, multimask=False)
        self.config: SamConfig = sam.config
        self.recipe = recipe
        self._digest = encoder_digest(sam)
        self._sam = prepare(sam, runtime)
        self._stepper = Stepper(runtime, batch_size or (1 if runtime.device.type == "cpu" else 8))

    @property
    def digest(self) -> str:
        """Digest of the image encoder's weights; stamped on embeddings."""
        return self._digest

    @property
    def architecture(self) -> str:
        """Name of the configuration, and of the recipe where that changes the tensor; stamped on embeddings."""
        return self.config.name if self.recipe is InputRecipe.SAM else f"{self.config.name}-{self.recipe}"

    @property
    def device(self) -> str:
        """Where it runs now, such as "cuda:0"."""
        return str(self._stepper.runtime.device)

    @property
    def dtype(self) -> str:
        """Precision of the image encoder now: "float32", "bfloat16" or "float16"."""
        return self._stepper.runtime.dtype_name

    @property
    def batch_size(self) -> int:
        """Most tiles that are encoded in one call now."""
        return self._stepper.batch_size

    @property
    def tile_size(self) -> int:
        """Pixels along the side of a tile: larger planes are tiled, see `inference.tiles`."""
        return tile_size_for(self.spec.object_diameter, self.config.image_size, self.config.mask_size)

    @property
    def looks_closer(self) -> bool:
        """Whether small objects are looked at enlarged, see `inference.sight`."""
        return self.config.looks_closer

    @property
    def doubt(self) -> float:
        """Predicted IoU below which an answer is asked for again from other sides, see `inference.sight`."""
        return self.config.doubt

    def encode(self, image: Array, contrast: Contrast | None = None) -> ImageEmbedding:
        """Encode one image.

        Parameters
        ----------
        image : (H, W), (H, W, 3) or (H, W, C) array
            Any dtype; NaN and infinities are allowed. Larger ones are tiled.
        contrast : Contrast, optional
            Made from this image alone when left out.

        Returns
        -------
        ImageEmbedding
            float32. Of a tiled plane all grid tiles and the overview.
        """
        image = as_image(np.asarray(image))
        rgb = contrast.apply(image) if contrast else preprocess.to_rgb(image)
        shape = (image.shape[0], image.shape[1])
        boxes = plan_tiles(shape, self.tile_size)
        if len(boxes) > 1:
            boxes = tuple(sorted((*boxes, overview(shape))))
        arrays = self.encode_tiles([rgb[y0:y1, x0:x1] for y0, x0, y1, x1 in boxes])
        tiles = tuple(self.tile(array, box) for array, box in zip(arrays, boxes))
        return ImageEmbedding(shape, tiles, self.digest, self.tile_size)

    def encode_tiles(self, images: Sequence[Array]) -> list[FloatArray]:
        """Encode tiles, each resized to the model's input, in batches where memory allows.

        Parameters
        ----------
        images : sequence of (h, w, 3) uint8 array
            Contrast is applied already.

        Returns
        -------
        list of (C, grid, grid) float32 array

        Warns
        -----
        FallbackWarning
            Memory ran out and something smaller is used from here on.

        Raises
        ------
        DeviceMemoryError
            There is not enough memory even for that.
        """
        return self._stepper.run(images, self._encode_batch)

    def tile(self, array: FloatArray, box: BoxYXYX) -> TileEmbedding:
        """Say where in a plane the output of the encoder belongs."""
        shape: Shape2D = (box[2] - box[0], box[3] - box[1])
        return TileEmbedding(array, box, preprocess.resized_shape(shape, self.config.image_size, self.recipe))

    def predict(self, embedding: ImageEmbedding, prompts: PromptSet) -> MaskPrediction:
        """Answer the prompts for one object, see `predict_many`."""
        return self.predict_many(embedding, [prompts])[0]

    def predict_many(self, embedding: ImageEmbedding, prompts: Sequence[PromptSet]) -> list[MaskPrediction]:
        """Answer the prompts of several objects on the same plane.

        Parameters
        ----------
        embedding : ImageEmbedding
            Made by this model.
        prompts : sequence of PromptSet
            One an object. What is chosen when is written in `inference.answers`.

        Returns
        -------
        list of MaskPrediction
            In the order of `prompts`; each is what `predict` gives for it alone.

        Warns
        -----
        PromptWarning
            MedSAM is given points without a box.

        Raises
        ------
        PromptError
            A prompt lies outside the plane or does not fit it.
        ValueError
            The embedding was made by another model.
        DeviceMemoryError
            There is not enough memory, not even on the CPU.
        """
        if embedding.model_digest != self.digest:
            raise ValueError(
                f"this embedding was made by another model (digest {embedding.model_digest!r}, this is "
                f"{self.digest!r}); encode the image again with this one"
            )
        for one in prompts:
            one.check_inside(embedding.plane_shape)
        if self.recipe is InputRecipe.MEDSAM and any(
            len(one.points_yx) and one.box_yxyx is None for one in prompts
        ):
            warnings.warn(
                f"{self.spec.name} was trained with boxes, not with points, and answers these badly; "
                "draw a box around the object, or take another model",
                PromptWarning,
                stacklevel=2,
            )
        while True:
            try:
                return answer_plane(self._sam, embedding, prompts)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._sam.to(self._stepper.to_cpu(error).device)

    def _encode_batch(self, images: Sequence[Array], runtime: Runtime) -> list[FloatArray]:
        weights = self._sam.prompt_encoder.no_mask_embed.weight
        if weights.device.type != runtime.device.type:
            self._sam.to(runtime.device)
        batch = torch.cat([preprocess.to_tensor(image, self.config, self.recipe) for image in images])
        layout = torch.channels_last if is_convolutional(self._sam) else torch.contiguous_format
        batch = batch.to(runtime.device).contiguous(memory_format=layout)
        enabled = runtime.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(runtime.device.type, runtime.dtype, enabled=enabled):
            out = self._sam.encode(batch)
        return list(out.float().contiguous().cpu().numpy())


def load_model(
    name_or_path: str | Path = "default",
    *,
    device: str = "auto",
    dtype: str = "auto",
    object_diameter: float | None = None,
    progress: Progress = False,
) -> SamPredictor:
    """Load a model by its registry name or from a checkpoint file, fetching the weights first if need be.

    Parameters
    ----------
    name_or_path : str or Path
        "default", another name of `inference.registry.MODELS`, or the path of a SAM-family checkpoint.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps".
    dtype : str
        Precision of the image encoder: "auto" takes the fastest one without visible loss on this device;
        "float32" is for exact work.
    object_diameter : float, optional
        About how many pixels the objects measure across, where they are small (below 20) or large (above 160):
        planes are then encoded finer or coarser.
    progress : bool or callable
        Of a download, see `inference.download.fetch`.

    Raises
    ------
    ModelNotFoundError, DownloadError, CheckpointError, DeviceError
        The weights cannot be had or used, or the device is not there.
    PromptError
        The diameter is not a positive number.
    """
    return load_spec(ModelSpec(str(name_or_path), device, dtype, object_diameter), progress)


def load_spec(spec: ModelSpec, progress: Progress = False) -> SamPredictor:
    """`load_model` for a `ModelSpec`, which can be sent to another process."""
    runtime = choose_runtime(spec.device, spec.dtype)
    found = find_model(spec.name)
    sam = load_sam(fetch_model(spec.name, progress))
    if runtime.device.type == "cpu":
        prepare_cpu()
    recipe = recipe_of(found) if isinstance(found, Path) else found.recipe
    return SamPredictor(sam, spec, runtime, recipe)
