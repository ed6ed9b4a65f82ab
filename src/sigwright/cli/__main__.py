"""`python -m sigwright.cli`, where the script `sigwright` is not on PATH."""

from . import main

main()
