"""Carrying objects from plane to plane.

The mask of one plane becomes the prompt of the next. Every object starts from its *seed planes*, those
with user prompts, and grows from each of them both ways until a stop rule says that it ended, the plane
range ends, or the next seed plane of the same object is reached. Between two seed planes both directions
run and are fused (`propagation.fusion`); seed planes themselves are never overwritten. After a change of some
seed planes only the gaps beside them have to be run again (`propagation.anchors`).

Work goes outward in rounds: in round *d* every live direction of every object visits the plane at distance
*d* from its seed, and all objects on one plane are answered in one batch. Only planes that are visited are
encoded. The whole is a generator: what was yielded is final, and closing it between two steps cancels.

Where a stop rule holds for a plane or two and the object is there again behind them, the planes are *filled in*:
the shape between both sides, snapped to the model's answer where that agrees with it. Planes between two seed
planes that neither direction reached are filled in as well. Objects that meet share a plane out by one rule
(`propagation.meeting`). Every step says how doubtful it is and which directions ended there, and why.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from napari_sam.core.arrays import Array
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import Predictor, VolumeLike
from napari_sam.core.results import (
    ImageEmbedding,
    MaskCandidate,
    MaskPrediction,
    PropagationStep,
    Stop,
    StopReason,
)
from napari_sam.errors import PromptError
from napari_sam.inference.predict import predict_plane
from napari_sam.inference.sight import ScalingEncoder, answers
from napari_sam.propagation.anchors import Gap, gaps_of
from napari_sam.propagation.appearance import Change, Look, Reference, clearest, look_of
from napari_sam.propagation.carry import carried_prompts, widened_box
from napari_sam.propagation.doubt import Spacing, filled_doubt
from napari_sam.propagation.fronts import Front, closest
from napari_sam.propagation.fusion import Span, all_stops, is_part
from napari_sam.propagation.meeting import Claim, settle
from napari_sam.propagation.motion import Moved, Outline, View, followed, moved, outline_weight, shade_change
from napari_sam.propagation.settings import Between, Carry, PropagationSettings
from napari_sam.propagation.shapes import interpolate

Seeds = Mapping[int, Mapping[int, PromptSet]]
Gaps = Mapping[int, Collection[Gap]]
Steps = Generator[PropagationStep, None, None]


def propagate_objects(
    encoder: ScalingEncoder,
    predictor: Predictor,
    seeds: Seeds,
    *,
    axis: int = 0,
    level: int = 0,
    time: int = 0,
    settings: PropagationSettings | None = None,
    gaps: Gaps | None = None,
) -> Steps:
    """Carry objects through the planes of a volume.

    Parameters
    ----------
    encoder : ScalingEncoder
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
    gaps : mapping of int to collection of Gap, optional
        Object id -> the gaps between its seed planes that are visited, as `affected_gaps` gives them; all
        gaps of an object that is not named.

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
    return _Run(encoder, predictor, first, settings, limits, gaps or {}).steps(seeds)


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


Known = tuple[int, Region]
"""A plane index and the object's mask there."""


@dataclass(slots=True)
class _Run:
    """One call of `propagate_objects`."""

    encoder: ScalingEncoder
    predictor: Predictor
    first: PlaneRef
    settings: PropagationSettings
    limits: tuple[int, int]
    gaps: Gaps
    found: dict[tuple[int, int], Region] = field(default_factory=dict)
    """Masks of the seed planes by object id and plane index."""
    own: dict[int, float] = field(default_factory=dict)
    """By object id the highest estimate for a seed mask carried onto its own plane."""
    views: dict[tuple[int, int], View] = field(default_factory=dict)
    """The image around the masks of the seed planes, by object id and plane index, where motion is followed."""
    spans: list[Span] = field(default_factory=list)
    """Spans that are interpolated without going there."""

    @property
    def volume(self) -> VolumeLike:
        """The encoder's."""
        return self.encoder.volume

    @property
    def spacing(self) -> Spacing:
        """Of the planes."""
        return Spacing.of(self.volume, self.first)

    def steps(self, seeds: Seeds) -> Steps:
        yield from self._seed_steps(seeds)
        fronts = [front for oid, planes in seeds.items() for front in self._object_fronts(oid, planes)]
        self.views.clear()  # the fronts have theirs
        for span in self.spans:
            span.give_up()
            yield from self._fill(span)
        while fronts:
            by_plane = sorted(fronts, key=lambda front: (front.next_index, front.object_id))
            for index, group in groupby(by_plane, key=lambda front: front.next_index):
                yield from self._visit(self.first.at(index), list(group))
            fronts = [front for front in fronts if not front.done]

    def embedding(self, plane: PlaneRef, prompts: Sequence[PromptSet] | None = None) -> ImageEmbedding:
        """As the encoder gives it; makes a run what `predict_plane` asks."""
        return self.encoder.embedding(plane, prompts)

    def _seed_steps(self, seeds: Seeds) -> Iterator[PropagationStep]:
        """The user's own planes, predicted in one batch a plane."""
        for index in sorted({index for planes in seeds.values() for index in planes}):
            plane = self.first.at(index)
            image = self._image(plane)
            asked = {oid: planes[index] for oid, planes in seeds.items() if index in planes}
            open_ids = [oid for oid, prompts in asked.items() if not _is_only_mask(prompts)]
            predicted = dict(
                zip(open_ids, answers(self.encoder, plane, [asked[oid] for oid in open_ids]), strict=True)
            )
            for oid, prompts in asked.items():
                yield self._seed_step(oid, plane, prompts, predicted.get(oid))
            self._look_at_seeds(plane, image, [oid for oid in asked if self.found[oid, index].area])

    def _image(self, plane: PlaneRef) -> Array | None:
        """Pixels of a plane where motion is followed: not from afar, where planes are not read at full resolution."""
        return self.encoder.pixels(plane) if self.settings.follow_motion and self.encoder.scale <= 1 else None

    def _look_at_seeds(self, plane: PlaneRef, image: Array | None, there: Sequence[int]) -> None:
        """Keep the image around the masks, and ask how sure the model is where the objects are beyond doubt."""
        if image is not None:
            self.views |= {(oid, plane.index): View.of(image, self.found[oid, plane.index]) for oid in there}
        if (self.settings.min_presence is None and image is None) or not there:
            return
        prompts = [carried_prompts(self.found[oid, plane.index], self.settings) for oid in there]
        for oid, answer in zip(there, predict_plane(self, plane, prompts), strict=True):
            estimate = closest(answer, self.found[oid, plane.index]).predicted_iou
            self.own[oid] = max(estimate, self.own.get(oid, 0.0))

    def _seed_step(
        self, object_id: int, plane: PlaneRef, prompts: PromptSet, prediction: MaskPrediction | None
    ) -> PropagationStep:
        region = Region.from_mask(prompts.mask) if prediction is None else prediction.region
        quality = (1.0, 1.0) if prediction is None else (prediction.predicted_iou, prediction.stability_score)
        self.found[object_id, plane.index] = region
        outer = {1: self.limits[1] - 1, -1: self.limits[0]}
        ends = [way for way in self.settings.direction.steps if plane.index == outer[way]]
        reason = StopReason.RANGE_END if ends else None
        if not region.area:
            reason, ends = StopReason.EMPTY, list(self.settings.direction.steps)
        stops = () if reason is None else tuple(Stop(way, reason) for way in ends)
        step = PropagationStep(object_id, plane, region, quality[0], 1.0, True, reason, quality[1])
        return replace(step, stops=stops)

    def _object_fronts(self, object_id: int, seeds: Mapping[int, PromptSet]) -> Iterator[Front]:
        """What sets out into the gaps between the seed planes of an object, and beyond them."""
        wanted = [gap for gap in gaps_of(seeds) if gap in self.gaps.get(object_id, (gap,))]
        open_gaps = [gap for gap in wanted if gap.planes(*self.limits)]
        reference = self._reference(object_id, seeds) if open_gaps else None
        for gap in open_gaps:
            yield from self._gap_fronts(object_id, gap, reference)

    def _reference(self, object_id: int, seeds: Iterable[int]) -> Reference | None:
        """What is known of the object from its seed planes."""
        look = clearest(self._look(self.first.at(index), self.found[object_id, index]) for index in seeds)
        return None if look is None else Reference(look, self.own.get(object_id, 1.0))

    def _gap_fronts(self, object_id: int, gap: Gap, reference: Reference | None) -> Iterator[Front]:
        starts = {
            way: (index, self.found[object_id, index])
            for way, index in ((1, gap.below), (-1, gap.above))
            if index is not None and self.found[object_id, index].area
        }
        ways = [way for way in self.settings.direction.steps if way in starts]
        span = Span(object_id, starts[1], starts[-1], self.settings.fusion) if len(ways) == 2 else None
        if span is not None and self.settings.between is Between.INTERPOLATE:
            self.spans.append(span)
            return
        for way in ways:
            index, region = starts[way]
            other = gap.above if way > 0 else gap.below
            outer = self.limits[1] if way > 0 else self.limits[0] - 1
            limit = (outer, StopReason.RANGE_END) if other is None else (other, StopReason.SEED_REACHED)
            view, weight = self.views.get((object_id, index)), outline_weight(self.own.get(object_id, 1.0))
            start, outline = self.first.at(index), None if view is None else Outline.of(region)
            yield Front(object_id, way, start, index, region, *limit, reference, span, view, outline, weight)

    def _visit(self, plane: PlaneRef, fronts: list[Front]) -> Iterator[PropagationStep]:
        """Move these fronts onto a plane; all their objects are answered in one batch."""
        image = self._image(plane)
        motions = [
            Moved(front.region)
            if image is None or front.view is None or front.outline is None
            else moved(front.outline, front.view, image)
            for front in fronts
        ]
        for front, motion, (answer, outline) in zip(
            fronts, motions, self._carried(plane, fronts, motions), strict=True
        ):
            look = self._look(plane, answer.region) if front.reference is not None else None
            change = Change(front.region.iou(answer.region), motion.growth)
            if image is not None and front.view is not None and answer.region.area:
                shade = shade_change(front.region, front.view, answer.region, image)
                change = replace(change, shade=shade)
            step = front.judge(plane, answer, look, change, self.settings, self.spacing)
            yield from self._advance(front, step)
            if image is not None and front.good == plane.index:
                front.view, front.outline = View.of(image, front.region), outline or Outline.of(front.region)

    def _carried(
        self, plane: PlaneRef, fronts: list[Front], motions: list[Moved]
    ) -> list[tuple[MaskCandidate, Outline | None]]:
        """The masks of these fronts in a plane, parted where objects meet; to less than a pixel where motion is followed."""
        prompts = [carried_prompts(motion.region, self.settings) for motion in motions]
        found = [
            closest(prediction, motion.region)
            for motion, prediction in zip(motions, predict_plane(self, plane, prompts), strict=True)
        ]
        outlines = [
            followed(answer, motion.outline, front.weight)
            if motion.outline is not None and Carry.MASK in self.settings.carry
            else None
            for front, motion, answer in zip(fronts, motions, found, strict=True)
        ]
        found = [
            answer if outline is None else replace(answer, drawing=outline.region)
            for answer, outline in zip(found, outlines, strict=True)
        ]
        if not self.settings.part_by_logit:
            return list(zip(found, outlines, strict=True))
        claims = [Claim(front.object_id, answer) for front, answer in zip(fronts, found, strict=True)]
        seeds = [(oid, region) for (oid, index), region in self.found.items() if index == plane.index]
        return [
            (replace(answer, drawing=part), outline if part is answer.region else None)
            for answer, outline, part in zip(found, outlines, settle(claims, seeds), strict=True)
        ]

    def _look(self, plane: PlaneRef, region: Region) -> Look | None:
        """What a mask looks like, where that is asked for."""
        if not self.settings.compares_looks or not region.area:
            return None
        around = PromptSet(box_yxyx=widened_box(region, 0.0))
        return look_of(self.embedding(plane, [around]), region)

    def _advance(self, front: Front, step: PropagationStep) -> Iterator[PropagationStep]:
        """Go on from a step, or over it, or end."""
        front.plane = step.plane
        if is_part(step):
            filled = list(self._bridge(front, step))
            front.good, front.region, front.done = step.plane_index, step.region, step.stop_reason is not None
            for one in (*filled, step):
                yield from self._report(front, one)
            return
        front.weak.append(step)
        if len(front.weak) > self.settings.bridge or front.at_limit:
            front.done = True
            yield from self._report(front, front.weak[0])

    def _bridge(self, front: Front, step: PropagationStep) -> Iterator[PropagationStep]:
        """Fill in the weak planes that lie behind a front that has found its object again."""
        weak, front.weak = front.weak, []
        sides = (front.good, front.region), (step.plane_index, step.region)
        for one in weak:
            yield self._between(front.object_id, *sides, one.plane_index)

    def _report(self, front: Front, step: PropagationStep) -> Iterator[PropagationStep]:
        if front.span is None:
            yield step
            return
        yield from front.span.add(front.direction, step)
        if front.span.is_complete:
            yield from self._fill(front.span)

    def _fill(self, span: Span) -> Iterator[PropagationStep]:
        """Planes of a span that no direction reached."""
        for index, ended in sorted(span.free.items()):
            if self.settings.fill_gaps or (not ended and self.settings.between is Between.INTERPOLATE):
                step = self._between(span.object_id, span.reached[1], span.reached[-1], index)
                yield replace(step, stops=all_stops(ended))
            elif ended:
                yield replace(ended[0], stops=all_stops(ended))
        span.free.clear()

    def _between(self, object_id: int, one: Known, other: Known, index: int) -> PropagationStep:
        """The object in a plane between two others: interpolated, snapped where the model agrees."""
        share = (index - one[0]) / (other[0] - one[0])
        shape = interpolate(one[1], other[1], share, self.spacing.yx)
        plane = self.first.at(index)
        if not shape.area:
            return PropagationStep(object_id, plane, shape, 0.0, 0.0, stop_reason=StopReason.EMPTY)
        (prediction,) = predict_plane(self, plane, [carried_prompts(shape, self.settings)])
        answer = closest(prediction, shape)
        snapped = answer.region.iou(shape) >= self.settings.snap_iou
        region = answer.region if snapped else shape
        quality = (answer.predicted_iou, answer.stability_score) if snapped else (0.0, 1.0)
        nearest = min((one, other), key=lambda known: abs(known[0] - index))[1]
        step = PropagationStep(object_id, plane, region, quality[0], region.iou(nearest))
        return replace(step, stability_score=quality[1], doubt=filled_doubt(snapped))


def _is_only_mask(prompts: PromptSet) -> bool:
    nothing_else = prompts.box_yxyx is None and prompts.low_res_logits is None
    return prompts.mask is not None and not len(prompts.points_yx) and nothing_else
