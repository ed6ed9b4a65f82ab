#!/usr/bin/env python3
"""Run the tests on Python 3.14 and 3.15, with the abi3 file that Python 3.11 built.

    python3 tests/sid/run.py [--python VERSION]... [--wheel FILE] [--root FOLDER]

The Pythons are Debian sid's, in the folder that make_root.py makes (and that this program makes
when it is not there yet). In it, for each of them: the project's own tests, and CPython's
test_signal with sigwright standing in (../cpython/run.py, which compares with the stock module).
Where the folder cannot be had, one line says why, and the exit status is 0.

The tests' own requirements are downloaded outside, for the Python that will use them; inside
there is no need of a network. A copy of the checkout is at /srv, and /tmp is empty and in
memory; both, /proc, /dev and all processes end with the run. Python is never the first process
of its namespace, as the kernel shields that one from every signal that it has no handler for.

The last line is `N passed, N failed`, counting the runs; the exit status is 1 when one failed.
"""

import argparse
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from make_root import CHECKOUT, VERSIONS, CannotBeHadError, default_folder, make_root

MINUTES = 15


def build_wheel(folder: Path) -> Path:
    """The wheel as a release builds it: with 3.11, the oldest Python that it is for."""
    python = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if python is None:
        sys.exit("no python3.11 on PATH to build the wheel with: give one with --wheel")
    subprocess.run(
        [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, CHECKOUT],
        check=True,
    )
    return next(folder.glob("sigwright-*.whl"))


def download_requirements(wheel: Path, version: str, folder: Path) -> None:
    """What the wheel's extra "test" asks for, as that Python needs it, and the wheel itself."""
    machine = platform.machine()
    platforms = [f"{tag}_{machine}" for tag in ("linux", "manylinux2014", "manylinux_2_28")]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"),
            *("--python-version", version, "--implementation", "cp"),
            *(f"--platform={platform_}" for platform_ in platforms),
            *("--dest", str(folder), f"{wheel}[test]"),
        ],
        check=True,
    )


INSIDE = """
mount --types proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount --types tmpfs tmpfs "$1/tmp"
mount --bind "$2" "$1/srv"
chroot "$1" env -i PATH=/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 sh -euc "$3"
exit $?  # so that the shell stays, as the first process
"""


def run_inside(root: Path, work: Path, commands: str) -> int:
    """Run shell commands in the root, with `work` as its /srv, and leave no trace in it."""
    try:
        return subprocess.run(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                *("sh", "-euc", INSIDE, "sh", root, work, commands),
            ],
            stdin=subprocess.DEVNULL,
            timeout=MINUTES * 60,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"not done after {MINUTES} minutes")
        return 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="The rest is at the top of this file.",
    )
    parser.add_argument("--wheel", type=Path, help="the abi3 wheel; default: built from here")
    parser.add_argument("--root", type=Path, default=default_folder(), help="make_root.py's folder")
    parser.add_argument("--python", action="append", choices=VERSIONS, help="default: all of them")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    arguments = parser.parse_args()
    try:
        root = make_root(arguments.root)
    except CannotBeHadError as reason:
        print(f"Debian sid cannot be had here, so nothing ran on it: {reason}")
        return 0
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        work.chmod(0o755)  # the tests may become somebody else than root
        wheel = arguments.wheel or build_wheel(work)
        rubbish = shutil.ignore_patterns(".*", "build", "build-*", "dist", "_build", "__pycache__")
        shutil.copytree(CHECKOUT, work / "checkout", ignore=rubbish)
        for version in arguments.python or VERSIONS:
            python = f"python{version}"
            download_requirements(wheel.resolve(), version, work / python)
            here = f"/srv/{python}/{wheel.name}"
            print(f"== the project's tests on sid's {python}", flush=True)
            outcomes[f"the project's tests, {python}"] = run_inside(
                root,
                work,
                f"""
                {python} -m venv /tmp/venv
                /tmp/venv/bin/pip install --quiet --no-index --find-links /srv/{python} {here}[test]
                cd /srv/checkout
                /tmp/venv/bin/python -m pytest -p no:cacheprovider {shlex.join(arguments.pytest)}
            """,
            )
            print(f"== CPython's test_signal on sid's {python}", flush=True)
            outcomes[f"test_signal, {python}"] = run_inside(
                root,
                work,
                f"""
                cd /tmp
                {python} /srv/checkout/tests/cpython/run.py --wheel {here} test_signal
            """,
            )
    print()
    for what, status in outcomes.items():
        print(f"{what}: {f'FAILED, status {status}' if status else 'passed'}")
    failed = sum(map(bool, outcomes.values()))
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
