"""Simulated prompts, losses, trainer, evaluation."""
