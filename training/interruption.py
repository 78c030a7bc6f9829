"""Ctrl-C that ends training between two steps instead of anywhere."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback


class Interruption(BaseCallback):
    """A callback that stops training after the step at which SIGINT or SIGTERM came.

    Used as a context manager: signals are handled inside only. A second one acts at once, by
    KeyboardInterrupt. Attribute: `signal`, the number received, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids it
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._received)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def _on_step(self) -> bool:
        return self.signal is None
