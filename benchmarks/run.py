"""sigwright beside the stdlib's `signal`: every number that the docs give, measured in one run.

    python benchmarks/run.py [--quick] [--json FILE] [--markdown] [GROUP ...]

Nothing fails here: a bar is reported as met or not, since a number depends on the machine, and on
what else it does meanwhile.
"""

import argparse
import dataclasses
import importlib
import json
import os
import platform
import sys
from collections.abc import Iterable

from harness import PYTHON, PeerError, Row

GROUPS = {
    "calls": "A call of each function",
    "handling": "From raise to the handler's end",
    "queued": "Queued real-time signals",
    "wrong_thread": "Landed on a worker: from `pthread_kill` to the handler's first line",
    "faults": "A real fault",
    "imports": "Import",
}
COLUMNS = ["what", "beside", "theirs", "sigwright", "result", "bar", ""]


def cells(row: Row) -> list[str]:
    verdict = {True: "met", False: "NOT MET", None: ""}[row.met]
    return [row.what, row.beside, str(row.theirs), str(row.ours), row.result, row.bar, verdict]


def as_plain(rows: Iterable[Row]) -> str:
    """A paragraph for each row: the sentences are too long for columns."""
    return "\n".join(
        f"  {what}\n      {theirs} ({beside}) | {ours} (sigwright)"
        + "".join(f" | {text}" for text in (result, bar and f"bar: {bar}", verdict) if text)
        for what, beside, theirs, ours, result, bar, verdict in map(cells, rows)
    )


def as_markdown(rows: Iterable[Row]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    kernel = platform.release().partition("-")[0]  # without the builder's own suffix
    return (
        f"Python {platform.python_version()}, {platform.system()} {kernel}, "
        f"{platform.machine()}, {os.cpu_count()} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", nargs="*", help=f"of {', '.join(GROUPS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; for a look only")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--markdown", action="store_true", help="print tables for the docs")
    arguments = parser.parse_args()
    unknown = set(arguments.group) - set(GROUPS)
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}")

    print(f"## Python {PYTHON}\n\n{machine()}\n" if arguments.markdown else machine())
    all_rows: list[Row] = []
    for group in arguments.group or GROUPS:
        try:
            rows = list(importlib.import_module(group).measure(arguments.quick))
        except PeerError as error:
            print(f"{group}: not measured: {error}", file=sys.stderr)
            continue
        heading = f"### {GROUPS[group]}\n" if arguments.markdown else f"\n{GROUPS[group]}"
        table = as_markdown(rows) + "\n" if arguments.markdown else as_plain(rows)
        print(f"{heading}\n{table}", flush=True)
        all_rows += rows
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            result = {"machine": machine(), "rows": [dataclasses.asdict(row) for row in all_rows]}
            json.dump(result, file, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    main()
