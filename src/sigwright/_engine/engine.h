/* The engine's Python side: the handler table and what every file shares.
 * Context: the main thread, with the GIL, unless a function says otherwise.
 * Callers: every file that includes Python.h. */
#ifndef SIGWRIGHT_ENGINE_H
#define SIGWRIGHT_ENGINE_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include "arrival.h"

struct engine {
    bool open;          /* the doors are there: arrivals can reach the main thread */
    bool closed;        /* the interpreter is ending: everything goes to the stdlib's module */
    bool wiped_on_fork; /* the kernel wipes the inbox in a child; otherwise our hook does */
    bool in_tracer; /* deliver nothing meanwhile: the tracer would swallow what a handler raises */
    uint64_t simulated_in_tracer; /* simulated meanwhile: called when the tracer is done */
    int depth;                    /* handlers that run inside one another now */
    uint64_t deliveries;          /* of all signals, ever: pause() asks whether there was one */
    PyObject *tracer;             /* NULL: none */

    /* What signal() set, by number: SIG_DFL, SIG_IGN, a callable, or None (not set from Python). */
    PyObject *handlers[SIGNALS];
    PyObject *numbers[SIGNALS]; /* plain ints, what handlers are called with */
    PyObject *members[SIGNALS]; /* Signals.SIGHUP, …; the plain int where there is no member */

    /* The stdlib's own objects, so that `is`, isinstance and pickles agree with other code. */
    PyObject *sig_dfl, *sig_ign, *default_int_handler;
    PyObject *itimer_error, *struct_siginfo;
    PyObject *stdlib; /* the module _signal */
    PyObject *dispatcher;
};

extern struct engine engine;

/* Takes over `value`, and lets go of the old one when the new one is in its place. */
static inline void replace_reference(PyObject **place, PyObject *value) {
    PyObject *old = *place;
    *place = value;
    Py_XDECREF(old);
}

/* arguments.c */
bool parse_int(PyObject *object, int *value);
bool in_range(int signum);
bool parse_signal_number(PyObject *object, int *signum);
bool parse_seconds(PyObject *object, int64_t *nanoseconds);
bool take_arguments(const char *function, const char *const *names, int count,
                    PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **values);

/* door.c */
bool arrivals_end(void);
bool door_open(void);
bool door_make_room(uint64_t asked);
uint64_t door_hidden(void);
void door_need_timer(void);
void door_share(int signum);
void door_quiet(void);
void door_need_dump(void);
void door_after_fork(void);
void door_close(void);

/* module.c */
bool engine_open(void);

/* delivery.c */
void delivery_after_fork(bool other_thread);
void ring_if_work(void);

/* dispositions.c */
bool require_main_thread(const char *function);
void dispositions_read(void);
bool dispositions_adopt(void);
void dispositions_hand_over(void);
void dispositions_let_go(void);
bool set_stdlib_handler(int signum, PyObject *handler);

/* wakeup.c */
void report_wakeup_failures(void);
void report_unraisable(const char *raw_line, const char *message, unsigned long message_since);
bool wakeup_take_over(bool at_import, bool *in_use);
void wakeup_hand_over(void);
PyObject *set_zero_wakeup_fd(PyObject *module, PyObject *number);

/* Each file's functions, added by module.c. */
extern PyMethodDef delivery_methods[], dispositions_methods[], itimers_methods[], masks_methods[],
    sending_methods[], waiting_methods[], wakeup_methods[];
extern PyMethodDef dispatcher_method;

#define FUNCTION(function) ((PyCFunction)(void (*)(void))(function))

#endif
