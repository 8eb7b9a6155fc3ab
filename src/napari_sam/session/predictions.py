"""Encoding what is on screen, asking the model about marks, and showing its answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_sam.core.planes import BoxYXYX, PlaneRef
from napari_sam.core.results import MaskPrediction
from napari_sam.inference.sight import Sight
from napari_sam.propagation.fronts import fitting
from napari_sam.session import requests as ask
from napari_sam.session.codec import encode
from napari_sam.session.marks import Marks
from napari_sam.session.objects import ObjectRecord
from napari_sam.session.recovery import Asked, decode_mask
from napari_sam.session.resolve import Blocked, parallel, planes_around

if TYPE_CHECKING:
    from napari_sam.session.session import Session


class Predictions:
    """Keeps the answers of the model in step with the marks and the plane on screen.

    Parameters
    ----------
    session : Session
        Whose objects they belong to.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._numbers: dict[tuple[int, PlaneRef], int] = {}
        self._earlier: dict[tuple[int, PlaneRef], Asked] = {}
        self._answered: dict[tuple[int, PlaneRef], Marks] = {}
        self._to_keep: set[int] = set()
        self._next = 1

    def number_of(self, object_id: int, plane: PlaneRef) -> int:
        """Number in the journal of the answer that an object has in a plane; 0 if there is none."""
        return self._numbers.get((object_id, plane), 0)

    def forget(self) -> None:
        """Begin with another image."""
        self._numbers.clear()
        self._earlier.clear()
        self._answered.clear()
        self._to_keep.clear()
        self._next = 1

    def remember(self, asked: Mapping[tuple[int, PlaneRef], Asked], following: int) -> None:
        """Know what was asked in an earlier run; it is asked in the same way again when it is needed."""
        self._earlier, self._next = dict(asked), following

    def encode_view(self) -> None:
        """Order the plane on screen, and its neighbours for idle time."""
        session = self._session
        if session.volume is None or isinstance(session.resolved, Blocked):
            return
        assert isinstance(session.view, PlaneRef)
        if session.view not in session.encoded:
            order = ask.EncodePlane(plane=session.view, sight=session.sight, part=session.shown.part)
            session.orders.submit(order)
        self.encode_neighbours(session.state.idle_reach, session.shown.part)

    def encode_neighbours(self, reach: int | None, part: BoxYXYX | None = None) -> None:
        """Order the planes around the one on screen, nearest first; all of them if `reach` is None.

        Of large ones only a part, where one is given.
        """
        session = self._session
        if session.volume is None or isinstance(session.view, Blocked):
            return
        size = session.volume.shape_zyx(session.view.level)[session.view.axis]
        planes = planes_around(session.view, size, reach)
        missing = tuple(p for p in planes if p not in session.encoded)
        if missing:
            session.orders.submit(ask.EncodePlanes(planes=missing, sight=session.sight, part=part))

    def update(self) -> None:
        """Ask for every plane, parallel to the one on screen, whose marks are not those asked for last."""
        session = self._session
        resolved, record = session.resolved, session.record
        if isinstance(resolved, Blocked):
            return
        gone = [p for p in record.asked if parallel(p, resolved.plane) and p not in resolved.marks]
        for plane in gone:
            record.forget(plane)
            session.orders.cancel_prediction(record.object_id, plane)
        for plane, marks in resolved.marks.items():
            asked = record.asked.get(plane)
            if asked is None or not marks.same_as(asked):
                self._ask(record, plane, marks)
        self.show(gone)

    def take(self, request: ask.Predict, prediction: MaskPrediction) -> None:
        """Note an answer, if its marks are still those of the object."""
        session = self._session
        record = session.objects.get(request.object_id)
        if record is None or record.asked.get(request.plane) is not request.marks:
            return
        record.set_prediction(request.plane, prediction)
        record.scale = prediction.scale
        self._numbers[record.object_id, request.plane] = request.number
        self._answered[record.object_id, request.plane] = request.marks
        if not request.is_known:
            session.note(
                "answer",
                number=request.number,
                object=record.object_id,
                plane=encode(request.plane),
                marks=request.marks.to_json(),
                follows=request.follows,
                scale=prediction.scale,
                start=session.writer.encoded(request.start, [record.object_id]),
                model=session.opening.model_number,
            )
            if request.marks.is_single_click and request.start is None:
                self._fit(record, request, prediction)
        if record is session.record:
            self.show([request.plane])

    def take_end(self, request: ask.Predict, *, is_answered: bool) -> None:
        """Know that a question has ended, and keep its answer if the user wished so before it was there."""
        record = self._session.objects.get(request.object_id)
        if record is None:
            return
        if not is_answered:
            record.forget_question(request.plane, request.marks)
        if record.object_id in self._to_keep:
            self.keep(record)

    def keep(self, record: ObjectRecord) -> None:
        """Write what is pending of an object, as one step, and what marks are answered with that have no answer yet."""
        self._to_keep.discard(record.object_id)
        if self._session.orders.is_open(lambda request: self._awaits(record, request)):
            self._to_keep.add(record.object_id)
        if record.pending:
            writer = self._session.writer
            writer.when_written(
                lambda: writer.write("keep", record.commits()), [record.object_id], cancels=()
            )

    def _awaits(self, record: ObjectRecord, request: ask.Request) -> bool:
        """Whether a request will answer marks of an object that no answer is shown for, not even another model's."""
        if not isinstance(request, ask.Predict) or request.object_id != record.object_id:
            return False
        plane, marks = request.plane, request.marks
        shown = self._answered[record.object_id, plane] if plane in record.predictions else Marks()
        return record.asked.get(plane) is marks and not marks.same_as(shown)

    def _fit(self, record: ObjectRecord, request: ask.Predict, prediction: MaskPrediction) -> None:
        """Choose, of several answers to a click, the one most like the object in the planes beside it."""
        plane = request.plane
        chosen = fitting(prediction, plane.index, record.parallel_masks(plane))
        if chosen.chosen != prediction.chosen:
            record.set_prediction(plane, chosen)
            self._session.note("choose", number=request.number, chosen=chosen.chosen)

    def choose(self, plane: PlaneRef, prediction: MaskPrediction) -> None:
        """Take another of the masks that the model gave for the active object in a plane."""
        session, record = self._session, self._session.record
        record.set_prediction(plane, prediction)
        record.answered.pop(plane, None)
        number = self.number_of(record.object_id, plane)
        session.note("choose", number=number, chosen=prediction.chosen)
        self.show([plane])

    def show(self, planes: Iterable[PlaneRef]) -> None:
        """Make the preview of these planes what is pending of the active object."""
        session = self._session
        for redraw in session.preview.show(planes, session.record.pending):
            session.preview_changed.emit(redraw)

    def _ask(self, record: ObjectRecord, plane: PlaneRef, marks: Marks) -> None:
        key = record.object_id, plane
        earlier = record.earlier(plane, marks)
        if record.is_painted_over(plane):
            record.starts.pop(plane, None)  # more marks correct what was painted
        recovered = self._earlier.pop(key, None)
        record.asked[plane] = marks
        sight = self._session.sight
        request = ask.Predict(
            object_id=record.object_id, plane=plane, marks=marks, earlier=earlier, sight=sight
        )
        if earlier is not None:  # whose logits are of its own scale
            follows, sight = (self._numbers[key], earlier.chosen), Sight(earlier.scale)
            request = replace(request, follows=follows, sight=sight)
        elif recovered is not None and recovered.questions[-1].same_as(marks):
            record.starts[plane] = decode_mask(recovered.start, self._session.journal)
            request = replace(
                request,
                chain=recovered.chain,
                number=recovered.number,
                chosen=recovered.chosen,
                is_known=True,
                sight=Sight(recovered.scale),
                start=record.starts[plane],
            )
        else:
            request = replace(request, start=record.start(plane, marks))
        if not request.number:
            request, self._next = replace(request, number=self._next), self._next + 1
        self._session.orders.submit(request)
