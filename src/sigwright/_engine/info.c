/* ArrivalRecord: the C base of SignalInfo, what is known of one arrival.
 * Context: any thread, with the GIL.
 * Callers: consumers.c and delivery.c make them; Python reads them. */
#include <string.h>

#include "engine.h"

/* Which part of siginfo_t's union the origin has filled: the kernel's siginfo_layout(). */
enum layout { KILL, TIMER, POLL, FAULT, CHILD, QUEUED, SYSTEM_CALL };

typedef struct {
    PyObject_HEAD int signum;
    struct arrival_record record;
} ArrivalRecord;

static PyTypeObject *record_type; /* ArrivalRecord */
static PyTypeObject *info_type;   /* what the engine makes: SignalInfo, once it is registered */

static enum layout layout_of(int signum, int code) {
    if (code > SI_USER && code < SI_KERNEL) {
        switch (signum) {
        case SIGILL:
        case SIGFPE:
        case SIGSEGV:
        case SIGBUS:
        case SIGTRAP:
            return FAULT;
        case SIGCHLD:
            return code <= CLD_CONTINUED ? CHILD : KILL;
        case SIGSYS:
            return SYSTEM_CALL;
        default:
            return code <= POLL_HUP ? POLL
                                    : KILL; /* SIGIO, or what F_SETSIG has put in its place */
        }
    }
    switch (code) {
    case SI_TIMER:
        return TIMER;
    case SI_SIGIO:
        return POLL;
    case SI_TKILL:
        return KILL;
    default:
        return code < 0 ? QUEUED : KILL;
    }
}

/* May run the collector, and with it anything; so that who takes a record from a ring makes this
 * first. */
PyObject *new_info(void) { return PyType_GenericAlloc(info_type, 0); }

void fill_info(PyObject *info, int signum, const struct arrival_record *record) {
    ((ArrivalRecord *)info)->signum = signum;
    ((ArrivalRecord *)info)->record = *record;
}

PyObject *make_info(int signum, const struct arrival_record *record) {
    PyObject *info = new_info();
    if (info != NULL) {
        fill_info(info, signum, record);
    }
    return info;
}

static void record_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* --- the fields ------------------------------------------------------------------------------- */

enum field {
    PID,
    UID,
    STATUS,
    UTIME,
    STIME,
    VALUE,
    PTR,
    BAND,
    FD,
    ADDR,
    TIMERID,
    OVERRUN,
    CALL_ADDR,
    SYSCALL,
    ARCH
};

/* Where the origin has no such field: NULL without an exception. */
static PyObject *field_of(const siginfo_t *info, enum layout layout, enum field field) {
    bool child = layout == CHILD;
    switch (field) {
    case PID:
        return layout == KILL || layout == QUEUED || child ? PyLong_FromLong(info->si_pid) : NULL;
    case UID:
        return layout == KILL || layout == QUEUED || child ? PyLong_FromUnsignedLong(info->si_uid)
                                                           : NULL;
    case STATUS:
        return child ? PyLong_FromLong(info->si_status) : NULL;
    case UTIME:
        return child ? PyLong_FromLong(info->si_utime) : NULL;
    case STIME:
        return child ? PyLong_FromLong(info->si_stime) : NULL;
    case VALUE:
        return layout == QUEUED || layout == TIMER ? PyLong_FromLong(info->si_int) : NULL;
    case PTR:
        return layout == QUEUED || layout == TIMER ? PyLong_FromVoidPtr(info->si_ptr) : NULL;
    case BAND:
        return layout == POLL ? PyLong_FromLong(info->si_band) : NULL;
    case FD:
        return layout == POLL ? PyLong_FromLong(info->si_fd) : NULL;
    case ADDR:
        return layout == FAULT ? PyLong_FromVoidPtr(info->si_addr) : NULL;
    case TIMERID:
        return layout == TIMER ? PyLong_FromLong(info->si_timerid) : NULL;
    case OVERRUN:
        return layout == TIMER ? PyLong_FromLong(info->si_overrun) : NULL;
    case CALL_ADDR:
        return layout == SYSTEM_CALL ? PyLong_FromVoidPtr(info->si_call_addr) : NULL;
    case SYSCALL:
        return layout == SYSTEM_CALL ? PyLong_FromLong(info->si_syscall) : NULL;
    case ARCH:
        return layout == SYSTEM_CALL ? PyLong_FromUnsignedLong(info->si_arch) : NULL;
    }
    return NULL;
}

static PyObject *get_field(PyObject *self, void *field) {
    const ArrivalRecord *arrived = (ArrivalRecord *)self;
    siginfo_t info;
    record_to_siginfo(&arrived->record, arrived->signum, &info);
    PyObject *value = field_of(&info, layout_of(arrived->signum, arrived->record.code),
                               (enum field)(intptr_t)field);
    return value != NULL || PyErr_Occurred() ? value : Py_NewRef(Py_None);
}

static PyObject *get_signo(PyObject *self, void *unused) {
    (void)unused;
    return Py_NewRef(engine.members[((ArrivalRecord *)self)->signum]);
}

static PyObject *get_code(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLong(((ArrivalRecord *)self)->record.code);
}

static PyObject *get_errno(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLong(((ArrivalRecord *)self)->record.error);
}

static PyObject *get_monotonic_ns(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(((ArrivalRecord *)self)->record.monotonic_ns);
}

static PyObject *get_thread_id(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(((ArrivalRecord *)self)->record.thread);
}

#define FIELD(name, field, text) {name, get_field, NULL, text, (void *)(intptr_t)(field)}

static PyGetSetDef record_getset[] = {
    {"si_signo", get_signo, NULL, "The signal: a Signals member where it has a name.", NULL},
    {"code", get_code, NULL, "si_code as a plain int.", NULL},
    {"si_errno", get_errno, NULL, "An errno value, mostly 0.", NULL},
    FIELD("si_pid", PID, "The sender's process id, or the child's; None where there is none."),
    FIELD("si_uid", UID, "The sender's real user id, or the child's; None where there is none."),
    FIELD("si_status", STATUS, "SIGCHLD: the child's exit status, or its signal's number."),
    FIELD("si_utime", UTIME, "SIGCHLD: user time that the child used, in clock ticks."),
    FIELD("si_stime", STIME, "SIGCHLD: system time that the child used, in clock ticks."),
    FIELD("si_value", VALUE, "sigqueue(), a POSIX timer: the value, as an int (sival_int)."),
    FIELD("si_ptr", PTR, "sigqueue(), a POSIX timer: the value, as an address (sival_ptr)."),
    FIELD("si_band", BAND, "SIGIO: the event, as poll() reports it."),
    FIELD("si_fd", FD, "SIGIO: the file descriptor."),
    FIELD("si_addr", ADDR, "A fault: the address."),
    FIELD("si_timerid", TIMERID, "A POSIX timer: the kernel's number of it."),
    FIELD("si_overrun", OVERRUN, "A POSIX timer: expirations that were folded into this one."),
    FIELD("si_call_addr", CALL_ADDR, "SIGSYS: the address of the system call's instruction."),
    FIELD("si_syscall", SYSCALL, "SIGSYS: the number of the system call."),
    FIELD("si_arch", ARCH, "SIGSYS: the architecture, an AUDIT_ARCH_* number."),
    {"monotonic_ns", get_monotonic_ns, NULL,
     "When it arrived: time.monotonic_ns(), in nanoseconds.", NULL},
    {"thread_id", get_thread_id, NULL, "The thread that it landed on: threading.get_ident() there.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot record_slots[] = {
    {Py_tp_doc, "What is known of one arrival. Made by the engine."},
    {Py_tp_dealloc, record_dealloc},
    {Py_tp_getset, record_getset},
    {0, NULL},
};

static PyType_Spec record_spec = {
    .name = "sigwright._engine.ArrivalRecord",
    .basicsize = sizeof(ArrivalRecord),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = record_slots,
};

/* --- functions -------------------------------------------------------------------------------- */

static PyObject *set_info_type(PyObject *module, PyObject *type) {
    (void)module;
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, record_type)) {
        PyErr_SetString(PyExc_TypeError, "not a subclass of ArrivalRecord");
        return NULL;
    }
    replace_reference((PyObject **)&info_type, Py_NewRef(type));
    Py_RETURN_NONE;
}

static PyObject *make_record(PyObject *module, PyObject *args) {
    (void)module;
    int signum;
    struct arrival_record record;
    const char *fields;
    Py_ssize_t size;
    unsigned long long monotonic, thread;
    if (!PyArg_ParseTuple(args, "iiiy#KK", &signum, &record.code, &record.error, &fields, &size,
                          &monotonic, &thread) ||
        !in_range(signum)) {
        return NULL;
    }
    if (size != SIGINFO_FIELDS) {
        PyErr_Format(PyExc_ValueError, "fields must be %d bytes", SIGINFO_FIELDS);
        return NULL;
    }
    record.monotonic_ns = monotonic;
    record.thread = thread;
    memcpy(record.fields, fields, SIGINFO_FIELDS);
    return make_info(signum, &record);
}

PyMethodDef info_methods[] = {
    {"set_info_type", set_info_type, METH_O,
     "set_info_type(subclass, /)\n--\n\n"
     "The subclass of ArrivalRecord that the engine makes from now on."},
    {"make_record", make_record, METH_VARARGS,
     "make_record(signum, code, errno, fields, monotonic_ns, thread_id, /)\n--\n\n"
     "An arrival that did not happen, for tests; fields: 32 bytes, siginfo_t from si_pid on."},
    {NULL, NULL, 0, NULL},
};

bool info_add_type(PyObject *module) {
    if (record_type == NULL) {
        record_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &record_spec, NULL);
        if (record_type == NULL) {
            return false;
        }
        replace_reference((PyObject **)&info_type, Py_NewRef((PyObject *)record_type));
    }
    return PyModule_AddObjectRef(module, "ArrivalRecord", (PyObject *)record_type) == 0;
}
