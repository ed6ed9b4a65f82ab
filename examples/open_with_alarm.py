"""The example of section 17.4: an alarm limits the time spent waiting to open a file.

The seed opens a serial device that may not be turned on.  A FIFO to which nobody writes does the
same on any machine: its open() hangs until the alarm comes, after 5 seconds, and the handler's
exception ends it.  Nothing catches the exception, so the program ends with a traceback, whose
last line is "OSError: Couldn't open device!", and with exit status 1.  Before that it prints:

    Signal handler called with signal 14
"""

import sigwright as signal, os, tempfile  # noqa: E401, I001


def handler(signum, frame):
    print("Signal handler called with signal", signum)
    raise OSError("Couldn't open device!")


with tempfile.TemporaryDirectory() as directory:
    device = os.path.join(directory, "ttyS0")
    os.mkfifo(device)

    # Set the signal handler and a 5-second alarm
    signal.signal(signal.SIGALRM, handler)
    signal.alarm(5)

    # This open() may hang indefinitely
    fd = os.open(device, os.O_RDONLY)

    signal.alarm(0)  # Disable the alarm
