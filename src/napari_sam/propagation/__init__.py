"""Carrying objects through planes. No torch here: a predictor is handed in."""
