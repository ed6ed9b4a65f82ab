/* Controls: what deferred() and the limits know of each thread.
 * Context: any thread, with the GIL; thread_ended: a thread that ends, without it.
 * Callers: clock.c, deferral.c, interrupting.c, limits.c, timers.c. */
#include <sys/syscall.h>
#include <unistd.h>

#include "control.h"

struct control *controls;
_Thread_local struct control *here;
static pthread_key_t thread_ends;

/* Runs without the GIL: whoever has it frees the record later. */
static void thread_ended(void *control) { atomic_store(&((struct control *)control)->ended, true); }

static void free_control(struct control *self) {
    while (self->newest != NULL) {
        Scope *scope = self->newest;
        self->newest = scope->outer;
        scope->owner = NULL;
        Py_CLEAR(scope->frame);
        Py_DECREF((PyObject *)scope);
    }
    if (self->putting_off) {
        put_off_forget(self->ident);
    }
    deferral_drop(self);
    PyMem_Free(self);
}

/* Taken off the list first: what is freed may run Python code, and that may come here. */
static void free_ended(void) {
    struct control *dead = NULL;
    for (struct control **place = &controls; *place != NULL;) {
        struct control *control = *place;
        if (atomic_load(&control->ended)) {
            *place = control->next;
            control->next = dead;
            dead = control;
        } else {
            place = &control->next;
        }
    }
    while (dead != NULL) {
        struct control *next = dead->next;
        free_control(dead);
        dead = next;
    }
}

static struct control *make_control(void) {
    struct control *self = PyMem_Calloc(1, sizeof *self);
    if (self == NULL || pthread_setspecific(thread_ends, self) != 0) {
        PyMem_Free(self);
        PyErr_NoMemory();
        return NULL;
    }
    self->is_main = engine.open && pthread_equal(pthread_self(), arrivals.main_thread);
    self->ident = PyThread_get_thread_ident();
    self->tid = (pid_t)syscall(SYS_gettid);
    self->due_ns = NEVER;
    self->next = controls;
    controls = here = self;
    return self;
}

struct control *control_make(void) {
    if (!clock_is_looking()) {
        free_ended();
    }
    return make_control();
}

/* At the start. False: the system has no key to give. */
bool controls_prepare(void) {
    static bool have_key;
    have_key = have_key || pthread_key_create(&thread_ends, thread_ended) == 0;
    return have_key;
}

/* In the child: the limits that it is inside of are gone, as POSIX has it with timers. */
void controls_after_fork(void) {
    struct control *mine = here;
    for (struct control *control = controls; control != NULL; control = control->next) {
        if (control->putting_off) { /* the parent's workers; and here, no limit is due */
            control->putting_off = false;
            put_off_forget(control->ident);
        }
        if (control != mine) {
            atomic_store(&control->ended, true);
        }
    }
    if (mine == NULL) {
        atomic_store(&arrivals.deferred, 0);
        atomic_store(&arrivals.clock_deferred, false);
        return;
    }
    mine->is_main = true; /* this thread is the main one now */
    mine->ident = PyThread_get_thread_ident();
    mine->tid = (pid_t)syscall(SYS_gettid);
    mine->due_ns = NEVER;
    for (Scope *scope = mine->newest; scope != NULL; scope = scope->outer) {
        if (!scope->interrupted) {
            scope->over = false;
        }
        scope->deadline_ns = NEVER;
        scope->again_ns = NEVER;
    }
    if (mine->interrupting) {
        take_interrupt_back(mine);
    }
    deferral_after_fork(mine);
}
