"""A supervisor that learns of its children's ends by SIGCHLD, and steals nobody else's.

Two rules.  One SIGCHLD may stand for several children: the kernel merges those that come while one
is pending; so each one is a reason to look at all children, not news of one.  And only at one's
own: waitpid(-1) would take the status of a child that subprocess waits for, which would then say 0
for it, whatever it was.  It prints:

    subprocess got its own child's status: 7
    the first child ended with status 0
    the second child ended with status 3
    the third child was ended by SIGKILL
"""

import os
import subprocess

import sigwright as signal

COMMANDS = {"first": "exit 0", "second": "exit 3", "third": "kill -KILL $$"}


def start(command):
    return os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ)


def reap(children):
    """Take the status of those of our children that have ended."""
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            yield children.pop(pid), os.waitstatus_to_exitcode(status)


# Open before the first child is started: none can end unseen.
with signal.listen(signal.SIGCHLD) as deaths:
    children = {start(command): name for name, command in COMMANDS.items()}
    print("subprocess got its own child's status:", subprocess.call(["sh", "-c", "exit 7"]))
    results = {}
    while children:
        deaths.get()
        results.update(reap(children))

for name in COMMANDS:
    code = results[name]
    how = f"ended with status {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    print("the", name, "child", how)
