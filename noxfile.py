"""Every chore of the project, as one command each.

`nox -l` lists them, `nox` runs the quick ones, `nox -s NAME` runs one; whatever follows `--` is
handed to the chore's own program (`nox -s tests-3.12 -- -k fork`). `.ci/run` is the gate: it runs
these same sessions, with a time limit on each.

Sessions install what they use from the extras in `pyproject.toml`, so versions live in one place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13")
HERE = "{}.{}".format(*sys.version_info)
ROOT = Path(__file__).parent
PYTHON_CODE = ("src", "tests", "examples", "benchmarks", "docs", "noxfile.py")

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "typing", "warnings", f"tests-{HERE}", "docs"]
# A machine with one Python is enough to work on the project; `.ci/run` says which were missing.
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"


def _let_pyenv_show_its_pythons() -> None:
    """Make every Python that pyenv manages runnable as `pythonX.Y`.

    Its shims are on PATH under all names, but refuse to run versions that were not chosen.
    Asking for all of them, the current one first, leaves plain `python3` what it was.
    """
    if "PYENV_VERSION" in os.environ or shutil.which("pyenv") is None:
        return

    def pyenv(*args: str) -> list[str]:
        out = subprocess.run(["pyenv", *args], capture_output=True, text=True, check=False).stdout
        return [line for line in out.replace(":", "\n").split() if line]

    chosen = pyenv("version-name")
    others = [version for version in pyenv("versions", "--bare") if version not in chosen]
    os.environ["PYENV_VERSION"] = ":".join([*chosen, *others])


_let_pyenv_show_its_pythons()


def _wheel(session: nox.Session) -> Path:
    """Build the abi3 wheel, as a release is: with the oldest Python, whatever the session's is."""
    folder = Path(session.create_tmp()).resolve() / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    # By running it: a name on PATH may be a shim that refuses.
    oldest = next((name for name in (f"python{v}" for v in PYTHONS) if _runs(name)), sys.executable)
    session.run(oldest, "-m", "venv", str(folder / "venv"), external=True)
    python = str(folder / "venv" / "bin" / "python")
    wheel_command = ("-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT))
    session.run(python, *wheel_command, external=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _base_python(session: nox.Session) -> str:
    code = "import sys; print(sys._base_executable)"
    return str(session.run("python", "-c", code, silent=True)).strip()


def _runs(python: str) -> bool:
    return shutil.which(python) is not None and not subprocess.call([python, "-c", ""])


def _c_files() -> list[str]:
    sources = [*ROOT.glob("src/**/*.[ch]"), *ROOT.glob("tests/**/*.c")]
    return sorted(str(path.relative_to(ROOT)) for path in sources)


# --- reading the code ---------------------------------------------------------------------------


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff and clang-format: rules and layout of the Python and the C, nothing changed."""
    session.install(*_lint_tools("ruff", "clang-format"))
    code = [path for path in PYTHON_CODE if Path(path).exists()]
    session.run("ruff", "check", *session.posargs, *code)
    session.run("ruff", "format", "--check", *code)
    if c_files := _c_files():
        session.run("clang-format", "--dry-run", "-Werror", *c_files)


@nox.session
def format(session: nox.Session) -> None:
    """Write what `lint` would ask for, where a tool can."""
    session.install(*_lint_tools("ruff", "clang-format"))
    code = [path for path in PYTHON_CODE if Path(path).exists()]
    session.run("ruff", "check", "--fix-only", *code)
    session.run("ruff", "format", *code)
    if c_files := _c_files():
        session.run("clang-format", "-i", *c_files)


def _lint_tools(*names: str) -> list[str]:
    """The requirements of these tools from the extra `lint`, so that their versions stay there."""
    extra = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["lint"]
    return [line for line in extra if line.startswith(names)]


@nox.session
def typing(session: nox.Session) -> None:
    """Mypy, strict, on the package and the examples; pyright: every public name is typed."""
    # With the extra `nodejs` pyright brings its own Node.js; alone it would look for one.
    session.install(".[bench,cli,lint]", "pyright[nodejs]")  # bench: an example is for trio
    session.run("mypy", "--strict", "src/sigwright")
    # An example reads as its reader would write it, without annotations; its calls are checked all
    # the same. One at a time: each is a program of its own.
    parts = ("defs", "calls", "globals")
    lenient = ("--allow-incomplete-defs", *(f"--allow-untyped-{part}" for part in parts))
    for example in sorted(ROOT.glob("examples/*.py")):
        session.run("mypy", "--strict", *lenient, str(example.relative_to(ROOT)))
    # Exits with an error below 100 %. What a dependency leaves untyped is not ours to count.
    session.run("pyright", "--verifytypes", "sigwright", "--ignoreexternal")


@nox.session
def warnings(session: nox.Session) -> None:
    """Compile the C with -Wall -Wextra -Werror: gcc, and clang where there is one."""
    session.install("meson", "meson-python", "ninja")
    for compiler in ("gcc", "clang"):
        if shutil.which(compiler) is None:
            session.warn(f"no {compiler} here: its warnings were not asked for")
            continue
        build = Path(session.create_tmp()).resolve() / compiler
        shutil.rmtree(build, ignore_errors=True)
        options = ["-Dwarning_level=2", "-Dwerror=true", "-Dbuildtype=release"]
        session.run("meson", "setup", *options, str(build), env={"CC": compiler})
        session.run("meson", "compile", "-C", str(build))


# --- the tests ----------------------------------------------------------------------------------


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite against the installed package."""
    session.install(".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation and run every example in it; warnings are errors."""
    session.install(".[cli,docs]")
    output = Path(session.create_tmp()).resolve()
    for builder in ("html", "doctest"):
        session.run(
            *("python", "-m", "sphinx", "-W", "--keep-going", "-b", builder),
            *("-d", str(output / "doctrees"), "docs", str(output / builder)),
            *session.posargs,
        )
    session.log(f"the pages are in {output / 'html'}")


@nox.session(python=PYTHONS)
def cpython(session: nox.Session) -> None:
    """CPython's own signal tests, unmodified, with sigwright standing in."""
    session.run(
        *("python", "tests/cpython/run.py"),
        # The interpreter below the session's environment: the runner makes its own.
        *("--python", _base_python(session), "--wheel", str(_wheel(session))),
        *session.posargs,
    )


@nox.session
@nox.parametrize("python_in_sid", ["3.14", "3.15"], ids=["3.14", "3.15"])
def sid(session: nox.Session, python_in_sid: str) -> None:
    """The same abi3 file on Debian sid's Python 3.14 and 3.15 (root, debootstrap, network)."""
    wheel = str(_wheel(session))
    session.run(
        *("python", "tests/sid/run.py", "--python", python_in_sid, "--wheel", wheel),
        *session.posargs,
    )


@nox.session
def oracle(session: nox.Session) -> None:
    """Record the oracle's transcripts again, from the real Python 2.7 that is on PATH."""
    arguments = session.posargs or ("--python", "python2.7")
    session.run("python", "tests/oracle/record.py", *arguments)


@nox.session
def storm(session: nox.Session) -> None:
    """The long storms: ten million signals each, every one accounted for; and limits' races.

    Minutes, not seconds. `-- listeners --signals 1000000`: one of them, and shorter.
    """
    session.install(".[test,bench]")  # bench: a loop of the listeners' storm is uvloop's
    signals, blocks = ("--signals", "10000000"), ("--blocks", "100000")
    storms = {"run": signals, "listeners": signals, "limits": blocks}
    chosen = [name for name in storms if name in session.posargs] or storms
    arguments = [word for word in session.posargs if word not in storms]
    for name in chosen:
        session.run("python", f"tests/storm/{name}.py", *(arguments or storms[name]))


@nox.session
def sanitizers(session: nox.Session) -> None:
    """The engine under ASan and UBSan, and its lock-free parts under TSan."""
    session.install("meson", "meson-python", "ninja", ".[test]")
    session.run("python", "tests/sanitizers/run.py", *session.posargs)


@nox.session(python=("3.11", "3.13"))
def e2e(session: nox.Session) -> None:
    """Real programs under `sigwright run --children`: servers, workers, pools, a plugin."""
    session.install(".[e2e]")
    session.run("python", "-m", "pytest", "tests/e2e", *session.posargs)


@nox.session
def windows(session: nox.Session) -> None:
    """The Windows parts, compiled with mingw-w64 and run under Wine."""
    session.install("pytest")
    session.run("python", "-m", "pytest", "tests/windows", *session.posargs)


@nox.session(python=False)
def readme(session: nox.Session) -> None:
    """The README's two commands as it has them, each in a fresh environment (`-- pytest`: one)."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^ *(python3 -m pip install '\.\[\w+\]' && .+)$", text, re.MULTILINE)
    if len(commands) != 2:
        session.error(f"README.md should have its two commands, on a line each: {commands}")
    with tempfile.TemporaryDirectory() as folder:
        for number, command in enumerate(commands):
            if not all(word in command for word in session.posargs):
                continue
            venv = Path(folder) / str(number)
            session.run("python3", "-m", "venv", str(venv))
            # As after `activate`; the user's own Python and PATH otherwise.
            env = {"PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
            if "pytest" in command:
                session.run("bash", "-c", command, env=env)
                continue
            # The example ends as the seed's does, by the handler's exception: Python's status 1.
            output = session.run("bash", "-c", command, env=env, silent=True, success_codes=[1])
            session.log(output)
            if "Couldn't open device!" not in str(output) or "SIGALRM" not in str(output):
                session.error("the trace does not show the alarm and what its handler raised")


# --- the numbers --------------------------------------------------------------------------------


@nox.session(python=("3.11", "3.13"))
def bench(session: nox.Session) -> None:
    """The benchmarks beside the stdlib's `signal`, interleaved in one run."""
    session.install(".[bench]")
    session.run("python", "benchmarks/run.py", *session.posargs)
