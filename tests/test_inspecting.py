"""dispositions() and stats(): what they say is what is."""

import os

import programs
import sigwright as signal

PRELUDE = "import os, sys, time\nimport signal as stdlib\nimport sigwright as signal\n"


def succeed(script, **keywords):
    return programs.succeed(PRELUDE, script, **keywords)


def test_a_signal_is_missing():
    assert list(signal.dispositions()) == list(range(1, signal.NSIG))


def test_a_fresh_process_is_not_what_is_shown():
    succeed("""
        shown = signal.dispositions()
        assert shown[signal.SIGTERM].kernel == "default"
        assert shown[signal.SIGTERM].handler is signal.SIG_DFL
        assert (shown[signal.SIGINT].kernel, shown[signal.SIGINT].handler) == (
            "ours", signal.default_int_handler)
        assert shown[signal.SIGPIPE].kernel == "ignored"        # Python's own choice
        assert shown[signal.SIGKILL].kernel == "default"
        assert shown[32].kernel == "unavailable"                # the C library's
        doors = [signum for signum, what in shown.items() if what.kernel == "door"]
        assert len(doors) == 2 and not set(doors) & signal.valid_signals()
        assert not any(what.consumers or what.chained or what.replaced or what.blocked
                       or what.pending for what in shown.values())
    """)


def test_who_listens_is_not_shown():
    succeed("""
        def handler(info): pass
        with signal.listen(signal.SIGUSR1, signal.SIGUSR2) as listener:
            with signal.add_handler(signal.SIGUSR1, handler) as registration:
                shown = signal.dispositions()
                assert shown[signal.SIGUSR1].consumers == (listener, registration)
                assert shown[signal.SIGUSR2].consumers == (listener,)
                assert shown[signal.SIGUSR1].kernel == "ours"
                assert shown[signal.SIGUSR1].handler is signal.SIG_DFL
        shown = signal.dispositions()
        assert shown[signal.SIGUSR1].kernel == shown[signal.SIGUSR2].kernel == "default"
        assert shown[signal.SIGUSR1].consumers == ()
    """)


def test_blocked_or_pending_is_not_shown():
    with signal.blocked(signal.SIGUSR1):
        shown = signal.dispositions()
        assert shown[signal.SIGUSR1].blocked
        assert not shown[signal.SIGUSR1].pending
        old = signal.signal(signal.SIGUSR1, lambda *args: None)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.dispositions()[signal.SIGUSR1].pending
    assert not signal.dispositions()[signal.SIGUSR1].pending
    signal.signal(signal.SIGUSR1, old)


def test_an_inherited_sig_ign_is_not_shown():
    succeed(
        'assert signal.dispositions()[signal.SIGHUP].kernel == "ignored"',
        preexec_fn=lambda: __import__("signal").signal(signal.SIGHUP, signal.SIG_IGN),
    )


def test_the_stdlib_called_directly_is_not_found_out():
    succeed("""
        signal.signal(signal.SIGUSR1, lambda *args: None)
        stdlib.signal(signal.SIGUSR1, lambda *args: None)
        shown = signal.dispositions()[signal.SIGUSR1]
        assert (shown.kernel, shown.replaced) == ("stdlib", True), shown
        signal.signal(signal.SIGUSR1, lambda *args: None)
        shown = signal.dispositions()[signal.SIGUSR1]
        assert (shown.kernel, shown.replaced) == ("ours", False), shown
    """)


def test_the_books_do_not_balance():
    succeed("""
        number = signal.SIGRTMIN + 5
        calls = []
        signal.signal(number, lambda *args: calls.append(1))
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(2))
        small = signal.listen(number, signal.SIGUSR1, maxsize=8)
        added = signal.add_handler(number, lambda info: calls.append(3))
        with signal.blocked(number, signal.SIGUSR1):
            for _ in range(100):
                os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGUSR1)    # both are one: the kernel merges them
            os.kill(os.getpid(), signal.SIGUSR1)
        read = len(small.drain())
        counts = signal.stats()[number]
        assert (counts.handler.arrivals, counts.handler.deliveries) == (100, 100), counts
        assert [each.consumer for each in counts.consumers] == [small, added]
        first, second = counts.consumers
        assert (first.arrivals, first.deliveries, first.drops) == (101, read, 101 - read)
        assert 8 <= read <= 10, read                # and a reserved slot for each of its two
        assert (second.arrivals, second.deliveries, second.drops) == (100, 100, 0)
        assert sum(second.latency) == 100
        assert 64 <= sum(counts.handler.latency) < 100      # the first 64, and then one in 16
        for each in (counts.handler, *counts.consumers):
            assert each.arrivals == each.deliveries + each.merges + each.drops + each.waiting
    """)


def test_a_latency_is_in_the_wrong_bucket():
    succeed("""
        with signal.listen(signal.SIGUSR1) as listener:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.1)
            listener.get_nowait()
            [each] = signal.stats()[signal.SIGUSR1].consumers
        [bucket] = [n for n, count in enumerate(each.latency) if count]
        assert 2 ** bucket <= 0.1e9 * 3 and 2 ** (bucket + 1) > 0.1e9, bucket
    """)


def test_a_child_counts_what_its_parent_got():
    succeed("""
        signal.signal(signal.SIGUSR1, lambda *args: None)
        listener = signal.listen(signal.SIGUSR1, inherit=True)
        os.kill(os.getpid(), signal.SIGUSR1)
        listener.get()
        pid = os.fork()
        if pid == 0:
            counts = signal.stats()[signal.SIGUSR1]
            ok = all(each.arrivals == each.deliveries == sum(each.latency) == 0
                     for each in (counts.handler, *counts.consumers))
            os._exit(0 if ok else 1)
        assert os.waitpid(pid, 0)[1] == 0
    """)


def test_looking_inside_is_paid_for_at_import():
    succeed("""
        assert not {"threading", "typing", "dataclasses", "asyncio"} & sys.modules.keys()
        signal.stats()
        assert "dataclasses" in sys.modules
    """)
