/* Sets of signals: between Python's iterables of numbers and the kernel's masks.
 * Context: any thread, with the GIL.
 * Callers: actions.c, masks.c, sections.c, waiting.c. */
#ifndef SIGWRIGHT_SETS_H
#define SIGWRIGHT_SETS_H

#include "engine.h"

/* The doors are taken out of what is read (they move first, where they stand in the way of somebody
 * who names them), and out of what is shown. */
bool parse_set(PyObject *numbers, sigset_t *set);
PyObject *set_to_python(const sigset_t *set);

#endif
