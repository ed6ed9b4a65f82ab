"""What `sigwright run` does inside the interpreter that it starts, before the program.

The command puts its options into SIGWRIGHT_RUN and becomes `python PROGRAM ARGS`;
`sigwright.pth`, which `site` reads in every interpreter, imports this module when the variable
is set. So the program runs as python itself runs it: `__main__`, `sys.argv`, `sys.path[0]`,
`sys.flags`, tracebacks, exit status and death by SIGINT need no imitation.

Roads not taken: runpy in the command's own process (its frames show in every traceback, the
interpreter's flags are its own, click is in `sys.modules`, and dying by SIGINT would have to be
acted out); a `sitecustomize` put on PYTHONPATH (it hides the user's own, and changes the
environment and `sys.path` of everything below). From 3.18 on, `site` wants a `.start` file
instead of a `.pth` with an import line (PEP 829); it would import us in every interpreter, so
that one waits until it is needed.

What remains different for the program: the modules that sigwright imports (`signal`, `enum` and
the like) are in `sys.modules` before its first line.
"""

import os

import sigwright
from sigwright import _engine

VARIABLE = "SIGWRIGHT_RUN"
"""Comma-separated: "standin" always, then "trace" and "children" as asked for."""


def _start() -> None:
    options = os.environ.get(VARIABLE, "").split(",")
    # A subinterpreter reads the .pth files again, and has nothing to stand in with.
    if "standin" not in options or not _engine.main_interpreter:
        return
    children = "children" in options
    if not children:
        # The program, and whatever it starts, sees the environment that it would have had.
        del os.environ[VARIABLE]
    sigwright.install()
    if "trace" in options:
        from sigwright import _trace

        _trace.start(children=children)


_start()
