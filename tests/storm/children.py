"""The children that are forked in the listeners' storm."""

import os
import time

from accounts import ImbalanceError, eventually
from sending import SIGNALS

SECONDS = 60  # a child that takes longer hangs, and dies of SIGALRM
SENDS = 100


def be_child(signal, kept, gone, handlers, calls) -> None:
    """Of what came to the parent nothing is here; of what comes to us, all."""
    # No faulthandler.dump_traceback_later() here: it would wait for a thread of the parent's.
    signal.alarm(SECONDS)
    counts = signal._engine.stats()
    assert not any(counts[signum]["arrivals"] for signum in SIGNALS), counts
    assert gone.closed and not kept.closed
    assert [handler.active for handler in handlers] == [True, True, False]
    try:
        gone.get_nowait()
        raise ImbalanceError("a listener that is not inherited can be read")
    except RuntimeError:
        pass
    for consumer in signal._engine.consumers():
        stats = consumer.stats()
        assert not stats["arrivals"], (consumer, stats)
        if isinstance(consumer, signal.Listener):
            assert consumer.drain() == [] and consumer.dropped == 0, consumer
    handled = dict.fromkeys(SIGNALS, 0)

    def handler(signum, frame):
        handled[signum] += 1

    for signum in SIGNALS:
        signal.signal(signum, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    sent = [(signum, number) for number in range(SENDS) for signum in SIGNALS]
    for signum, number in sent:
        while True:
            try:
                signal.sigqueue(os.getpid(), signum, number)
                break
            except BlockingIOError:
                time.sleep(0.0002)  # EAGAIN: RLIMIT_SIGPENDING
    got = [kept.get(timeout=SECONDS / 4) for _ in sent]
    assert {info.si_pid for info in got} == {os.getpid()}
    assert [(info.si_signo, info.si_value) for info in got] == sent
    assert kept.drain() == [] and kept.dropped == 0
    own = (os.getpid(), os.getpid())
    eventually(
        lambda: (
            set(handled.values()) == {SENDS}
            and calls["main"].count(own) == calls["thread"].count(own) == SENDS
        ),
        lambda: f"handled in the child: {handled}, {calls}",
        SECONDS / 4,
    )
    everyone = [call for name in calls for call in calls[name] if call[0] == os.getpid()]
    assert everyone == [own] * (2 * SENDS), everyone
