"""Cancel a job that runs in another thread.

Whoever has the CancelScope of a block may cancel it, in any thread.  The block is left: `with` and
`finally` inside run, nothing is raised after it, and the thread goes on with what follows.  It
prints:

    the job has begun
    cancelled by the main thread
    the job's temporary folder is gone
    the job was cancelled: True
    the thread goes on, with the next job
    the next job was cancelled: False
"""

import os
import tempfile
import threading

import sigwright as signal

begun = threading.Event()
first, second = signal.CancelScope(), signal.CancelScope()


def search():
    with tempfile.TemporaryDirectory() as folder:
        folders.append(folder)
        begun.set()
        number = 1
        while True:  # an odd perfect number: the search may take a while
            number += 2
            if number == sum(n for n in range(1, number // 2) if number % n == 0):
                return


def work():
    with first:
        search()
    print("the job's temporary folder is", "there" if os.path.exists(folders[0]) else "gone")
    print("the job was cancelled:", first.cancelled_caught)
    with second:
        print("the thread goes on, with the next job")
    second.cancel()  # too late: nothing happens
    print("the next job was cancelled:", second.cancelled_caught)


folders = []
thread = threading.Thread(target=work)
thread.start()
begun.wait()
print("the job has begun")
print("cancelled by the main thread")
first.cancel()
thread.join()
