"""Calls that are to come: as many as memory holds, without a thread.

What arms, waits and calls is the engine's (`_engine/timers.c`).
"""

from ._engine import TimerHandle, call_at, call_every, call_later

__all__ = ["TimerHandle", "call_at", "call_every", "call_later"]
