"""`sigwright run`: turn into `python PROGRAM ARGS`, with SIGWRIGHT_RUN set.

What happens then, why it is done that way and which other ways there are: `_startup.py`.
"""

import os
import subprocess
import sys
from itertools import takewhile

import click

from sigwright._startup import VARIABLE

_PROBE = "import sys; print('sigwright._startup' in sys.modules)"


class _Run(click.Command):
    """Options of ours are long ones; all from the first other word on belongs to Python.

    click by itself would go on to look for options after `-m MODULE`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours = list(takewhile(lambda word: word.startswith("--") and word != "--", args))
        return super().parse_args(ctx, [*ours, "--", *args[len(ours) :]])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[--trace] [--children]", "SCRIPT | -m MODULE | -c CODE", "[ARGS]..."]


@click.command(cls=_Run)
@click.option(
    "--trace",
    is_flag=True,
    help="Write a line to stderr for each signal that arrives (when, which, who sent it, on which "
    "thread, how soon its handler began, what that raised) and a summary at exit.",
)
@click.option(
    "--children",
    is_flag=True,
    help="Also in the Python processes that the program starts or forks, by the environment "
    f"variable {VARIABLE}.",
)
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def run(trace: bool, children: bool, program: tuple[str, ...]) -> None:
    """Run a Python program, unchanged, with sigwright in the place of `signal`.

    What follows the options is what would follow `python`: the program and its arguments, and
    before it Python's own short options, as in `sigwright run -X dev -m app`. Arguments,
    environment, tracebacks, exit status and death by a signal are as `python` gives them.
    """
    wanted = {"trace": trace, "children": children}
    # Under another `sigwright run --children`, its options hold here too.
    inherited = os.environ.get(VARIABLE, "").split(",")
    options = ["standin", *(name for name in wanted if wanted[name] or name in inherited)]
    environment = {**os.environ, VARIABLE: ",".join(options)}
    _check(_interpreter_options(program), environment)
    os.execve(sys.executable, [sys.executable, *program], environment)


def _interpreter_options(words: tuple[str, ...]) -> list[str]:
    """Those of `python WORDS` that come before -c CODE, -m MODULE or the script."""
    options: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word in ("-", "--"):
            break
        for position, letter in enumerate(word[1:], 1):
            if letter in "cm":  # the program begins here, maybe after a cluster, as in -Om app
                return [*options, word[:position]] if position > 1 else options
            if letter in "WX":  # with a value: the rest of the word, or the next one
                options += [word] if word[position + 1 :] else [word, next(rest, "")]
                break
        else:
            options.append(word)
    return options


def _check(options: list[str], environment: dict[str, str]) -> None:
    """Refuse rather than run without.

    The .pth file is not read under -S, and is not there in an editable install. Only an
    interpreter started in just this way can tell; it costs its start-up time, tens of
    milliseconds, and there is no way to ask the program's own process.
    """
    quiet = {**environment, VARIABLE: "standin"}
    command = [sys.executable, *options, "-c", _PROBE]
    probe = subprocess.run(
        command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if probe.stdout.split()[-1:] == ["True"]:
        return
    reason = next(iter(probe.stderr.strip().splitlines()), "")
    raise click.ClickException(
        f"{sys.executable} does not read sigwright.pth, so sigwright would not stand in: it needs "
        "a regular install (not an editable one), and site (no -S, no -I for a user install)."
        + (f" It said: {reason}" if reason else "")
    )
