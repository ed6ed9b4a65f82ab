"""What the storms share: a receiver and its senders, a forked process each, and their watcher."""

import argparse
import faulthandler
import mmap
import os
import random
import signal
import sys
import time
import traceback

# Fields of the memory that all processes share; the others are each storm's own.
READY, STOP = 0, 1


def main(description: str, senders: int, receive, send) -> int:
    """Run a storm. Whether it ended well, as an exit status.

    receive(shared, total, seed) runs in a process of its own, and beside it, in as many processes
    as there are senders, send(shared, index, receiver, total, seed).
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--signals", type=int, default=100_000, help="how many in all")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--seconds", type=float, default=None, help="a storm longer than this hangs"
    )
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    limit = options.seconds or 60 + options.signals / 2_000
    print(f"{options.signals} signals, seed {seed}", flush=True)

    started = time.monotonic()
    shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    receiver = start(watched, limit, receive, shared, options.signals, seed)
    sending = [start(send, shared, i, receiver, options.signals, seed) for i in range(senders)]
    failures = wait(receiver, sending, shared, started + limit + 5)
    print(f"{time.monotonic() - started:.1f} s", flush=True)
    if failures:
        print(f"FAILED with seed {seed}: {', '.join(failures)}")
        return 1
    return 0


def watched(limit: float, function, *args) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(limit, exit=True)
    function(*args)


def start(function, *args) -> int:
    """Run it in a forked process, which ends with it."""
    pid = os.fork()
    if pid != 0:
        return pid
    status = 1
    try:
        function(*args)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def reap(children: dict[int, str], *, block: bool) -> None:
    """Take leave of those that have ended (`block`: of all), which must have ended well."""
    while children:
        pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
        if pid == 0:
            return
        who = children.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        assert code == 0, f"child {pid}, forked by {who}, ended with {code}"


def wait(receiver: int, senders: list[int], shared: memoryview, deadline: float) -> list[str]:
    """Until all have ended; tell the receiver when the senders have. What went wrong."""
    running = {receiver: "the receiver", **dict.fromkeys(senders, "a sender")}
    failures = []
    while running and not failures:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            name, code = running.pop(pid), os.waitstatus_to_exitcode(status)
            if code != 0:
                failures.append(f"{name} ended with {code}")
        elif time.monotonic() > deadline:
            failures.append("it hangs")
        else:
            time.sleep(0.01)
        shared[STOP] = not set(senders) & set(running)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return failures
