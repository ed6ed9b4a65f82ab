/* The engine's Python side: the handler table and what every file shares.
 * Context: the main thread, with the GIL, unless a function says otherwise.
 * Callers: every file that includes Python.h. */
#ifndef SIGWRIGHT_ENGINE_H
#define SIGWRIGHT_ENGINE_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arrival.h"

struct engine {
    bool open;          /* the doors are there: arrivals can reach the main thread */
    bool closing;       /* no consumer can be opened any more */
    bool closed;        /* the interpreter is ending: everything goes to the stdlib's module */
    bool wiped_on_fork; /* the kernel wipes the inbox in a child; otherwise our hook does */
    bool in_tracer; /* deliver nothing meanwhile: the tracer would swallow what a handler raises */
    bool entering;  /* an __enter__ of ours looks for signals itself */
    int depth;      /* handlers that run inside one another now */
    PyObject *raised;    /* the last that a handler raised while a timer's callback ran; or NULL */
    uint64_t deliveries; /* of all signals, ever: pause() asks whether there was one */
    PyObject *tracer;    /* NULL: none */

    /* What signal() set, by number: SIG_DFL, SIG_IGN, a callable, or None (not set from Python). */
    PyObject *handlers[SIGNALS];
    struct action {
        bool posix;     /* set by sigaction(): called as POSIX says, not as signal() always did */
        uint32_t flags; /* SA_* */
        uint64_t mask;  /* handlers of these wait while this one runs */
    } actions[SIGNALS];
    uint64_t served; /* signals whose handler is a Python function that arrivals come to */
    uint64_t
        give_back;   /* signals whose action goes back to arrivals.previous with their audience */
    uint64_t reset;  /* signals that SA_RESETHAND has set back to the default action */
    uint64_t untold; /* signals whose handler CPython's own table does not show yet */
    PyObject *numbers[SIGNALS]; /* plain ints, what handlers are called with */
    PyObject *members[SIGNALS]; /* Signals.SIGHUP, …; the plain int where there is no member */

    /* The stdlib's own objects, so that `is`, isinstance and pickles agree with other code. */
    PyObject *sig_dfl, *sig_ign, *default_int_handler;
    PyObject *itimer_error, *struct_siginfo;
    PyObject *stdlib; /* the module _signal */
    PyObject *dispatcher;
};

extern struct engine engine;

/* Signals that the processor raises: a real one cannot be answered by Python. */
#define FAULT_SIGNALS                                                                              \
    (signal_bit(SIGSEGV) | signal_bit(SIGBUS) | signal_bit(SIGFPE) | signal_bit(SIGILL))

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
bool parse_positive_seconds(PyObject *object, const char *what, int64_t *nanoseconds);
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
void settle_after_fork(void);

/* delivery.c */
PyObject *latency_list(const uint64_t buckets[LATENCY_BUCKETS]);
void delivery_after_fork(bool other_thread);
void ring_if_work(void);

/* dispositions.c */
bool require_main_thread(const char *function);
enum kind { DEFAULT, IGNORE, INTERRUPT, CALLABLE, FOREIGN };
enum kind kind_of(PyObject *handler);
PyObject *read_handler(PyObject *handler);
PyObject *set_disposition(int signum, PyObject *handler, struct action action);
bool reset_disposition(int signum);
void dispositions_read(void);
bool dispositions_adopt(void);
void dispositions_hand_over(void);
void dispositions_let_go(void);
bool set_stdlib_handler(int signum, PyObject *handler);
PyObject *stdlib_handler(int signum);

/* taking.c */
bool disposition_take(int signum, bool first);
bool disposition_refresh(int signum);
void disposition_give_back(int signum);
void disposition_left(int signum);
bool disposition_keep(int signum);

/* info.c */
bool info_add_type(PyObject *module);
PyObject *new_info(void);
void fill_info(PyObject *info, int signum, const struct arrival_record *record);
PyObject *make_info(int signum, const struct arrival_record *record);

/* consumers.c */
bool consumers_add_type(PyObject *module);
void consumers_close_all(void);
void consumers_after_fork(bool wiped_on_fork);
void note_answer(int signum, uint64_t monotonic_ns);
bool parse_signals(PyObject *numbers, uint64_t *signals);
void send_again(int signum, const struct arrival_record *record);
void note_unanswered(int signum, const struct arrival_record *record);

/* added_handlers.c */
PyObject *main_handler_oldest(uint64_t may_run, int *signum, uint64_t *monotonic_ns);
PyObject *main_handler_take(PyObject *registration, PyObject **handler);

/* clock.c */
bool clock_deliver(PyObject *frame);
void clock_start(void);
void clock_after_fork(void);
void clock_move(void);
void clock_close(void);

/* context.c */
struct context_functions {
    PyObject *(*enter)(PyObject *, PyObject *);
    PyObject *(*exit)(PyObject *, PyObject *const *, Py_ssize_t);
    const char *module; /* whose _decorate() wraps functions */
};
PyObject *context_call(PyObject *object, PyObject *args, PyObject *kwargs,
                       const struct context_functions *functions);
bool add_context_methods(PyObject *type);

/* frames.c */
PyObject *set_enter_context(PyObject *module, PyObject *code);

/* control.h's files, to module.c and delivery.c */
bool deferral_add_type(PyObject *module);
uint64_t deferral_held_loosely(PyObject *current);
bool limits_add_types(PyObject *module);
bool timers_add_type(PyObject *module);
bool timers_are_running(void);
void timers_drop_all(void);

/* limits.c */
bool limits_interrupt_here(void);
void limits_look_later(void);

/* places.c */
bool is_entering(PyObject *frame);
PyObject *frame_in_hole(PyObject *frame);
bool is_in_block(PyObject *code, long offset);
bool has_holes(PyObject *code);
bool next_look_may_lose_it(PyObject *frame);

/* putting_off.c */
bool put_off_if_in_hole(PyObject *frame);
bool put_off_limits(PyObject *frame, unsigned long thread, bool entering);
void put_off_forget(unsigned long thread);

/* sections.c */
bool add_blocked_section(PyObject *module);

/* force_exit.c */
void watch_after_fork(void);
void watch_close(void);

/* wakeup.c */
void report_wakeup_failures(void);
void report_unraisable(const char *raw_line, const char *message, unsigned long message_since);
bool wakeup_take_over(bool at_import, bool *in_use);
void wakeup_hand_over(void);
PyObject *set_zero_wakeup_fd(PyObject *module, PyObject *number);

/* codes.c */
struct constant {
    const char *name;
    long value;
};
#define CONSTANT(name) {#name, name}
extern const struct constant code_constants[]; /* ends with a NULL name */

/* Each file's functions, added by module.c. */
extern PyMethodDef actions_methods[], added_handlers_methods[], consumers_methods[],
    delivery_methods[], dispositions_methods[], info_methods[], itimers_methods[], masks_methods[],
    run_default_methods[], sending_methods[], waiting_methods[], wakeup_methods[],
    force_exit_methods[];
extern PyMethodDef dispatcher_method;

#define FUNCTION(function) ((PyCFunction)(void (*)(void))(function))

#endif
