"""sigwright beside the stdlib's `signal`: every number that the docs give, measured in one run.

    python benchmarks/run.py [--quick] [--json FILE] [--markdown] [--against FOLDER] [GROUP ...]

`--against` asks whether a signal that nobody listens to pays for those that can: it gives the times
from raise to the handler's end beside another build of sigwright, in a folder that was made by
`pip install --target FOLDER`, and nothing else unless groups are named.

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
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import listening
from harness import PYTHON, PeerError, Row

GROUPS = {
    "calls": "A call of each function",
    "handling": "From raise to the handler's end",
    "queued": "Queued real-time signals",
    "wrong_thread": "Landed on a worker: from `pthread_kill` to the handler's first line",
    "faults": "A real fault",
    "imports": "Import",
    "loops": "From kill to your code in an event loop",
    "listening": "Listeners",
    "control": "Critical sections, time limits and timers",
}
AGAINST = "From raise to the handler's end, beside another build"
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
    parser.add_argument("--against", metavar="FOLDER", help="of another build of sigwright")
    arguments = parser.parse_args()
    unknown = set(arguments.group) - set(GROUPS)
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    groups = arguments.group or ([] if arguments.against else GROUPS)

    print(f"## Python {PYTHON}\n\n{machine()}\n" if arguments.markdown else machine())
    measures: dict[str, Callable[[bool], Iterator[Row]]] = {
        GROUPS[group]: importlib.import_module(group).measure for group in groups
    }
    if arguments.against:
        measures[AGAINST] = partial(listening.measure_against, arguments.against)
    all_rows: list[Row] = []
    for title, measure in measures.items():
        try:
            rows = list(measure(arguments.quick))
        except PeerError as error:
            print(f"{title}: not measured: {error}", file=sys.stderr)
            continue
        heading = f"### {title}\n" if arguments.markdown else f"\n{title}"
        table = as_markdown(rows) + "\n" if arguments.markdown else as_plain(rows)
        print(f"{heading}\n{table}", flush=True)
        all_rows += rows
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            result = {"machine": machine(), "rows": [dataclasses.asdict(row) for row in all_rows]}
            json.dump(result, file, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    main()
