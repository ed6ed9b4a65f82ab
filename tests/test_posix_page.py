"""docs/posix.md, the page that lists <signal.h>: what it promises is there."""

import builtins
import os
import re
import threading
from pathlib import Path

import sigwright as signal

PAGE = Path(__file__).parents[1] / "docs" / "posix.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| `")
]


def test_the_page_promises_only_what_is_there():
    promised = {
        name
        for row in ROWS
        if not row[1].startswith("none")
        for name in re.findall(r"`([A-Za-z_][\w.]*)(?:\(\))?`", row[1].partition(":")[0])
    }
    assert {"sigqueue", "os.kill", "SIGTERM", "SI_USER", "SignalInfo.si_pid"} <= promised
    elsewhere = {"os": os, "threading": threading, "set": set}
    missing = []
    for name in sorted(promised):
        owner, dot, attribute = name.rpartition(".")
        found = (
            hasattr(elsewhere.get(owner) or getattr(signal, owner), attribute)
            if dot
            else hasattr(signal, name) or hasattr(builtins, name)
        )
        if not found:
            missing.append(name)
    assert missing == []
