"""Automatic masks in a plane and in a volume."""
