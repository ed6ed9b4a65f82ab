"""A pool of two processes with two long tasks: `pool.py KIND START_METHOD`."""

import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from whose import tell


def handler(signum, frame):
    pass


def begin(ignore):
    if ignore:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, handler)
    tell(signal.SIGUSR1)


def work(number):
    os.write(1, b"work: begun\n")
    time.sleep(600)


def main(kind, method):
    begin(False)
    context = multiprocessing.get_context(method)
    try:
        if kind == "executor":
            with ProcessPoolExecutor(2, context, begin, (False,)) as executor:
                list(executor.map(work, range(2)))
        else:
            ignore = kind == "pool whose workers ignore SIGINT"
            with context.Pool(2, begin, (ignore,)) as pool:
                pool.map(work, range(2), chunksize=1)
    except KeyboardInterrupt:
        print("parent: KeyboardInterrupt")
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])
