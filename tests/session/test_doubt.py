from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import Doubt, DoubtReason, PropagationStep, Stop, StopReason
from napari_sam.session.doubt import describe, describe_ends, doubts, next_doubtful
from napari_sam.session.objects import ObjectRecord, PlaneScore

DOUBT = Doubt.of({DoubtReason.AREA: 0.6, DoubtReason.STABILITY: 0.1})


def test_the_next_doubtful_plane_goes_round():
    values = {3: 0.9, 5: 0.1, 8: 0.5, 12: 0.36}
    assert [next_doubtful(values, at) for at in (0, 3, 8, 12)] == [3, 8, 12, 3]
    assert [next_doubtful(values, at, step=-1) for at in (12, 8, 3)] == [8, 3, 12]


def test_where_nothing_is_bad_the_worst_is_shown():
    assert next_doubtful({1: 0.0, 4: 0.2, 6: 0.1}, 0) == 4
    assert next_doubtful({1: 0.0}, 0) is None
    assert next_doubtful({}, 0) is None


def test_doubts_of_parallel_planes_that_are_written():
    record = ObjectRecord(1)
    region = Region((4, 4), (0, 0, 1, 1), [[True]])
    for plane in (PlaneRef(0, 3), PlaneRef(1, 3), PlaneRef(0, 4)):
        record.set_written(plane, region)
        record.set_score(plane, PlaneScore(doubt=DOUBT))
    record.set_written(PlaneRef(0, 4), None)
    assert doubts(record, PlaneRef(0, 0)) == {3: DOUBT.value}
    assert record.summary.doubt == DOUBT.value
    assert record.summary.doubtful_plane in (PlaneRef(0, 3), PlaneRef(1, 3))


def test_reasons_in_words():
    assert describe(PlaneScore(doubt=DOUBT)) == "doubt 0.64: its area jumps"
    assert describe(PlaneScore()) == ""
    region = Region((4, 4), (0, 0, 1, 1), [[True]])
    ends = tuple(
        PropagationStep(1, PlaneRef(0, i), region, 1, 1, stop_reason=reason, stops=(Stop(way, reason),))
        for i, way, reason in ((9, 1, StopReason.EMPTY), (2, -1, StopReason.IOU_DROP))
    )
    assert describe_ends(ends) == (
        "plane 2: the overlap with the plane before fell too low; plane 9: the mask became empty"
    )
