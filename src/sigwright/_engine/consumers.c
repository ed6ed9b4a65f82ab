/* Consumers: opening and closing them; fork and exit.
 * Context: any thread, with the GIL.
 * Callers: Python, through the type Consumer; delivery.c notes answers; module.c at fork and exit.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "consumer_object.h"
#include "watch.h"

static PyTypeObject *consumer_type;
PyObject *queue_empty;
struct consumer_list consumer_list;

/* What became of the arrivals of a signal, by the time stamp of the youngest: read by a listener or
 * given to a handler; or left unread in a listener that was closed before the last one. */
static uint64_t answered_ns[SIGNALS];
static struct arrival_record unanswered[SIGNALS];

static void note_had(int signum, uint64_t monotonic_ns) {
    if (monotonic_ns > answered_ns[signum]) {
        answered_ns[signum] = monotonic_ns;
    }
}

void note_answer(int signum, uint64_t monotonic_ns) {
    note_had(signum, monotonic_ns);
    watch_answered(signal_bit(signum));
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
    Consumer **larger =
        realloc(consumer_list.all, (size_t)(consumer_list.count + 1) * sizeof *larger);
    if (larger == NULL) {
        PyErr_NoMemory();
        return false;
    }
    consumer_list.all = larger;
    consumer_list.all[consumer_list.count++] = self;
    if (self->consumer.kind != LISTENER) {
        Py_INCREF((PyObject *)self);
    }
    return true;
}

/* The caller has a reference of its own. */
static void delist(Consumer *self) {
    int i = 0;
    while (consumer_list.all[i] != self) {
        i++;
    }
    consumer_list.count--;
    for (; i < consumer_list.count; i++) {
        consumer_list.all[i] = consumer_list.all[i + 1];
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

static uint64_t arrivals_of(const Consumer *self) {
    struct consumer_shared *shared = self->consumer.shared;
    return self->open ? atomic_load(&shared->ring.tail) + atomic_load(&shared->ever_reserved) +
                            atomic_load(&shared->ring.refused)
                      : self->arrivals_at_close;
}

/* To this process, as it came: with the sender's name. In another thread than the main one the
 * kernel lets only that thread itself have such a signal; where that one blocks it, it comes from
 * us. */
void send_again(int signum, const struct arrival_record *record) {
    siginfo_t info;
    sigset_t mask;
    watch_answered(signal_bit(signum)); /* it arrives anew, or has its default action */
    record_to_siginfo(record, signum, &info);
    if (syscall(SYS_rt_sigqueueinfo, getpid(), signum, &info) == 0) {
        return;
    }
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    if (errno != EPERM || sigismember(&mask, signum) ||
        syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), signum, &info) != 0) {
        kill(getpid(), signum); /* RLIMIT_SIGPENDING, too */
    }
}

/* Nobody has had it: the last consumer's closing raises it again. */
void note_unanswered(int signum, const struct arrival_record *record) {
    if (record->monotonic_ns > unanswered[signum].monotonic_ns) {
        unanswered[signum] = *record;
    }
}

static void note_unread(Consumer *self, bool discard) {
    const struct ring_slot *slot;
    while ((slot = consumer_oldest(&self->consumer)) != NULL) {
        int signum = slot->signum;
        /* A handler was there when it came; SA_RESETHAND may have taken it away: deliver_one(). */
        if (slot->handled && slot->record.monotonic_ns != unanswered[signum].monotonic_ns) {
            note_had(signum, slot->record.monotonic_ns);
        } else if (!discard) {
            note_unanswered(signum, &slot->record);
        }
        consumer_let_go(&self->consumer, slot);
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
    } else {
        atomic_store(&consumer->shared->waker.fd_plus_1, 0);
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
        if (atomic_load(&arrivals.audiences[signum]) != NULL) {
            continue;
        }
        if (!(atomic_load(&arrivals.to_inbox) & signal_bit(signum))) {
            watch_answered(signal_bit(signum)); /* by throwing it away: nobody is left to answer */
        }
        if (unread_ns != 0) {
            if (unread_ns > answered_ns[signum]) {
                send_again((int)signum, &unanswered[signum]); /* once a number */
            }
            unanswered[signum].monotonic_ns = 0;
        }
    }
    return left;
}

/* A listener that nobody has any more is still listed while its finalizers run. */
static bool is_dying(const Consumer *self) { return Py_REFCNT((PyObject *)self) == 0; }

/* The list's reference may be the last. */
static void close_and_keep(Consumer *self, bool discard) {
    bool dying = is_dying(self);
    if (!dying) {
        Py_INCREF((PyObject *)self);
    }
    if (close_consumer(self, discard) && !dying) {
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

bool parse_signals(PyObject *numbers, uint64_t *signals) {
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
/* It gets every arrival, also of standard signals, which are merged only for signal()'s handler. */
#define ADDED_HANDLER_ROOM 65536

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
    /* Whatever may run Python code comes before the first step. */
    if (signals & FAULT_SIGNALS) {
        door_need_dump(); /* it takes a number, perhaps one of these */
    }
    if (!door_make_room(signals) || PyErr_CheckSignals() < 0) {
        return NULL;
    }
    Consumer *self = (Consumer *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->fd = -1;
    if (engine.closing) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is ending");
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    self->inherit = inherit;
    self->consumer.kind = (enum consumer_kind)kind;
    self->consumer.signals = signals;
    self->consumer.maxsize = kind == LISTENER ? (uint64_t)maxsize : ADDED_HANDLER_ROOM;
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

static int consumer_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(((Consumer *)object)->handler);
    Py_VISIT((PyObject *)Py_TYPE(object));
    return 0;
}

static int consumer_clear(PyObject *object) {
    if (!((Consumer *)object)->open) { /* an open registration is held by the list */
        Py_CLEAR(((Consumer *)object)->handler);
    }
    return 0;
}

static void consumer_dealloc(PyObject *object) {
    Consumer *self = (Consumer *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
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
    uint64_t arrived = arrivals_of(self);
    uint64_t refused =
        self->open ? atomic_load(&self->consumer.shared->ring.refused) : self->refused_at_close;
    /* Of a closed one: what was unread. */
    uint64_t unread =
        self->open ? consumer_waiting(&self->consumer) : arrived - refused - self->deliveries;
    return Py_BuildValue("{sK sK sK sK sN}", "arrivals", (unsigned long long)arrived, "deliveries",
                         (unsigned long long)self->deliveries, "drops", (unsigned long long)refused,
                         "waiting", (unsigned long long)unread, "latency", latency);
}

/* Besides those of reading.c. */
static PyMethodDef consumer_methods[] = {
    {"close", FUNCTION(consumer_close), METH_FASTCALL | METH_KEYWORDS, close_doc},
    {"stats", consumer_stats, METH_NOARGS,
     "stats()\n--\n\narrivals = deliveries + drops + waiting; latency: see sigwright.stats()."},
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
    {Py_tp_traverse, consumer_traverse},
    {Py_tp_clear, consumer_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, consumer_next},
    {Py_tp_methods, consumer_methods},
    {Py_tp_getset, consumer_getset},
    {0, NULL},
};

static PyType_Spec consumer_spec = {
    .name = "sigwright._engine.Consumer",
    .basicsize = sizeof(Consumer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = consumer_slots,
};

static bool add_reading_methods(void) {
    for (PyMethodDef *method = reading_methods; method->ml_name != NULL; method++) {
        PyObject *descriptor = PyDescr_NewMethod(consumer_type, method);
        bool added = descriptor != NULL && PyObject_SetAttrString((PyObject *)consumer_type,
                                                                  method->ml_name, descriptor) == 0;
        Py_XDECREF(descriptor);
        if (!added) {
            return false;
        }
    }
    return true;
}

bool consumers_add_type(PyObject *module) {
    if (consumer_type == NULL) {
        consumer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &consumer_spec, NULL);
        if (consumer_type == NULL || !add_reading_methods()) {
            return false;
        }
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

/* --- fork and exit ---------------------------------------------------------------------------- */

/* The number stays: whoever asked for fileno() has it. Closed first: there may be no other to be
 * had. -1: not even this one. */
static int renew_fd(struct waker *waker, int fd) {
    close(fd);
    int fresh = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fresh != -1 && fresh != fd) {
        dup3(fresh, fd, O_CLOEXEC);
        close(fresh);
    }
    fd = fresh == -1 ? -1 : fd;
    atomic_store(&waker->fd_plus_1, fd + 1);
    atomic_store(&waker->raised, 0);
    raise_waker(waker); /* for what came early; a reader that finds nothing waits again */
    return fd;
}

/* In the child. Its copies of the descriptors are still the parent's. */
void consumers_after_fork(bool wiped_on_fork) {
    memset(answered_ns, 0, sizeof answered_ns);
    memset(unanswered, 0, sizeof unanswered);
    if (thread_fd != -1) {
        thread_fd = renew_fd(&arrivals.inbox->thread, thread_fd);
    }
    for (int i = 0; i < consumer_list.count;) {
        Consumer *self = consumer_list.all[i];
        if (!wiped_on_fork) {
            memset(self->consumer.shared, 0, self->mapping_size);
        }
        self->users = 0; /* those threads are not here */
        self->deliveries = 0;
        memset(self->latency, 0, sizeof self->latency);
        bool listens = self->fd != -1;
        if (self->inherit && listens) {
            self->fd = renew_fd(self->consumer.waker, self->fd);
        }
        if (self->inherit && (!listens || self->fd != -1)) { /* or: there is none to be had */
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
    while (consumer_list.count > 0) {
        Consumer *self = consumer_list.all[consumer_list.count - 1];
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
    for (int i = 0; list != NULL && i < consumer_list.count; i++) {
        Consumer *consumer = consumer_list.all[i];
        if (!is_dying(consumer) && PyList_Append(list, (PyObject *)consumer) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

PyMethodDef consumers_methods[] = {
    {"consumers", consumers, METH_NOARGS,
     "consumers()\n--\n\nAll that are open, in the order of their registration."},
    {NULL, NULL, 0, NULL},
};
