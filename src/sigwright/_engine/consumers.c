/* Consumers: opening and closing them, reading their rings, and calling added handlers.
 * Context: any thread, with the GIL; main_handler_*: the main thread. Who waits releases the GIL.
 * Callers: Python, through the type Consumer; delivery.c; module.c at fork and exit. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

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

static PyTypeObject *consumer_type;
static PyObject *queue_empty; /* queue.Empty, without importing queue (it imports threading) */

/* All that are open, in the order of their registration. Added handlers are held by this list;
 * listeners are not, and close when nobody has them any more. */
static Consumer **registered;
static int registered_count;

/* What became of the arrivals of a signal, by the time stamp of the youngest: read by a listener or
 * given to a handler; or left unread in a listener that was closed before the last one. */
static uint64_t answered_ns[SIGNALS];
static struct arrival_record unanswered[SIGNALS];

static int thread_fd = -1; /* wakes sigwright's own thread */

#define OWNER(pointer) ((Consumer *)((char *)(pointer) - offsetof(Consumer, consumer)))

#define FOR_EACH_SIGNAL(signum, set)                                                               \
    for (uint64_t left_ = (set), signum = 0;                                                       \
         left_ != 0 && (signum = (uint64_t)__builtin_ctzll(left_) + 1, true); left_ &= left_ - 1)

void note_answer(int signum, uint64_t monotonic_ns) {
    if (monotonic_ns > answered_ns[signum]) {
        answered_ns[signum] = monotonic_ns;
    }
}

/* --- reading ---------------------------------------------------------------------------------- */

static const struct ring_slot *oldest_reserved(const struct consumer *consumer) {
    const struct ring_slot *oldest = NULL;
    int count = __builtin_popcountll(consumer->signals);
    for (int i = 0; i < count; i++) {
        const struct ring_slot *slot = &consumer->reserve[i];
        if (atomic_load_explicit(&slot->lap, memory_order_acquire) == 2 &&
            (oldest == NULL || slot->record.monotonic_ns < oldest->record.monotonic_ns)) {
            oldest = slot;
        }
    }
    return oldest;
}

/* The oldest record's slot, or NULL. A thread's arrivals come out in their order: the reserve is
 * looked at first, for what is there then is older than whatever goes into the ring later; and once
 * more where something went into it meanwhile (finitely often: only we free its slots). */
static const struct ring_slot *oldest_slot(const struct consumer *consumer) {
    struct consumer_shared *shared = consumer->shared;
    for (;;) {
        uint64_t ever_reserved = atomic_load(&shared->ever_reserved);
        const struct ring_slot *reserved =
            atomic_load(&shared->in_reserve) != 0 ? oldest_reserved(consumer) : NULL;
        const struct ring_slot *head = ring_head(&shared->ring, consumer->slots, consumer->bits);
        if (atomic_load(&shared->ever_reserved) != ever_reserved) {
            continue;
        }
        if (reserved == NULL) {
            return head;
        }
        if (head == NULL && ring_waiting(&shared->ring) == 0) {
            return reserved;
        }
        /* A record at the head that is still being filled is older: who fills it wakes us then. */
        head = head != NULL ? head : ring_head(&shared->ring, consumer->slots, consumer->bits);
        return head == NULL || head->record.monotonic_ns <= reserved->record.monotonic_ns
                   ? head
                   : reserved;
    }
}

static uint64_t waiting(const struct consumer *consumer) {
    return ring_waiting(&consumer->shared->ring) + atomic_load(&consumer->shared->in_reserve);
}

static uint64_t arrivals_of(const Consumer *self) {
    struct consumer_shared *shared = self->consumer.shared;
    return self->open ? atomic_load(&shared->ring.tail) + atomic_load(&shared->ever_reserved) +
                            atomic_load(&shared->ring.refused)
                      : self->arrivals_at_close;
}

static void let_go_of(const struct consumer *consumer, const struct ring_slot *slot) {
    const struct ring_slot *end = consumer->reserve + __builtin_popcountll(consumer->signals);
    if (slot >= consumer->reserve && slot < end) {
        atomic_fetch_sub(&consumer->shared->in_reserve, 1);
        atomic_store_explicit(&((struct ring_slot *)slot)->lap, 0, memory_order_release);
    } else {
        ring_pop(&consumer->shared->ring, consumer->slots, consumer->bits);
    }
}

/* A new SignalInfo. NULL: nothing waits (any more), or, with an exception set, there was no memory
 * for it, and the record stays. Afterwards it may be closed: see new_info(). */
static PyObject *pop(Consumer *self) {
    if (oldest_slot(&self->consumer) == NULL) {
        return NULL;
    }
    PyObject *info = new_info();
    const struct ring_slot *slot = info != NULL && self->open ? oldest_slot(&self->consumer) : NULL;
    if (slot == NULL) {
        Py_XDECREF(info);
        return NULL;
    }
    fill_info(info, slot->signum, &slot->record);
    note_answer(slot->signum, slot->record.monotonic_ns);
    count_latency(self->latency, monotonic_ns() - slot->record.monotonic_ns);
    self->deliveries++;
    let_go_of(&self->consumer, slot);
    return info;
}

/* The reader found nothing. First the descriptor, then the mark, then another look by the caller: a
 * producer that still sees the mark has published before, so that the look finds its record. */
static void waker_clear(struct waker *waker, int fd) {
    uint64_t ignored;
    ssize_t count = read(fd, &ignored, sizeof ignored);
    (void)count;
    atomic_store(&waker->raised, 0);
}

static PyObject *raise_closed(const Consumer *self) {
    return PyErr_Format(PyExc_RuntimeError, "this %s is closed",
                        self->consumer.kind == LISTENER ? "listener" : "registration");
}

static void close_fd_if_unused(Consumer *self) {
    if (!self->open && self->users == 0 && self->fd != -1) {
        close(self->fd);
        self->fd = -1;
    }
}

/* Wait until `fd` is readable, or the deadline (INT64_MAX: none). 1: look again; 0: the time is
 * over; -1: an exception is set, a handler's or an OSError. */
static int wait_readable(int fd, int64_t deadline) {
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    struct timespec left, *timeout = NULL;
    if (deadline != INT64_MAX) {
        int64_t nanoseconds = deadline - (int64_t)monotonic_ns();
        nanoseconds = nanoseconds > 0 ? nanoseconds : 0;
        left = (struct timespec){nanoseconds / 1000000000, nanoseconds % 1000000000};
        timeout = &left;
    }
    int ready, error;
    Py_BEGIN_ALLOW_THREADS;
    ready = ppoll(&readable, 1, timeout, NULL);
    error = errno;
    Py_END_ALLOW_THREADS;
    if (ready < 0 && error != EINTR) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (ready < 0 && PyErr_CheckSignals() < 0) {
        return -1;
    }
    return ready != 0;
}

/* The next record, waiting for it. NULL with an exception set: queue.Empty, RuntimeError where it
 * is closed, or what a handler raised. */
static PyObject *wait_and_pop(Consumer *self, int64_t deadline) {
    for (;;) {
        if (!self->open) {
            return raise_closed(self);
        }
        PyObject *info = pop(self);
        if (info != NULL || PyErr_Occurred()) {
            return info;
        }
        if (!self->open) {
            return raise_closed(self);
        }
        waker_clear(self->consumer.waker, self->fd);
        if (oldest_slot(&self->consumer) != NULL) {
            raise_waker(self->consumer.waker); /* there may be more than we take, for others */
            continue;
        }
        self->users++;
        int again = wait_readable(self->fd, deadline);
        self->users--;
        close_fd_if_unused(self);
        if (again < 0) {
            return NULL;
        }
        if (again == 0 && self->open && oldest_slot(&self->consumer) == NULL) {
            PyErr_SetNone(queue_empty);
            return NULL;
        }
    }
}

static bool check_listener(Consumer *self) {
    if (self->consumer.kind != LISTENER) {
        PyErr_SetString(PyExc_TypeError, "an added handler is called, not read");
        return false;
    }
    if (!self->open) {
        raise_closed(self);
        return false;
    }
    return true;
}

PyDoc_STRVAR(get_doc, "get(timeout=None)\n--\n\n"
                      "Take the oldest arrival, waiting for it.\n\n"
                      "Parameters:\n"
                      "    timeout: seconds, int or float, at most; None for no limit.\n\n"
                      "Returns:\n"
                      "    A SignalInfo.\n\n"
                      "Raises:\n"
                      "    queue.Empty: nothing arrived within timeout.\n"
                      "    RuntimeError: the listener is closed, or was meanwhile.\n"
                      "    ValueError: a negative timeout, or NaN.\n"
                      "    Anything that a handler raises, in the main thread.\n\n"
                      "Platform: Unix. Any thread.");

static PyObject *consumer_get(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
    Consumer *self = (Consumer *)object;
    PyObject *timeout = nargs == 1 ? args[0] : Py_None;
    static const char *const names[] = {"timeout"};
    if ((nargs > 1 || kwnames != NULL) &&
        !take_arguments("get", names, 1, args, nargs, kwnames, &timeout)) {
        return NULL;
    }
    int64_t deadline = INT64_MAX;
    if (timeout != Py_None) {
        int64_t nanoseconds;
        if (!parse_seconds(timeout, &nanoseconds)) {
            return NULL;
        }
        if (nanoseconds < 0) {
            PyErr_SetString(PyExc_ValueError, "timeout must be non-negative");
            return NULL;
        }
        if (__builtin_add_overflow((int64_t)monotonic_ns(), nanoseconds, &deadline)) {
            deadline = INT64_MAX;
        }
    }
    return check_listener(self) ? wait_and_pop(self, deadline) : NULL;
}

PyDoc_STRVAR(get_nowait_doc, "get_nowait()\n--\n\n"
                             "Take the oldest arrival, if there is one.\n\n"
                             "Returns:\n"
                             "    A SignalInfo.\n\n"
                             "Raises:\n"
                             "    queue.Empty: nothing waits.\n"
                             "    RuntimeError: the listener is closed.\n\n"
                             "Platform: Unix. Any thread.");

/* Emptied: fileno() is not readable any more. */
static PyObject *pop_or_clear(Consumer *self) {
    PyObject *info = pop(self);
    if (info == NULL && !PyErr_Occurred() && self->open) {
        waker_clear(self->consumer.waker, self->fd);
        if (oldest_slot(&self->consumer) != NULL) {
            raise_waker(self->consumer.waker); /* there may be more than we take, for others */
            info = pop(self);
        }
    }
    return info;
}

static PyObject *consumer_get_nowait(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    if (!check_listener(self)) {
        return NULL;
    }
    PyObject *info = pop_or_clear(self);
    if (info == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(queue_empty);
    }
    return info;
}

PyDoc_STRVAR(drain_doc, "drain()\n--\n\n"
                        "Take all arrivals that wait.\n\n"
                        "Returns:\n"
                        "    A list of SignalInfo, the oldest first; empty where nothing waits.\n\n"
                        "Raises:\n"
                        "    RuntimeError: the listener is closed.\n\n"
                        "Platform: Unix. Any thread.");

static PyObject *consumer_drain(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    PyObject *list = PyList_New(0); /* first: the garbage that it may collect may close us */
    if (list == NULL || !check_listener(self)) {
        Py_XDECREF(list);
        return NULL;
    }
    /* As many as wait now: a storm must not keep the caller here. */
    uint64_t most = waiting(&self->consumer) + 1;
    while (list != NULL && self->open && most-- > 0) {
        PyObject *info = pop_or_clear(self);
        if (info == NULL && !PyErr_Occurred()) {
            break;
        }
        if (info == NULL || PyList_Append(list, info) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(info);
    }
    return list;
}

static PyObject *consumer_next(PyObject *object) {
    Consumer *self = (Consumer *)object;
    if (self->consumer.kind != LISTENER) {
        check_listener(self);
        return NULL;
    }
    PyObject *info = self->open ? wait_and_pop(self, INT64_MAX) : NULL;
    if (info == NULL && !self->open && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        PyErr_Clear(); /* closed meanwhile: the iteration ends */
    }
    return info;
}

PyDoc_STRVAR(fileno_doc,
             "fileno()\n--\n\n"
             "A file descriptor that is readable while arrivals wait, for select(), poll(),\n"
             "epoll() and event loops. Never read from it: get_nowait() and drain() do.\n\n"
             "Raises:\n"
             "    RuntimeError: the listener is closed.\n\n"
             "Platform: Linux. Source: man page eventfd(2).");

static PyObject *consumer_fileno(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    return check_listener(self) ? PyLong_FromLong(self->fd) : NULL;
}

static PyObject *consumer_qsize(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    return PyLong_FromUnsignedLongLong(self->open ? waiting(&self->consumer) : 0);
}

/* --- for event loops -------------------------------------------------------------------------- */

static PyObject *consumer_acknowledge(PyObject *object, PyObject *unused) {
    Consumer *self = (Consumer *)object;
    if (self->open && self->consumer.waker != NULL) {
        waker_clear(self->consumer.waker, self->fd);
    }
    return consumer_qsize(object, unused);
}

static PyObject *consumer_rearm(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    if (self->open && self->consumer.waker != NULL && waiting(&self->consumer) != 0) {
        raise_waker(self->consumer.waker);
    }
    Py_RETURN_NONE;
}

static PyObject *consumer_hold(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    if (!check_listener(self)) {
        return NULL;
    }
    self->users++;
    Py_RETURN_NONE;
}

static PyObject *consumer_release(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    if (self->users > 0) {
        self->users--;
    }
    close_fd_if_unused(self);
    Py_RETURN_NONE;
}

/* --- opening and closing ---------------------------------------------------------------------- */

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

static void free_replaced(struct audience *replaced[SIGNALS]) {
    /* An arrival that hangs in write() to a wakeup fd may still read them: better lost memory. */
    bool ended = arrivals_end();
    for (int signum = 1; ended && signum < SIGNALS; signum++) {
        free(replaced[signum]);
    }
}

/* Out of the audiences of `signals`, without an instant in which an arrival would be nobody's.
 * False: no memory for a smaller audience, so that this one must never be freed. */
static bool leave_audiences(struct consumer *consumer, uint64_t signals) {
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
        if (smaller != NULL && replaced[signum]->has_main_handler && !smaller->has_main_handler &&
            !disposition_refresh((int)signum)) {
            PyErr_Clear(); /* it was ours before: it stays as it is */
        }
    }
    free_replaced(replaced);
    return left;
}

static bool join_audiences(struct consumer *consumer) {
    struct audience *larger[SIGNALS] = {NULL}, *replaced[SIGNALS] = {NULL};
    FOR_EACH_SIGNAL (signum, consumer->signals) {
        larger[signum] = audience_with(atomic_load(&arrivals.audiences[signum]), consumer);
        if (larger[signum] == NULL) {
            for (int i = 1; i < SIGNALS; i++) {
                free(larger[i]);
            }
            PyErr_NoMemory();
            return false;
        }
    }
    uint64_t joined = 0;
    bool taken = true;
    FOR_EACH_SIGNAL (signum, consumer->signals) {
        replaced[signum] = atomic_exchange(&arrivals.audiences[signum], larger[signum]);
        joined |= signal_bit((int)signum);
        taken = disposition_take((int)signum, replaced[signum] == NULL);
        if (!taken) {
            break;
        }
    }
    FOR_EACH_SIGNAL (signum, consumer->signals & ~joined) {
        free(larger[signum]);
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

static bool map_rings(Consumer *self) {
    struct consumer *consumer = &self->consumer;
    while ((UINT64_C(1) << consumer->bits) < consumer->maxsize) {
        consumer->bits++;
    }
    size_t slots = (size_t)1 << consumer->bits;
    size_t reserve = (size_t)__builtin_popcountll(consumer->signals);
    self->mapping_size =
        sizeof(struct consumer_shared) + (slots + reserve) * sizeof(struct ring_slot);
    bool ignored;
    consumer->shared = map_wiped(self->mapping_size, &ignored);
    if (consumer->shared == NULL) {
        PyErr_NoMemory();
        return false;
    }
    consumer->slots = (struct ring_slot *)(consumer->shared + 1);
    consumer->reserve = consumer->slots + slots;
    uint8_t place = 0;
    FOR_EACH_SIGNAL (signum, consumer->signals) {
        consumer->place[signum] = place++;
    }
    return true;
}

static bool make_waker(struct waker *waker, int *fd) {
    if (*fd == -1) {
        *fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (*fd == -1) {
            PyErr_SetFromErrno(PyExc_OSError);
            return false;
        }
    }
    atomic_store(&waker->fd_plus_1, *fd + 1);
    return true;
}

static bool enlist(Consumer *self) {
    Consumer **larger = realloc(registered, (size_t)(registered_count + 1) * sizeof *registered);
    if (larger == NULL) {
        PyErr_NoMemory();
        return false;
    }
    registered = larger;
    registered[registered_count++] = self;
    if (self->consumer.kind != LISTENER) {
        Py_INCREF((PyObject *)self);
    }
    return true;
}

/* The caller has a reference of its own. */
static void delist(Consumer *self) {
    int i = 0;
    while (registered[i] != self) {
        i++;
    }
    registered_count--;
    for (; i < registered_count; i++) {
        registered[i] = registered[i + 1];
    }
    if (self->consumer.kind != LISTENER) {
        Py_DECREF((PyObject *)self);
    }
}

static bool open_consumer(Consumer *self) {
    struct consumer *consumer = &self->consumer;
    if (!map_rings(self)) {
        return false;
    }
    switch (consumer->kind) {
    case LISTENER:
        consumer->waker = &consumer->shared->waker;
        if (!make_waker(consumer->waker, &self->fd)) {
            return false;
        }
        break;
    case THREAD_HANDLER:
        consumer->waker = &arrivals.inbox->thread;
        if (!make_waker(consumer->waker, &thread_fd)) {
            return false;
        }
        break;
    case MAIN_HANDLER:
        consumer->waker = NULL;
        door_need_timer();
        break;
    }
    if (!enlist(self)) {
        return false;
    }
    if (!join_audiences(consumer)) {
        delist(self);
        return false;
    }
    self->open = true;
    return true;
}

/* To this process, as it came: with the sender's name. */
void send_again(int signum, const struct arrival_record *record) {
    siginfo_t info;
    record_to_siginfo(record, signum, &info);
    if (syscall(SYS_rt_sigqueueinfo, getpid(), signum, &info) != 0) {
        kill(getpid(), signum); /* RLIMIT_SIGPENDING */
    }
}

static void note_unread(Consumer *self, bool discard) {
    const struct ring_slot *slot;
    while ((slot = oldest_slot(&self->consumer)) != NULL) {
        int signum = slot->signum;
        if (discard || slot->handled) {
            note_answer(signum, slot->record.monotonic_ns);
        } else if (slot->record.monotonic_ns > unanswered[signum].monotonic_ns) {
            unanswered[signum] = slot->record;
        }
        let_go_of(&self->consumer, slot);
    }
}

/* False: arrivals may still reach its memory, which must never be freed (see leave_audiences). */
static bool close_consumer(Consumer *self, bool discard) {
    if (!self->open) {
        return true;
    }
    struct consumer *consumer = &self->consumer;
    bool left = leave_audiences(consumer, consumer->signals);
    note_unread(self, discard);
    self->arrivals_at_close = arrivals_of(self);
    self->refused_at_close = atomic_load(&consumer->shared->ring.refused);
    self->open = false;
    if (left) {
        munmap(consumer->shared, self->mapping_size);
    }
    if (self->fd != -1) {
        static const uint64_t one = 1;
        ssize_t ignored = write(self->fd, &one, sizeof one); /* whoever waits looks, and is told */
        (void)ignored;
    }
    close_fd_if_unused(self);
    uint64_t signals = consumer->signals;
    delist(self);
    FOR_EACH_SIGNAL (signum, signals) {
        uint64_t unread_ns = unanswered[signum].monotonic_ns;
        if (atomic_load(&arrivals.audiences[signum]) == NULL && unread_ns != 0) {
            if (unread_ns > answered_ns[signum]) {
                send_again((int)signum, &unanswered[signum]); /* once a number */
            }
            unanswered[signum].monotonic_ns = 0;
        }
    }
    return left;
}

/* The list's reference may be the last. */
static void close_and_keep(Consumer *self, bool discard) {
    Py_INCREF((PyObject *)self);
    if (close_consumer(self, discard)) {
        Py_DECREF((PyObject *)self);
    }
}

PyDoc_STRVAR(
    close_doc,
    "close(discard=False)\n--\n\n"
    "Get no more copies. What waits cannot be read any more; who waits is woken.\n\n"
    "With the last listener or added handler of a signal, what signal() says acts again,\n"
    "and what nobody has read and no handler ran is raised again, once a number: a SIGTERM\n"
    "that came too late to be read ends the program. Closing twice is allowed.\n\n"
    "Parameters:\n"
    "    discard: do not raise again what waits here.\n\n"
    "Raises:\n"
    "    Anything that a handler raises, in the main thread.\n\n"
    "Platform: Unix. Any thread.");

static PyObject *consumer_close(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames) {
    PyObject *value = nargs == 1 ? args[0] : Py_False;
    static const char *const names[] = {"discard"};
    if ((nargs > 1 || kwnames != NULL) &&
        !take_arguments("close", names, 1, args, nargs, kwnames, &value)) {
        return NULL;
    }
    int discard = PyObject_IsTrue(value);
    if (discard < 0) {
        return NULL;
    }
    close_and_keep((Consumer *)object, discard);
    if (PyErr_CheckSignals() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- the type --------------------------------------------------------------------------------- */

static bool parse_signals(PyObject *numbers, uint64_t *signals) {
    PyObject *iterator = PyObject_GetIter(numbers);
    PyObject *item;
    bool parsed = iterator != NULL;
    while (parsed && (item = PyIter_Next(iterator)) != NULL) {
        int signum;
        struct sigaction now;
        parsed = parse_signal_number(item, &signum);
        Py_DECREF(item);
        if (parsed && (signum == SIGKILL || signum == SIGSTOP || sigaction(signum, NULL, &now))) {
            errno = EINVAL;
            PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, engine.members[signum]);
            parsed = false;
        }
        if (parsed) {
            *signals |= signal_bit(signum);
        }
    }
    Py_XDECREF(iterator);
    if (PyErr_Occurred()) {
        return false;
    }
    if (*signals == 0) {
        PyErr_SetString(PyExc_TypeError, "at least one signal is needed");
        return false;
    }
    return true;
}

#define MAXSIZE_MOST (1 << 24) /* 1 GiB */

static PyObject *consumer_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"signals", "maxsize", "kind", "inherit", "handler", NULL};
    PyObject *numbers, *maxsize_object, *handler;
    int maxsize, kind, inherit;
    uint64_t signals = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOipO", names, &numbers, &maxsize_object,
                                     &kind, &inherit, &handler)) {
        return NULL;
    }
    if (kind != LISTENER && !PyCallable_Check(handler)) {
        PyErr_Format(PyExc_TypeError, "a handler must be callable, not %R", handler);
        return NULL;
    }
    if (!parse_int(maxsize_object, &maxsize) || !parse_signals(numbers, &signals)) {
        return NULL;
    }
    if (maxsize < 1 || maxsize > MAXSIZE_MOST) {
        PyErr_Format(PyExc_ValueError, "maxsize must be from 1 to %d, not %d", MAXSIZE_MOST,
                     maxsize);
        return NULL;
    }
    if (engine.closed) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is ending");
        return NULL;
    }
    if (!door_make_room(signals)) {
        return NULL;
    }
    Consumer *self = (Consumer *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->fd = -1;
    self->inherit = inherit;
    self->consumer.kind = (enum consumer_kind)kind;
    self->consumer.signals = signals;
    /* An added handler has as much room as a handler of signal(), whoever asks. */
    self->consumer.maxsize = kind == LISTENER
                                 ? (uint64_t)maxsize
                                 : UINT64_C(1) << inbox_bits(__builtin_ctzll(signals) + 1);
    self->handler = kind == LISTENER ? NULL : Py_NewRef(handler);
    if (!open_consumer(self)) {
        if (self->consumer.shared != NULL) {
            munmap(self->consumer.shared, self->mapping_size);
        }
        close_fd_if_unused(self);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void consumer_dealloc(PyObject *object) {
    Consumer *self = (Consumer *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject *error_type, *value, *traceback;
    PyErr_Fetch(&error_type, &value, &traceback);
    bool left = close_consumer(self, false);
    PyErr_Restore(error_type, value, traceback);
    if (!left) {
        return;
    }
    self->users = 0; /* an event loop that is gone without a word */
    close_fd_if_unused(self);
    Py_XDECREF(self->handler);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *get_dropped(PyObject *object, void *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    return PyLong_FromUnsignedLongLong(
        self->open ? atomic_load(&self->consumer.shared->ring.refused) : self->refused_at_close);
}

static PyObject *get_signals(PyObject *object, void *unused) {
    (void)unused;
    PyObject *set = PyFrozenSet_New(NULL);
    FOR_EACH_SIGNAL (signum, ((Consumer *)object)->consumer.signals) {
        if (set != NULL && PySet_Add(set, engine.members[signum]) < 0) {
            Py_CLEAR(set);
        }
    }
    return set;
}

static PyObject *get_closed(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(!((Consumer *)object)->open);
}

static PyObject *get_handler(PyObject *object, void *unused) {
    (void)unused;
    PyObject *handler = ((Consumer *)object)->handler;
    return Py_NewRef(handler == NULL ? Py_None : handler);
}

static PyObject *get_kind(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromLong(((Consumer *)object)->consumer.kind);
}

static PyObject *consumer_stats(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    PyObject *latency = latency_list(self->latency);
    if (latency == NULL) {
        return NULL;
    }
    return Py_BuildValue(
        "{sK sK sK sK sN}", "arrivals", (unsigned long long)arrivals_of(self), "deliveries",
        (unsigned long long)self->deliveries, "drops",
        (unsigned long long)(self->open ? atomic_load(&self->consumer.shared->ring.refused)
                                        : self->refused_at_close),
        "waiting", (unsigned long long)(self->open ? waiting(&self->consumer) : 0), "latency",
        latency);
}

static PyMethodDef consumer_methods[] = {
    {"get", FUNCTION(consumer_get), METH_FASTCALL | METH_KEYWORDS, get_doc},
    {"get_nowait", consumer_get_nowait, METH_NOARGS, get_nowait_doc},
    {"drain", consumer_drain, METH_NOARGS, drain_doc},
    {"fileno", consumer_fileno, METH_NOARGS, fileno_doc},
    {"close", FUNCTION(consumer_close), METH_FASTCALL | METH_KEYWORDS, close_doc},
    {"qsize", consumer_qsize, METH_NOARGS,
     "qsize()\n--\n\nHow many arrivals wait now; 0 once it is closed."},
    {"stats", consumer_stats, METH_NOARGS,
     "stats()\n--\n\narrivals = deliveries + drops + waiting; latency: see sigwright.stats()."},
    {"_acknowledge", consumer_acknowledge, METH_NOARGS,
     "_acknowledge()\n--\n\nfileno() is not readable any more; returns how many wait."},
    {"_rearm", consumer_rearm, METH_NOARGS,
     "_rearm()\n--\n\nMake fileno() readable again, if something waits."},
    {"_hold", consumer_hold, METH_NOARGS,
     "_hold()\n--\n\nKeep the number of fileno() in use until _release(), also when closed."},
    {"_release", consumer_release, METH_NOARGS, "_release()\n--\n\nSee _hold()."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef consumer_getset[] = {
    {"dropped", get_dropped, NULL, "How many arrivals found no room.", NULL},
    {"signals", get_signals, NULL, "The signals that it gets: a frozenset of Signals members.",
     NULL},
    {"closed", get_closed, NULL, "True once close() was called, or the interpreter ends.", NULL},
    {"handler", get_handler, NULL, "What is called; None for a listener.", NULL},
    {"kind", get_kind, NULL, "KIND_LISTENER, KIND_MAIN or KIND_THREAD.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot consumer_slots[] = {
    {Py_tp_doc, "The C base of Listener and Registration."},
    {Py_tp_new, consumer_new},
    {Py_tp_dealloc, consumer_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, consumer_next},
    {Py_tp_methods, consumer_methods},
    {Py_tp_getset, consumer_getset},
    {0, NULL},
};

static PyType_Spec consumer_spec = {
    .name = "sigwright._engine.Consumer",
    .basicsize = sizeof(Consumer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = consumer_slots,
};

bool consumers_add_type(PyObject *module) {
    if (consumer_type == NULL) {
        consumer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &consumer_spec, NULL);
        PyObject *queue = PyImport_ImportModule("_queue");
        queue_empty = queue == NULL ? NULL : PyObject_GetAttrString(queue, "Empty");
        Py_XDECREF(queue);
    }
    return consumer_type != NULL && queue_empty != NULL &&
           PyModule_AddObjectRef(module, "Consumer", (PyObject *)consumer_type) == 0 &&
           PyModule_AddIntConstant(module, "KIND_LISTENER", LISTENER) == 0 &&
           PyModule_AddIntConstant(module, "KIND_MAIN", MAIN_HANDLER) == 0 &&
           PyModule_AddIntConstant(module, "KIND_THREAD", THREAD_HANDLER) == 0;
}

/* --- added handlers --------------------------------------------------------------------------- */

/* The added handler of the main thread that is to be called next, if its arrival is older than
 * `*monotonic_ns`; of the same age, the one that registered first. A new reference, or NULL. */
PyObject *main_handler_oldest(uint64_t may_run, int *signum, uint64_t *monotonic_ns) {
    struct inbox *inbox = arrivals.inbox;
    Consumer *next = NULL;
    FOR_EACH_SIGNAL (number, atomic_load(&inbox->added) & may_run) {
        const struct audience *audience = atomic_load(&arrivals.audiences[number]);
        bool something = false;
        /* Twice: what is published after the first look has set the bit before we cleared it,
         * or will set it. */
        for (int look = 0; look < 2 && !something; look++) {
            for (int i = 0; audience != NULL && i < audience->count; i++) {
                const struct consumer *consumer = audience->consumers[i];
                const struct ring_slot *slot =
                    consumer->kind == MAIN_HANDLER ? oldest_slot(consumer) : NULL;
                something = something || slot != NULL;
                if (slot != NULL && slot->record.monotonic_ns < *monotonic_ns) {
                    *monotonic_ns = slot->record.monotonic_ns;
                    *signum = (int)number;
                    next = OWNER(consumer);
                }
            }
            if (!something && look == 0) {
                atomic_fetch_and(&inbox->added, ~signal_bit((int)number));
            } else if (something && look == 1) {
                atomic_fetch_or(&inbox->added, signal_bit((int)number));
            }
        }
    }
    return Py_XNewRef((PyObject *)next);
}

/* What main_handler_oldest() found, for delivery.c to call. */
PyObject *main_handler_take(PyObject *registration, PyObject **handler) {
    Consumer *self = (Consumer *)registration;
    PyObject *info = pop(self);
    *handler = info == NULL ? NULL : Py_NewRef(self->handler);
    return info;
}

static Consumer *thread_handler_oldest(void) {
    Consumer *next = NULL;
    uint64_t oldest_ns = UINT64_MAX;
    for (int i = 0; i < registered_count; i++) {
        Consumer *candidate = registered[i];
        if (candidate->consumer.kind == THREAD_HANDLER && candidate->open) {
            const struct ring_slot *slot = oldest_slot(&candidate->consumer);
            if (slot != NULL && slot->record.monotonic_ns < oldest_ns) {
                oldest_ns = slot->record.monotonic_ns;
                next = candidate;
            }
        }
    }
    return next;
}

static PyObject *next_for_thread(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    if (thread_fd == -1) {
        Py_RETURN_NONE;
    }
    for (;;) {
        if (engine.closed) {
            Py_RETURN_NONE;
        }
        Consumer *next = thread_handler_oldest();
        if (next == NULL) {
            waker_clear(&arrivals.inbox->thread, thread_fd);
            next = thread_handler_oldest();
        }
        if (next != NULL) {
            Py_INCREF((PyObject *)next);
            PyObject *info = pop(next);
            PyObject *pair = info == NULL ? NULL : Py_BuildValue("(OO)", next, info);
            Py_XDECREF(info);
            Py_DECREF((PyObject *)next);
            if (pair != NULL || PyErr_Occurred()) {
                return pair;
            }
            continue;
        }
        if (wait_readable(thread_fd, INT64_MAX) < 0) {
            return NULL;
        }
    }
}

/* --- fork and exit ---------------------------------------------------------------------------- */

static void renew_fd(struct waker *waker, int fd) {
    int fresh = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fresh != -1) {
        dup3(fresh, fd, O_CLOEXEC); /* the number stays: whoever asked for fileno() has it */
        close(fresh);
    }
    atomic_store(&waker->fd_plus_1, fd + 1);
    atomic_store(&waker->raised, 0);
    raise_waker(waker); /* for what came early; a reader that finds nothing waits again */
}

/* In the child. Its copies of the descriptors are still the parent's. */
void consumers_after_fork(bool wiped_on_fork) {
    memset(answered_ns, 0, sizeof answered_ns);
    memset(unanswered, 0, sizeof unanswered);
    if (thread_fd != -1) {
        renew_fd(&arrivals.inbox->thread, thread_fd);
    }
    for (int i = 0; i < registered_count;) {
        Consumer *self = registered[i];
        if (!wiped_on_fork) {
            memset(self->consumer.shared, 0, self->mapping_size);
        }
        self->users = 0; /* those threads are not here */
        self->deliveries = 0;
        memset(self->latency, 0, sizeof self->latency);
        if (self->inherit) {
            if (self->fd != -1) {
                renew_fd(self->consumer.waker, self->fd);
            }
            i++;
            continue;
        }
        if (self->fd != -1) {
            close(self->fd); /* without a word to the parent's readers */
            self->fd = -1;
        }
        close_and_keep(self, false);
    }
}

/* At exit, while the engine still works: what nobody read acts as it would have. */
void consumers_close_all(void) {
    while (registered_count > 0) {
        Consumer *self = registered[registered_count - 1];
        close_and_keep(self, false);
    }
    if (thread_fd != -1) {
        raise_waker(&arrivals.inbox->thread);
    }
}

static PyObject *consumers(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0);
    for (int i = 0; list != NULL && i < registered_count; i++) {
        if (PyList_Append(list, (PyObject *)registered[i]) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

PyMethodDef consumers_methods[] = {
    {"consumers", consumers, METH_NOARGS,
     "consumers()\n--\n\nAll that are open, in the order of their registration."},
    {"next_for_thread", next_for_thread, METH_NOARGS,
     "next_for_thread()\n--\n\n"
     "Wait for the next arrival for a handler of sigwright's own thread.\n\n"
     "Returns:\n"
     "    A registration and its SignalInfo; None: the interpreter is ending."},
    {NULL, NULL, 0, NULL},
};
