"""The command `sigwright`. It needs click, which the extra `cli` brings."""

import sys

from sigwright import SIG_DFL, SIGINT, default_int_handler, getsignal, signal

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point of the script `sigwright`."""
    # Ctrl+C ends a command as it ends any other, by SIGINT and without a traceback; above all
    # in the moment before `run` has turned into the program. An ignored one stays ignored.
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)
    try:
        import click
    except ModuleNotFoundError:
        sys.exit("sigwright: the command line needs click; install sigwright[cli]")

    from .run import run

    group = click.Group(
        "sigwright",
        commands=[run],
        help="The signal module for Python on an engine of its own.",
    )
    click.version_option(package_name="sigwright")(group)
    group(prog_name="sigwright")
