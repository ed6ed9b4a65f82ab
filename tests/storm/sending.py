"""The senders of the listeners' storm, and the memory that they share with the receiver."""

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from signal import SIGRTMIN, SIGUSR1

from accounts import SENDERS, label
from processes import READY

# At most 1 << WIDEST numbers of a sender are on their way: what anybody must have room for.
WIDEST = 14
JUMBLE_SHARE = 10  # for so many numbers in the first part, one in the second

READERS = 6
LOOPS = 2
# Those who open and close listeners, and may ask for calm.
LANES = [*(f"reader {i}" for i in range(READERS)), *(f"loop {i}" for i in range(LOOPS))]
# Those who must have every number, and whom the senders wait for.
PACERS = ("signal()", "added", "thread", "shared", *(f"loop {i}" for i in range(LOOPS)))
# Fields of the memory that all processes share, after those of `processes`.
PIDS, SENT, TALLIES, CALM, PROGRESS = 2, 10, 20, 30, 40


def progress(sender: int, pacer: int = 0) -> int:
    return PROGRESS + sender * len(PACERS) + pacer


def sender_signal(sender: int) -> int:
    return SIGRTMIN + 2 + sender


SIGNALS = [sender_signal(sender) for sender in range(SENDERS)]


def parts(total: int) -> list[tuple[int, int]]:
    """The numbers that each sender sends in each part: from, up to."""
    ordered = total // SENDERS
    return [(0, ordered), (ordered, ordered + ordered // JUMBLE_SHARE)]


def widest(total: int) -> int:
    """Floods that a short storm has time for, and for quiet moments between them."""
    return max(1, min(WIDEST, (total // SENDERS // 64).bit_length()))


@functools.cache
def compiled_sender() -> ctypes.CDLL:
    """Ask for it first before the senders are forked."""
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]) is None:
        print("needs a C compiler")
        sys.exit(2)
    source = Path(__file__).with_name("sender.c")
    # Under a sanitizer its library is preloaded, which is not for compilers.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "sender.so"
        command = [*compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
        subprocess.run(command, check=True, env=environment)
        return ctypes.CDLL(str(library))


def send(shared: memoryview, sender: int, receiver: int, total: int, seed: int) -> None:
    """A sender's whole life."""
    memory = (ctypes.c_uint64 * len(shared)).from_buffer(shared)

    def at(field: int):
        return ctypes.c_void_p(ctypes.addressof(memory) + field * shared.itemsize)

    shared[PIDS + sender] = os.getpid()
    for part, (start, stop) in enumerate(parts(total), 1):
        while shared[READY] < part:
            time.sleep(0.001)
        error = compiled_sender().send_numbers(
            *(receiver, int(sender_signal(sender)), int(SIGUSR1), ctypes.c_uint32(label(sender))),
            *(ctypes.c_uint64(start), ctypes.c_uint64(stop)),
            *(at(progress(sender)), len(PACERS), at(CALM), len(LANES)),
            *(ctypes.c_uint32(seed * 1000 + sender * 10 + part), widest(total)),
            at(TALLIES + 2 * sender),
        )
        if error:
            raise OSError(error, os.strerror(error))
        shared[SENT + sender] = stop
