/* The Python object of a consumer: Listener and Registration are its subclasses.
 * Context: any thread, with the GIL.
 * Callers: consumers.c (opens and closes), audiences.c, reading.c, added_handlers.c. */
#ifndef SIGWRIGHT_CONSUMER_OBJECT_H
#define SIGWRIGHT_CONSUMER_OBJECT_H

#include "engine.h"

typedef struct {
    PyObject_HEAD struct consumer consumer;
    bool open;
    bool inherit;
    int fd;    /* a listener's eventfd, or -1 */
    int users; /* threads in poll() and event loops that have `fd`: it stays open for them */
    PyObject *handler; /* NULL: a listener */
    uint64_t deliveries;
    uint64_t latency[LATENCY_BUCKETS];
    uint64_t arrivals_at_close, refused_at_close; /* the rings are gone then */
    size_t mapping_size;
} Consumer;

/* All that are open, in the order of their registration. Added handlers are held by this list;
 * listeners are not, and close when nobody has them any more. */
struct consumer_list {
    Consumer **all;
    int count;
};
extern struct consumer_list consumer_list;

extern PyObject *queue_empty; /* queue.Empty, without importing queue (it imports threading) */
extern int thread_fd;         /* wakes sigwright's own thread; or -1 */

/* audiences.c */
bool join_audiences(struct consumer *consumer);
bool leave_audiences(struct consumer *consumer, uint64_t signals);

/* reading.c */
PyObject *consumer_pop(Consumer *self);
int wait_until_readable(int fd, int64_t deadline);
void close_fd_if_unused(Consumer *self);
extern PyMethodDef reading_methods[];
PyObject *consumer_next(PyObject *self);

#endif
