"""A save that Ctrl+C does not tear apart: two files that belong together, in a `deferred` block.

Each file is written anew beside the old one, and renamed: none is ever half written.  But there are
two of them, and a KeyboardInterrupt between the two renames leaves a new text beside the length of
the old one.  In a `deferred` block it waits until both are done.  It prints:

    before: length 5, text 'first'
    KeyboardInterrupt
    without deferred: length 5, text 'the second'
    KeyboardInterrupt
    with deferred: length 14, text 'the third text'
"""

import contextlib
import os
import tempfile
from pathlib import Path

import sigwright as signal


def write_beside(path, text):
    """Write what `path` is to be. It may take long, and be interrupted: nothing is changed yet."""
    new = path.with_suffix(".new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return new


def save(folder, text, section, interrupt):
    new_text = write_beside(folder / "text", text)
    new_length = write_beside(folder / "length", str(len(text)))
    with section:
        os.replace(new_text, folder / "text")
        interrupt()
        os.replace(new_length, folder / "length")


def show(folder, when):
    length, text = (folder / "length").read_text(), (folder / "text").read_text()
    print(f"{when}: length {length}, text {text!r}")


def nobody():
    pass


def impatient_user():
    os.kill(os.getpid(), signal.SIGINT)  # Ctrl+C, at the worst moment


# Python leaves SIGINT ignored where the shell started us with `&`; here it is the point.
signal.signal(signal.SIGINT, signal.default_int_handler)

with tempfile.TemporaryDirectory() as directory:
    path = Path(directory)
    save(path, "first", contextlib.nullcontext(), nobody)
    show(path, "before")
    try:
        save(path, "the second", contextlib.nullcontext(), impatient_user)
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
    show(path, "without deferred")
    try:
        save(path, "the third text", signal.deferred(), impatient_user)
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
    show(path, "with deferred")
