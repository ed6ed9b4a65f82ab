"""The example of section 17.4, its own text from the seed, run in today's Python."""

import os
import time
from pathlib import Path

import pytest

sentence = pytest.mark.sentence


def translated(device):
    """The program as the seed prints it, with the three changes that it takes to run here."""
    text = (Path(__file__).parent / "17.4-signal.txt").read_text(encoding="utf-8")
    program = text[text.index("import signal, os\n") :]
    for old, new in (
        ("import signal, os", "import os"),  # the child has the module under test as `signal`
        (
            "print 'Signal handler called with signal', signum",
            "print('Signal handler called with signal', signum)",
        ),
        # Opening a FIFO for reading and writing would not wait for anybody.
        ("os.open('/dev/ttyS0', os.O_RDWR)", f"os.open({device!r}, os.O_RDONLY)"),
    ):
        assert program.count(old) == 1
        program = program.replace(old, new)
    return program


@sentence(
    "Here is a minimal example program.",
    "It uses the alarm() function to limit the time spent waiting to open a file; this is useful "
    "if the file is for a serial device that may not be turned on, which would normally cause the "
    "os.open() to hang indefinitely.",
    "The solution is to set a 5-second alarm before opening the file; if the operation takes too "
    "long, the alarm signal will be sent, and the handler raises an exception.",
    """\
import signal, os

def handler(signum, frame):
    print 'Signal handler called with signal', signum
    raise IOError("Couldn't open device!")

# Set the signal handler and a 5-second alarm
signal.signal(signal.SIGALRM, handler)

# This open() may hang indefinitely
fd = os.open('/dev/ttyS0', os.O_RDWR)

signal.alarm(0)          # Disable the alarm""",
)
def test_an_open_that_hangs_is_ended_by_the_alarm(run, tmp_path):
    device = str(tmp_path / "device")
    os.mkfifo(device)
    program = translated(device)
    # As the seed prints it, nothing has set the alarm that its comment promises (the copy lost
    # the line that CPython's page has); it is set here, where the comment says.
    comment = "# Set the signal handler and a 5-second alarm\n"
    assert program.count("signal.alarm(") == 1 and comment in program
    handler_is_set = "signal.signal(signal.SIGALRM, handler)\n"
    program = program.replace(handler_is_set, handler_is_set + "signal.alarm(5)\n")
    began = time.monotonic()
    status, output, errors = run(program)
    assert 4.9 <= time.monotonic() - began < 15
    assert output == "Signal handler called with signal 14\n"
    assert errors.splitlines()[0] == "Traceback (most recent call last):"
    assert errors.splitlines()[-1] == "OSError: Couldn't open device!"
    assert status == 1
