"""The napari plugin: the only room that knows napari and Qt."""

from napari_sam.plugin.widget import SegmentWidget

__all__ = ["SegmentWidget"]
