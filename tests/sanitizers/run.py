"""The engine under sanitizers: `python tests/sanitizers/run.py`. What follows goes to pytest.

AddressSanitizer and UndefinedBehaviorSanitizer: the package is built with them into an environment
that is thrown away, and tests run in it. ThreadSanitizer: the lock-free parts alone, in a C
harness; under it a Python process would not do, since it delivers signals late and merges queued
ones, which is just what is to be tested.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
ENGINE = ROOT / "src" / "sigwright" / "_engine"
COMPILER = shlex.split(os.environ.get("CC", "cc"))

SUITES = [
    # The engine where it is hardest pressed, then every function with every kind of bad argument,
    # then section 17.4 sentence by sentence.
    "test_storm.py",
    "test_crashes.py",
    "test_wrong_thread.py",
    "test_fork.py",
    "test_consumers_at_the_edges.py",
    "test_consumers_and_strangers.py",
    "test_listeners.py",
    "test_added_handlers.py",
    "test_blocked.py",
    "test_sigqueue.py",
    "test_sigsuspend.py",
    "test_run_default.py",
    "test_bad_input.py",
    "test_parity.py",
    "test_standin.py",
    "test_timers.py",
    "test_deferred.py",
    "test_force_exit.py",
    "test_run.py",
    "seed",
    "oracle",
]

# After the tests. Limits have only this: their tests fork beside the thread that interrupts
# workers, and the sanitizer's own locks do not stand that.
STORM_SIGNALS = 200_000  # to listeners
STORM_BLOCKS = 3_000  # under limits, in the main thread and in workers

ASAN_OPTIONS = {
    # The interpreter itself leaves memory to the system at its end.
    "detect_leaks": "0",
    # Real faults belong to who is tested, not to the sanitizer's own handler.
    "handle_segv": "0",
    "handle_sigbus": "0",
    "handle_sigfpe": "0",
    "handle_sigill": "0",
    "handle_abort": "0",
    "allow_user_segv_handler": "1",
    "use_sigaltstack": "0",
    "abort_on_error": "0",
    "exitcode": "99",
}


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:4.0f} s] {text}", flush=True)


STARTED = time.monotonic()


def call(*command: object, **keywords) -> int:
    words = [str(word) for word in command]
    say(shlex.join(words))
    return subprocess.run(words, **keywords).returncode


def build(folder: Path) -> Path:
    """An environment with the package and its sanitizers; its Python."""
    environment = folder / "environment"
    call(sys.executable, "-m", "venv", "--without-pip", environment, check=True)
    python = environment / "bin" / "python"
    # pytest and the like come from the environment that we run in; of two sigwrights the new one
    # wins, being found first.
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(site, "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = {
        "buildtype": "debugoptimized",
        "b_sanitize": "address,undefined",
        "b_lundef": "false",  # the sanitizers' run-time libraries come with the process
        "c_args": "-fno-sanitize-recover=all -fno-omit-frame-pointer",
    }
    install = [sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps"]
    if has_build_tools():
        install.append("--no-build-isolation")
    settings = [f"-Csetup-args=-D{name}={value}" for name, value in options.items()]
    call(*install, "--ignore-installed", *settings, ROOT, check=True)
    return python


def has_build_tools() -> bool:
    programs = shutil.which("meson") is not None and shutil.which("ninja") is not None
    return programs and importlib.util.find_spec("mesonpy") is not None


def runtime_library(name: str) -> str:
    """The sanitizer's library, to be loaded before everything else."""
    for candidate in (f"lib{name}.so", f"libclang_rt.{name}-{os.uname().machine}.so"):
        path = subprocess.run(
            [*COMPILER, f"-print-file-name={candidate}"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        if os.path.isabs(path) and os.path.exists(path):
            return os.path.realpath(path)
    sys.exit(f"{COMPILER[0]} has no run-time library of {name}")


def run_tests(python: Path, folder: Path, arguments: list[str]) -> int:
    environment = dict(
        os.environ,
        LD_PRELOAD=runtime_library("asan"),
        ASAN_OPTIONS=":".join(f"{name}={value}" for name, value in ASAN_OPTIONS.items()),
        UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1",
        PYTHONMALLOC="malloc",  # each object its own block: what is freed is known to be
    )
    prove(python, folder, environment)
    suites = [TESTS / suite for suite in SUITES]
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        ROOT / "pyproject.toml",
    ]
    # A sanitizer's report is in the stderr of some child: tests that expect a death by a signal see
    # exit status 99 instead, and fail.
    status = call(*command, *(arguments or suites), env=environment, cwd=folder)
    if not arguments:
        # The short storms are among the tests. Listeners come and go by chance: give it some time.
        for storm, option, count in (
            ("listeners.py", "--signals", STORM_SIGNALS),
            ("limits.py", "--blocks", STORM_BLOCKS),
        ):
            program = TESTS / "storm" / storm
            status |= call(python, program, option, count, env=environment, cwd=folder)
    return status


def prove(python: Path, folder: Path, environment: dict[str, str]) -> None:
    """The engine that is imported is the one with sanitizers, and they see what they should."""
    where = "import sigwright._engine as engine; print(engine.__file__)"
    engine = subprocess.run(
        [python, "-c", where], check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()
    assert engine.startswith(str(folder)), engine
    binary = Path(engine).read_bytes()
    assert b"__asan_report_store8" in binary and b"__ubsan_handle" in binary
    overflow = "import ctypes; libc = ctypes.CDLL(None); libc.malloc.restype = ctypes.c_void_p; "
    overflow += "libc.memset(ctypes.c_void_p(libc.malloc(8)), 0, 64)"
    seen = subprocess.run([python, "-c", overflow], capture_output=True, text=True, env=environment)
    assert seen.returncode == 99 and "heap-buffer-overflow" in seen.stderr, seen


def run_harness(folder: Path) -> int:
    program = folder / "inbox_harness"
    sources = [Path(__file__).with_name("inbox_harness.c"), ENGINE / "inbox.c"]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-pthread", "-g", "-O1", f"-I{ENGINE}"]
    status = 0
    for sanitizer, records in (("thread", 2_000_000), ("address,undefined", 2_000_000)):
        built = call(*COMPILER, *flags, f"-fsanitize={sanitizer}", *sources, "-o", program)
        status |= built or call(program, records, 120)
    return status


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        harness = run_harness(folder)
        tests = run_tests(build(folder), folder, sys.argv[1:])
    say(f"harness: exit status {harness}; tests: exit status {tests}")
    return 1 if harness or tests else 0


if __name__ == "__main__":
    sys.exit(main())
