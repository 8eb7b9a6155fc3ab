"""Carrying objects from plane to plane.

The mask of one plane becomes the prompt of the next. Every object starts from its *seed planes*, those
with user prompts, and grows from each of them both ways until a stop rule says that it ended, the plane
range ends, or the next seed plane of the same object is reached. Between two seed planes both directions
run and are fused (`propagation.fusion`); seed planes themselves are never overwritten.

Work goes outward in rounds: in round *d* every live direction of every object visits the plane at distance
*d* from its seed, and all objects on one plane are answered in one batch. Only planes that are visited are
encoded. The whole is a generator: what was yielded is final, and closing it between two steps cancels.

Objects are carried independently of each other, so two of them may claim the same pixel; who gets it is
the consumer's choice, and steps carry what it takes to choose (`object_id`, `predicted_iou`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import PlaneEncoder, Predictor, VolumeLike
from napari_sam.core.results import ImageEmbedding, MaskCandidate, MaskPrediction, PropagationStep, StopReason
from napari_sam.errors import PromptError
from napari_sam.inference.predict import predict_plane
from napari_sam.propagation.carry import carried_prompts
from napari_sam.propagation.fusion import Span, is_part
from napari_sam.propagation.settings import PropagationSettings

Seeds = Mapping[int, Mapping[int, PromptSet]]
Steps = Generator[PropagationStep, None, None]


def propagate_objects(
    encoder: PlaneEncoder,
    predictor: Predictor,
    seeds: Seeds,
    *,
    axis: int = 0,
    level: int = 0,
    time: int = 0,
    settings: PropagationSettings | None = None,
) -> Steps:
    """Carry objects through the planes of a volume.

    Parameters
    ----------
    encoder : PlaneEncoder
        Gives the embeddings of the volume's planes.
    predictor : Predictor
        The model that answers the prompts.
    seeds : mapping of int to mapping of int to PromptSet
        Object id -> plane index -> prompts in that plane (plane space). A PromptSet that is nothing but a
        mask is taken as it is; any other is predicted first.
    axis : int
        The planes are perpendicular to this axis: 0 is Z, 1 is Y, 2 is X.
    level, time : int
        Multiscale level and time point; plane indices and coordinates are voxels of that level.
    settings : PropagationSettings, optional
        What to carry, when to stop, where to go.

    Returns
    -------
    generator of PropagationStep
        One step per object and plane, seed planes first, then outward. The last step of every direction
        has a `stop_reason`: with RANGE_END and SEED_REACHED its region is part of the object, with the
        others it is empty. Close the generator to cancel.

    Raises
    ------
    PromptError
        No seeds, a seed plane outside the volume or the plane range, a prompt outside its plane. Raised at
        the call, before any work.
    """
    settings = settings or PropagationSettings()
    first = PlaneRef(axis, 0, level, time)
    limits = _plane_limits(encoder.volume, first, settings)
    _check_seeds(seeds, encoder.volume, first, limits)
    return _Run(encoder, predictor, first, settings, limits).steps(seeds)


def _plane_limits(volume: VolumeLike, plane: PlaneRef, settings: PropagationSettings) -> tuple[int, int]:
    n_planes = volume.shape_zyx(plane.level)[plane.axis]
    first, end = settings.plane_range or (0, n_planes)
    if first >= n_planes or end <= 0:
        raise PromptError(f"plane range {first}..{end - 1} lies outside the volume of {n_planes} planes")
    return max(first, 0), min(end, n_planes)


def _check_seeds(seeds: Seeds, volume: VolumeLike, plane: PlaneRef, limits: tuple[int, int]) -> None:
    if not seeds or not all(seeds.values()):
        raise PromptError("no seed plane was given; every object needs prompts in at least one plane")
    shape = volume.plane_shape(plane.axis, plane.level)
    for object_id, planes in seeds.items():
        if object_id < 1:
            raise PromptError(f"object id {object_id} cannot be used; ids start at 1, 0 is background")
        for index, prompts in planes.items():
            if not limits[0] <= index < limits[1]:
                raise PromptError(
                    f"seed plane {index} of object {object_id} is outside the planes "
                    f"{limits[0]}..{limits[1] - 1} along axis {plane.axis}"
                )
            prompts.check_inside(shape)


@dataclass(slots=True)
class _Front:
    """One object going one way from one seed plane."""

    object_id: int
    direction: int
    plane: PlaneRef
    region: Region
    limit: int
    """Index of the plane that is not visited any more."""
    limit_reason: StopReason
    span: Span | None = None
    done: bool = False

    @property
    def next_index(self) -> int:
        return self.plane.index + self.direction

    @property
    def at_limit(self) -> bool:
        return self.next_index == self.limit


@dataclass(slots=True)
class _Run:
    """One call of `propagate_objects`."""

    encoder: PlaneEncoder
    predictor: Predictor
    first: PlaneRef
    settings: PropagationSettings
    limits: tuple[int, int]
    found: dict[tuple[int, int], Region] = field(default_factory=dict)
    """Masks of the seed planes by object id and plane index."""

    @property
    def volume(self) -> VolumeLike:
        """The encoder's."""
        return self.encoder.volume

    def steps(self, seeds: Seeds) -> Steps:
        yield from self._seed_steps(seeds)
        fronts = self._fronts(seeds)
        while fronts:
            by_plane = sorted(fronts, key=lambda front: (front.next_index, front.object_id))
            for index, group in groupby(by_plane, key=lambda front: front.next_index):
                yield from self._visit(self.first.at(index), list(group))
            fronts = [front for front in fronts if not front.done]

    def _predict(self, plane: PlaneRef, prompts: Sequence[PromptSet]) -> list[MaskPrediction]:
        return predict_plane(self, plane, prompts)

    def embedding(self, plane: PlaneRef, prompts: Sequence[PromptSet] | None = None) -> ImageEmbedding:
        """As the encoder gives it; makes a run what `predict_plane` asks."""
        return self.encoder.embedding(plane, prompts)

    def _seed_steps(self, seeds: Seeds) -> Iterator[PropagationStep]:
        """The user's own planes, predicted in one batch a plane."""
        for index in sorted({index for planes in seeds.values() for index in planes}):
            plane = self.first.at(index)
            asked = {oid: planes[index] for oid, planes in seeds.items() if index in planes}
            open_ids = [oid for oid, prompts in asked.items() if not _is_only_mask(prompts)]
            answers = self._predict(plane, [asked[oid] for oid in open_ids]) if open_ids else []
            predicted = dict(zip(open_ids, answers, strict=True))
            for oid, prompts in asked.items():
                yield self._seed_step(oid, plane, prompts, predicted.get(oid))

    def _seed_step(
        self, object_id: int, plane: PlaneRef, prompts: PromptSet, prediction: MaskPrediction | None
    ) -> PropagationStep:
        region = Region.from_mask(prompts.mask) if prediction is None else prediction.region
        quality = 1.0 if prediction is None else prediction.predicted_iou
        self.found[object_id, plane.index] = region
        outer = {1: self.limits[1] - 1, -1: self.limits[0]}
        at_end = any(plane.index == outer[step] for step in self.settings.direction.steps)
        reason = StopReason.RANGE_END if at_end else None
        if not region.area:
            reason = StopReason.EMPTY
        return PropagationStep(object_id, plane, region, quality, 1.0, True, reason)

    def _fronts(self, seeds: Seeds) -> list[_Front]:
        return [front for oid, planes in seeds.items() for front in self._object_fronts(oid, sorted(planes))]

    def _object_fronts(self, object_id: int, planes: list[int]) -> Iterator[_Front]:
        """Both directions from every seed plane that has somewhere to go."""
        lower, upper = [self.limits[0] - 1, *planes[:-1]], [*planes[1:], self.limits[1]]
        usable = [index for index in planes if self.found[object_id, index].area]
        spans = {
            (a, b): Span(a, b, self.settings.fusion)
            for a, b in pairwise(planes)
            if a in usable and b in usable and len(self.settings.direction.steps) == 2
        }
        for index, low, high in zip(planes, lower, upper, strict=True):
            for direction in self.settings.direction.steps if index in usable else ():
                limit = high if direction > 0 else low
                reason = StopReason.SEED_REACHED if limit in planes else StopReason.RANGE_END
                span = spans.get((min(index, limit), max(index, limit)))
                region = self.found[object_id, index]
                front = _Front(object_id, direction, self.first.at(index), region, limit, reason, span)
                if not front.at_limit:
                    yield front

    def _visit(self, plane: PlaneRef, fronts: list[_Front]) -> Iterator[PropagationStep]:
        """Move these fronts onto a plane; all their objects are answered in one batch."""
        prompts = [carried_prompts(front.region, self.settings) for front in fronts]
        for front, prediction in zip(fronts, self._predict(plane, prompts), strict=True):
            step = self._step(front, plane, prediction)
            front.done = step.stop_reason is not None
            front.plane, front.region = plane, step.region
            if front.span is None:
                yield step
            else:
                yield from front.span.add(front.direction, step)

    def _step(self, front: _Front, plane: PlaneRef, prediction: MaskPrediction) -> PropagationStep:
        answer = _closest(prediction, front.region)
        reason = self.settings.stop_rule(front.region, answer.region, answer.predicted_iou)
        if reason is None and plane.index + front.direction == front.limit:
            reason = front.limit_reason
        overlap = front.region.iou(answer.region)
        step = PropagationStep(
            front.object_id, plane, answer.region, answer.predicted_iou, overlap, stop_reason=reason
        )
        return step if is_part(step) else replace(step, region=_nothing(answer.region))


def _is_only_mask(prompts: PromptSet) -> bool:
    nothing_else = prompts.box_yxyx is None and prompts.low_res_logits is None
    return prompts.mask is not None and not len(prompts.points_yx) and nothing_else


def _closest(prediction: MaskPrediction, previous: Region) -> MaskCandidate:
    """Of several answers the one most like the previous plane's, so that a part stays a part."""
    if len(prediction.candidates) == 1:
        return prediction.best
    return max(prediction.candidates, key=lambda c: (c.region.iou(previous), c.predicted_iou))


def _nothing(region: Region) -> Region:
    return replace(region, box_yxyx=(0, 0, 0, 0), crop=region.crop[:0, :0])
