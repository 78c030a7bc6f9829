"""Signals that end training between two steps instead of anywhere, and never a save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""Ctrl-C, a request to end, and a terminal that was closed, which Windows does not have."""


class Interruption(BaseCallback):
    """A callback that stops training after the step at which one of `SIGNALS` came.

    Used as a context manager: signals are handled inside only. A second one acts at once, by
    KeyboardInterrupt, further ones not at all; nor does any after `defer`. With `at_once` the first
    does so, and no other. Under nohup SIGHUP stays ignored. Attribute: `signal`, the first number
    received, or None.
    """

    def __init__(self, say: Callable[[str], None], at_once: bool = False) -> None:
        super().__init__()
        self.say = say
        self.at_once = at_once
        self.signal: int | None = None
        self._again = False
        self._deferred = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is not threading.main_thread():  # where Python forbids it
            return self
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if number in (signal.SIGINT, signal.SIGTERM) or handler != signal.SIG_IGN:
                self._handlers[number] = handler
                signal.signal(number, self._received)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def defer(self) -> None:
        """From now on only take note of signals."""
        self._deferred = True

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            if self.at_once:
                self._again = True
                raise KeyboardInterrupt
            if self._deferred:
                self.say("\nstopping once the model is saved")
            else:
                self.say("\nstopping after this step; the model will be saved")
        elif not self._again and not self._deferred:
            self._again = True
            raise KeyboardInterrupt

    def _on_step(self) -> bool:
        return self.signal is None
