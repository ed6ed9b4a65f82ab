"""How the documentation is built: `nox -s docs`. Warnings are errors, and every example runs."""

import inspect
from importlib import metadata

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import sigwright

project = "sigwright"
author = "The sigwright authors"
copyright = "2026, The sigwright authors"
try:
    release = metadata.version("sigwright")
except metadata.PackageNotFoundError:  # imported from a folder, not installed
    release = "unreleased"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "sigwright"

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

# Our own names must resolve. Names of Python's own would need its inventory from the network.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!sigwright).*")]

# Each page leaves the process as it found it.
doctest_global_setup = """
import sigwright as _sigwright
_handlers = {number: _sigwright.getsignal(number) for number in _sigwright.valid_signals()}
"""
doctest_global_cleanup = """
_sigwright.setitimer(_sigwright.ITIMER_REAL, 0)
for _consumer in _sigwright._engine.consumers():
    _consumer.close(discard=True)
for _number, _handler in _handlers.items():
    if _handler is not None and _sigwright.getsignal(_number) is not _handler:
        _sigwright.signal(_number, _handler)
"""


def everything_is_documented(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, which is an error, of each public function that has no entry in the reference."""
    documented = {name for name, *_ in env.get_domain("py").get_objects()}
    for name, value in vars(sigwright).items():
        if name.startswith("_") or not callable(value) or inspect.isclass(value):
            continue
        if value is sigwright.default_int_handler:  # the stdlib's own object
            continue
        if f"sigwright.{name}" not in documented:
            logging.getLogger(__name__).warning("sigwright.%s is not in reference.md", name)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("env-check-consistency", everything_is_documented)
