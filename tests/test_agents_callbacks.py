"""Callbacks, evaluation and logging of Stable-Baselines3 and Weights & Biases."""

from __future__ import annotations
