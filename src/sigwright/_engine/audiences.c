/* Audiences: who gets a signal. Writers replace the snapshot that arrivals read, and wait for them.
 * Context: any thread, with the GIL.
 * Callers: consumers.c. */
#include <stdlib.h>

#include "consumer_object.h"

static struct audience *audience_with(const struct audience *old, struct consumer *consumer) {
    int count = old == NULL ? 0 : old->count;
    struct audience *audience =
        malloc(sizeof *audience + (size_t)(count + 1) * sizeof(struct consumer *));
    if (audience != NULL) {
        audience->count = count + 1;
        for (int i = 0; i < count; i++) {
            audience->consumers[i] = old->consumers[i];
        }
        audience->consumers[count] = consumer;
        audience->has_main_handler =
            consumer->kind == MAIN_HANDLER || (old != NULL && old->has_main_handler);
    }
    return audience;
}

static struct audience *audience_without(const struct audience *old,
                                         const struct consumer *consumer) {
    struct audience *audience =
        malloc(sizeof *audience + (size_t)(old->count - 1) * sizeof(struct consumer *));
    if (audience != NULL) {
        audience->count = 0;
        audience->has_main_handler = false;
        for (int i = 0; i < old->count; i++) {
            if (old->consumers[i] != consumer) {
                audience->consumers[audience->count++] = old->consumers[i];
                audience->has_main_handler |= old->consumers[i]->kind == MAIN_HANDLER;
            }
        }
    }
    return audience;
}

/* False: an arrival may still read them (it hangs in write() to a wakeup fd, or its thread is not
 * let run): better lost memory. */
static bool free_replaced(struct audience *replaced[SIGNALS]) {
    bool ended = arrivals_end();
    for (int signum = 1; ended && signum < SIGNALS; signum++) {
        free(replaced[signum]);
    }
    return ended;
}

/* Out of the audiences of `signals`, without an instant in which an arrival would be nobody's.
 * False: arrivals may still reach the consumer, so that it must never be freed. */
bool leave_audiences(struct consumer *consumer, uint64_t signals) {
    struct audience *replaced[SIGNALS] = {NULL};
    bool left = true;
    FOR_EACH_SIGNAL (signum, signals) {
        struct audience *old = atomic_load(&arrivals.audiences[signum]);
        struct audience *smaller = NULL;
        if (old->count == 1) {
            disposition_give_back((int)signum);
        } else {
            smaller = audience_without(old, consumer);
            if (smaller == NULL) {
                left = false;
                continue;
            }
        }
        replaced[signum] = atomic_exchange(&arrivals.audiences[signum], smaller);
        if (smaller == NULL) {
            disposition_left((int)signum);
        } else if (replaced[signum]->has_main_handler && !smaller->has_main_handler &&
                   !disposition_refresh((int)signum)) {
            PyErr_Clear(); /* it was ours before: it stays as it is */
        }
    }
    return free_replaced(replaced) && left;
}

bool join_audiences(struct consumer *consumer) {
    struct audience *replaced[SIGNALS] = {NULL};
    uint64_t joined = 0;
    bool taken = true;
    FOR_EACH_SIGNAL (signum, consumer->signals) {
        struct audience *larger = audience_with(atomic_load(&arrivals.audiences[signum]), consumer);
        if (larger == NULL) {
            PyErr_NoMemory();
            taken = false;
            break;
        }
        replaced[signum] = atomic_exchange(&arrivals.audiences[signum], larger);
        joined |= signal_bit((int)signum);
        taken = disposition_take((int)signum, replaced[signum] == NULL);
        if (!taken) {
            break;
        }
    }
    free_replaced(replaced);
    if (!taken) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        leave_audiences(consumer, joined);
        PyErr_Restore(type, value, traceback);
    }
    return taken;
}
