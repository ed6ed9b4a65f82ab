"""Runs the scenarios under an interpreter and writes down what they say.

    python tests/oracle/record.py --python PATH

records `transcripts.txt` anew; PATH must be a Python 2.7. With `--check` it compares instead, under
any Python (a 3 has to have sigwright), and exits with 1 where they differ.

A scenario is a function in `scenarios/`; each runs in a process of its own. Its transcript is what
it printed, how it ended, and, if it wrote to stderr, the last line of that: the error itself. A
traceback's other lines hold paths and differ by interpreter. What scenarios make alike on purpose
is in `scenarios/stage.py`.
"""

import argparse
import ast
import difflib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
SCENARIOS = HERE / "scenarios"
RECORDING = HERE / "transcripts.txt"
HEADING = "== "
TIMEOUT = 120  # seconds; a scenario waits at most one minute for each thing


def is_python27(python: str) -> bool:
    """Whether the program is a Python 2.7 that runs."""
    ended = subprocess.run(
        [python, "-E", "-c", "import sys; print(sys.version_info[:2] == (2, 7))"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ended.stdout.strip() == "True"


def scenario_names() -> list[str]:
    """Every scenario, as MODULE.FUNCTION, in the order in which they are written.

    A name with an underscore before it is a scenario's helper.
    """
    return [
        f"{path.stem}.{node.name}"
        for path in sorted(SCENARIOS.glob("*.py"))
        if path.stem != "stage"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


def transcript(python: str, name: str) -> str:
    """What the scenario says under the interpreter."""
    module = name.partition(".")[0]
    environment = dict(os.environ)
    if not os.path.samefile(python, sys.executable):  # PYTHONPATH and its like are for this Python
        environment = {k: v for k, v in environment.items() if not k.startswith("PYTHON")}
    ended = subprocess.run(
        [python, "-B", "-c", f"import {module}; {name}()"],
        cwd=SCENARIOS,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    lines = [*ended.stdout.splitlines(), f"exit {ended.returncode}"]
    if ended.stderr:
        lines.append("stderr " + ended.stderr.splitlines()[-1])
    return "\n".join(lines)


def transcripts(python: str, names: list[str]) -> dict[str, str]:
    """Every scenario's transcript. Two at a time: they mostly sleep."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(lambda name: transcript(python, name), names), strict=True))


def recorded() -> dict[str, str]:
    """The transcripts kept in the repository."""
    _, *sections = ("\n" + RECORDING.read_text(encoding="utf-8")).split("\n" + HEADING)
    pairs = [section.rstrip("\n").partition("\n") for section in sections]
    return {name: text for name, _, text in pairs}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", required=True, help="the interpreter to run them under")
    parser.add_argument("--check", action="store_true", help="compare with the recording")
    options = parser.parse_args()
    python = shutil.which(options.python)
    if python is None:
        parser.error(f"{options.python} is no program")
    if not (options.check or is_python27(python)):
        parser.error(f"{options.python} is no Python 2.7: it would record itself as the oracle")
    fresh = transcripts(python, scenario_names())
    text = "".join(f"{HEADING}{name}\n{lines}\n" for name, lines in fresh.items())
    if not options.check:
        RECORDING.write_text(text, encoding="utf-8")
        return 0
    kept = RECORDING.read_text(encoding="utf-8")
    difference = difflib.unified_diff(kept.splitlines(), text.splitlines(), "recorded", "fresh")
    sys.stdout.writelines(line + "\n" for line in difference)
    return int(kept != text)


if __name__ == "__main__":
    sys.exit(main())
