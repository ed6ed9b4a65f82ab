#!/usr/bin/env python3
"""Make a Debian sid in a folder, with Python 3.14 and 3.15 and CPython's own tests.

    python3 tests/sid/make_root.py [FOLDER]

The folder is kept, and has to be outside the checkout: FOLDER, else $SIGWRIGHT_SID_ROOT, else
sigwright/sid in the user's cache folder. It takes a minute or two, root, debootstrap, and a Debian
mirror (debootstrap's own choice, or $SIGWRIGHT_DEBIAN_MIRROR). A complete one is left alone;
to have a newer sid, remove the folder. Where it cannot be had, one line says why, and the exit
status is still 0: this is how the project runs on Pythons that a machine does not have, and not
every machine can do it.

Nothing is mounted outside a mount namespace of its own, so nothing stays mounted, whatever
happens; and the folder gets its name last, so that half a root is never taken for one.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.14", "3.15")
PACKAGES = [
    *(f"{package}{version}" for version in VERSIONS for package in ("python", "libpython")),
    *(f"python{version}-venv" for version in VERSIONS),
    *(f"libpython{version}-testsuite" for version in VERSIONS),
    # Some of the project's tests compile a few lines of C.
    "gcc",
    "libc6-dev",
]
CHECKOUT = Path(__file__).resolve().parent.parent.parent
MINUTES = 20


class CannotBeHadError(Exception):
    """Why there is no sid on this machine, in one line."""


def default_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("SIGWRIGHT_SID_ROOT") or cache / "sigwright" / "sid")


def make_root(folder: Path) -> Path:
    """Make the root unless it is there already; raise CannotBeHadError where that is so."""
    folder = folder.resolve()
    if folder.is_relative_to(CHECKOUT):
        sys.exit(f"{folder} is inside the checkout")
    if os.geteuid() != 0:
        raise CannotBeHadError("chroot needs root")
    if not works("unshare", "--mount", "--pid", "--fork", "true"):
        raise CannotBeHadError("this machine does not let us unshare a mount namespace")
    if is_complete(folder):
        return folder
    if folder.exists():
        sys.exit(f"{folder} is there, and was not made by this program: remove it, or name another")
    if shutil.which("debootstrap") is None:
        raise CannotBeHadError("debootstrap is not installed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the chores of both Pythons may begin together
        if not is_complete(folder):
            bootstrap(folder)
    return folder


def bootstrap(folder: Path) -> None:
    unfinished = folder.with_name(folder.name + ".unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    mirror = os.environ.get("SIGWRIGHT_DEBIAN_MIRROR")
    run_alone(
        *("env", "-u", "TMPDIR", "debootstrap", "--variant=minbase", "sid", str(unfinished)),
        *([mirror] if mirror else []),
    )
    (unfinished / "etc/apt/apt.conf.d/90sigwright").write_text(
        # A mirror of sid that stands still, as a snapshot does, has a Release file past its date.
        'Acquire::Check-Valid-Until "false";\nAPT::Install-Recommends "false";\n'
    )
    for command in (("update",), ("install", "--yes", *PACKAGES), ("clean",)):
        run_alone(
            # A TMPDIR of ours (nox sets one) does not exist in there, and dpkg would fail for it.
            *("chroot", str(unfinished), "env", "-u", "TMPDIR", "DEBIAN_FRONTEND=noninteractive"),
            *("LC_ALL=C.UTF-8", "apt-get", "--quiet", *command),
        )
    marker(unfinished).write_text("\n".join(PACKAGES))
    unfinished.rename(folder)


def marker(folder: Path) -> Path:
    return folder / ".made-for-sigwright"


def is_complete(folder: Path) -> bool:
    """Whether the root was made, to the end, with today's list of packages."""
    return marker(folder).exists() and marker(folder).read_text() == "\n".join(PACKAGES)


def works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run_alone(*command: str) -> None:
    """Run a command whose mounts and processes end with it."""
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=MINUTES * 60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotBeHadError(f"{command[0]} took more than {MINUTES} minutes") from None
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.startswith(("E:", "W:"))]
        last = lines[-1] if lines else done.stdout.strip().rpartition("\n")[2]
        raise CannotBeHadError(f"{' '.join(command[:1])} failed: {last}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="The rest is at the top of this file.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=default_folder())
    folder = parser.parse_args().folder
    try:
        print(f"Debian sid is in {make_root(folder)}")
    except CannotBeHadError as reason:
        print(f"Debian sid cannot be had here: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
