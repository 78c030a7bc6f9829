"""The paper's two equations, as pure functions (Sukhbaatar et al. 2021, arXiv:2105.06548).

    e_i            span of memory i, in steps
    r_ti = e_i - (t - i)                        remaining span at step t; t - i is the age
    m_ti = max(0, min(1, 1 + r_ti / R))         soft mask with a ramp of R steps

      m |1 --------.
        |           `.                          a memory lives e steps unharmed, then fades
        |0            `.______ age              over R more and is deleted
                    e   e+R
"""

from __future__ import annotations

from torch import Tensor


def soft_mask(spans: Tensor, ages: Tensor, ramp: float) -> Tensor:
    """m = max(0, min(1, 1 + (e - age) / R)), the share of attention a memory keeps (paper, eq. 5).

    Spans, ages and ramp in steps; shapes broadcast. The gradient reaches `spans` on the ramp only.
    """
    return (1 + (spans - ages) / ramp).clamp(0, 1)


def span_penalty(spans: Tensor, ages: Tensor, ramp: float, visible: Tensor) -> Tensor:
    """Sum of r_ti / R over the memories on the ramp; divide by the number of steps for the loss.

    The paper's L1 term (eq. 9) as its authors train it: a memory pays only while it fades, that
    is while 0 < m < 1. Over the R steps of its ramp a span gets a gradient of about 1 in all.

    Shapes: spans (..., K) in steps; ages and visible (..., T, K); keys not visible do not pay.
    Returns a scalar.
    """
    remaining = spans[..., None, :] - ages
    fading = visible & (remaining < 0) & (remaining > -ramp)
    # Only spans carry a gradient, and each counts once per step on the ramp: a weighted sum over
    # keys gives it without a graph over (T, K).
    return ((spans * fading.sum(-2)).sum() - (ages * fading).sum()) / ramp
