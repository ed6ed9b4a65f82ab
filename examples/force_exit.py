"""The second Ctrl+C always works: even where no handler can run.

The program is inside one long call of C code, which holds the GIL: its handlers wait for the call
to end, in some hours.  With force_exit() the second Ctrl+C ends it all the same, and shows where it
was; and so does a SIGTERM that was not answered within half a second.  It prints:

    Ctrl+C, and it computes on
    Ctrl+C again: ended by SIGINT, in compute()
    SIGTERM: ended by SIGTERM, in compute()
"""

import itertools
import os
import subprocess
import sys
import time

import sigwright as signal


def stop(signum, frame):
    raise SystemExit("in good order")  # it never comes to that


def compute():
    signal.signal(signal.SIGTERM, stop)
    signal.force_exit(signal.SIGTERM, grace=0.5)
    signal.force_exit(signal.SIGINT, grace=60, presses=2)
    # As sum(range(10**12)); but this one says when it has begun.
    sum(itertools.chain(map(os.write, [1], [b"computing\n"]), range(10**12)))


def start():
    """Run compute() in a process of its own, until it is in the middle of it."""
    command = [sys.executable, __file__, "compute"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def tell_end(key, child):
    _, last_words = child.communicate()  # one line, and the stacks
    where = "compute()" if b"in compute\n" in last_words else "who knows where"
    print(f"{key}: ended by {signal.Signals(-child.returncode).name}, in {where}")


def main():
    child = start()
    child.send_signal(signal.SIGINT)
    time.sleep(0.5)
    if child.poll() is None:
        print("Ctrl+C, and it computes on")
    child.send_signal(signal.SIGINT)
    tell_end("Ctrl+C again", child)

    child = start()
    child.send_signal(signal.SIGTERM)
    tell_end("SIGTERM", child)


if sys.argv[1:] == ["compute"]:
    compute()
else:
    main()
