"""Who sent this SIGTERM?  The kernel knows, and a SignalInfo keeps it.

A service that is told to stop in the night leaves the question by whom: the service manager, a
script, a colleague?  The handler runs in sigwright's own thread, at once, so that it finds the
sender before that has gone, even while the main thread is busy.  SIGTERM no longer ends the
program by itself while a handler is added to it: the handler does that, in the way that the
sender expects.  Here the sender is a shell, and the program is started a second time, as the
service.  It prints:

    the service got SIGTERM from a shell that said: kill -TERM
    the sender's user is the service's own: True
    the service was ended by SIGTERM
"""

import os
import subprocess
import sys
import threading

import sigwright as signal

# The shell waits for a line before it goes: a sender that has gone by now has no command any more.
KILL_THE_SERVICE = "kill -TERM {pid}; read wait"


def service():
    @signal.on(signal.SIGTERM, thread=True)
    def tell_who(info):
        sender = info.sender()
        words = (sender.command or "").split(" -c ")[-1].split()
        print("the service got", info.si_signo.name, "from a shell that said:", *words[:2])
        print("the sender's user is the service's own:", info.si_uid == os.getuid(), flush=True)
        signal.run_default(info.si_signo)

    print("ready", flush=True)
    threading.Event().wait()  # the service's work


def main():
    with subprocess.Popen([sys.executable, __file__, "service"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it is ready
        command = ["sh", "-c", KILL_THE_SERVICE.format(pid=child.pid)]
        with subprocess.Popen(command, stdin=subprocess.PIPE):
            print(child.stdout.read().decode(), end="")
    print("the service was ended by", signal.Signals(-child.returncode).name)


if sys.argv[1:] == ["service"]:
    service()
else:
    main()
