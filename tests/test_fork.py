"""What a forked child must have, and must not have, of its parent's signals.

Every scenario is a program of its own, in an interpreter of its own: see programs.py.
"""

import pytest

from programs import succeed_with_engine as succeed


def test_after_a_fork_in_a_worker_nobody_is_the_main_thread():
    succeed("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        signal.signal(signal.SIGUSR1, lambda *args: None)
        def in_worker():
            pid = os.fork()
            if pid:
                results.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                return
            try:
                signal.alarm(20)
                calls = []
                signal.signal(signal.SIGUSR1, lambda *args: calls.append(time.monotonic()))
                os.kill(os.getpid(), signal.SIGUSR1)
                assert len(calls) == 1
                worker = Worker()
                started = time.monotonic()
                threading.Timer(0.1, worker.kill, (signal.SIGUSR1,)).start()
                time.sleep(1.5)   # it is not cut short, but the handler runs meanwhile
                assert len(calls) == 2 and calls[1] - started < 1
                read, write = os.pipe()
                os.set_blocking(write, False)
                signal.set_wakeup_fd(write)
                worker.kill(signal.SIGUSR1)
                until(lambda: len(calls) == 3)
                assert os.read(read, 9) == bytes([signal.SIGUSR1])
            except BaseException as error:
                __import__("traceback").print_exc()
                os._exit(1)
            os._exit(0)
        results = []
        for _ in range(2):
            thread = threading.Thread(target=in_worker)
            thread.start()
            thread.join()
        assert results == [0, 0], results
    """)


def test_after_a_fork_in_a_worker_the_parents_running_handler_holds_back_the_childs_signals():
    succeed("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        signum = signal.SIGRTMIN + 1
        parent = os.getpid()
        running, forked = threading.Event(), threading.Event()
        def handler(signum, frame):
            if os.getpid() != parent:
                os._exit(0)
            running.set()
            assert forked.wait(20)
        def fork():
            global status
            running.wait()
            pid = os.fork()
            if pid == 0:
                sigqueue(signum)
                time.sleep(10)
                os._exit(1)
            status = os.waitpid(pid, 0)[1]
            forked.set()
        signal.signal(signum, handler)
        thread = threading.Thread(target=fork)
        thread.start()
        sigqueue(signum)
        thread.join()
        assert status == 0
    """)


def test_after_a_fork_inside_a_handler_the_child_waits_for_it_for_ever():
    succeed("""
        signum = signal.SIGRTMIN + 1
        children = []
        calls = itertools.count(1)
        def handler(signum, frame):
            call = next(calls)
            if os.getpid() == parent and call <= 5:
                pid = os.fork()
                children.append(pid)
                if pid == 0:
                    children.clear()
                    own.append(call)
                    signal.alarm(20)
                    # Its turn comes when this handler, which the child is in as well, returns.
                    for _ in range(3):
                        sigqueue(signum)
            elif os.getpid() != parent:
                own.append(call)
        own = []
        parent = os.getpid()
        signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
        for _ in range(10):
            sigqueue(signum)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
        if os.getpid() != parent:
            until(lambda: len(own) == 4)
            time.sleep(0.02)
            count = stats()[signum]
            os._exit(0 if len(own) == 4 and count["arrivals"] == 3 == count["deliveries"] else 1)
        until(lambda: stats()[signum]["deliveries"] == 10)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        assert codes == [0] * 5, codes
    """)


@pytest.mark.parametrize("waiting", [0, 1, 100])
def test_the_parents_waiting_signals_arrive_in_the_child(waiting):
    # They wait in the inbox: their handler runs, and it is this handler that forks.
    succeed(f"""
        signum = signal.SIGRTMIN + 1
        calls = 0
        def handler(number, frame):
            global calls, pid
            calls += 1
            if calls == 1:
                for _ in range({waiting}):
                    signal.raise_signal(signum)
                assert stats()[signum]["waiting"] == {waiting}
                pid = os.fork()
        signal.signal(signum, handler)
        signal.raise_signal(signum)
        if pid == 0:
            time.sleep(0.02)
            os._exit(0 if calls == 1 and not any(stats()[signum].values()) else 1)
        assert calls == 1 + {waiting}
        assert os.waitpid(pid, 0)[1] == 0
    """)


def test_a_fork_in_a_storm_gives_the_child_signals_of_the_parents():
    succeed("""
        signals = [signal.SIGUSR1, signal.SIGRTMIN + 1]
        calls = {signum: itertools.count() for signum in signals}
        for signum in signals:
            signal.signal(signum, lambda number, frame: next(calls[number]))
        sender = start_sender([signal.SIGUSR1, signal.SIGRTMIN + 1], 0, 20e-6)
        until(lambda: stats()[signal.SIGUSR1]["arrivals"] > 100)
        for _ in range(100):
            pid = os.fork()
            if pid == 0:
                time.sleep(0.001)
                os._exit(any(count["arrivals"] for count in stats().values()))
            assert os.waitpid(pid, 0)[1] == 0
        sender.kill()
        sender.wait()
        until(lambda: not any(count["waiting"] for count in stats().values()))
        for signum in signals:
            assert stats()[signum]["deliveries"] == next(calls[signum]), stats()
    """)
