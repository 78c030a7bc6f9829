"""The paper's two equations (Sukhbaatar et al. 2021, arXiv:2105.06548), and losses of our own.

e_i            span of memory i, in steps
r_ti = e_i - (t - i)                        remaining span at step t; t - i is the age
m_ti = max(0, min(1, 1 + r_ti / R))         soft mask with a ramp of R steps

  m |1 --------.
    |           `.                          a memory lives e steps unharmed, then fades
    |0            `.______ age              over R more and is deleted
                e   e+R
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NEARLY_ALL = 1 - 1e-6
"""Share of the maximum beyond which a span counts as no longer."""


class SpanLosses(NamedTuple):
    """The losses of a layer's spans, each divided by the number of steps; scalars. See `Aux`."""

    span: Tensor
    shrink: Tensor
    limit: Tensor


def soft_mask(spans: Tensor, ages: Tensor, ramp: float) -> Tensor:
    """m = max(0, min(1, 1 + (e - age) / R)), the share of attention a memory keeps (paper, eq. 5).

    Spans, ages and ramp in steps; shapes broadcast. The gradient reaches `spans` on the ramp only.
    """
    return (1 + (spans - ages) / ramp).clamp(0, 1)


def log_mask(mask: Tensor, readable: Tensor) -> Tensor:
    """log m, to be added to attention logits: a softmax then weighs by m (paper, eq. 6); -inf where
    `readable` is False. Shapes broadcast. The gradient stays finite where m is 0 or not readable.
    """
    hidden = ~(readable & (mask > 0))
    return torch.where(hidden, 1.0, mask).log().masked_fill(hidden, -torch.inf)


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


def shrink_loss(spans: Tensor) -> Tensor:
    """log(1 + e) of every memory, in place of the paper's e: a span of 4,000 shrinks at the rate of
    one of 40, and one below a step is left alone. Unlike `span_penalty` it presses on spans that no
    episode is long enough to reach. Spans in steps, any shape; the result has the same."""
    return torch.log1p(spans)


def limit_loss(spans: Tensor, max_span: float) -> Tensor:
    """-log(1 - e/L), beside `shrink_loss`: what makes it grow near L as the predictor's logit does.
    The sigmoid is flat there, so a span that has reached L would hardly feel anything again.
    Spans in steps, any shape, at most L = `max_span`; the result has the same shape."""
    return -torch.log1p(-(spans / max_span).clamp(max=NEARLY_ALL))
