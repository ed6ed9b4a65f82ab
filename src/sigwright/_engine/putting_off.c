/* Putting off: an exception that would be raised in a hole of the bytecode (see places.c) is raised
 * at the next instruction, which the blocks around it cover.
 * Context: any thread, with the GIL; the callback in whatever thread runs the instruction.
 * Callers: delivery.c for the main thread; interrupting.c for workers; sys.monitoring calls back.
 *
 * By sys.monitoring (PEP 669, from 3.12 on), with an event for each instruction of this one code
 * object, until the exception has been raised. Not by leaving it for the interpreter's next look,
 * as for entering: the hole of a loop may be the only one that it has. */
#include "engine.h"

static struct put_off {
    PyObject *code;
    PyObject *type, *value, *traceback; /* type NULL: a worker's limits, if they are still due */
    unsigned long thread;
    bool entering; /* the next instruction stores what __enter__ returned: the one after it */
    bool entered;
} *all;
static size_t count, room;

static PyObject *set_local_events;
static long tool = -1, instruction_event;

static PyObject *call_back(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

static PyMethodDef callback_method = {"next_instruction", FUNCTION(call_back), METH_FASTCALL, NULL};

static bool use_tool(PyObject *monitoring) {
    PyObject *events = PyObject_GetAttrString(monitoring, "events");
    PyObject *event = events == NULL ? NULL : PyObject_GetAttrString(events, "INSTRUCTION");
    instruction_event = event == NULL ? -1 : PyLong_AsLong(event);
    Py_XDECREF(event);
    Py_XDECREF(events);
    /* 0 to 2 and 5 are for debuggers, coverage tools, profilers and optimizers. */
    static const long numbers[] = {4, 3, 5, 2, 1};
    for (size_t i = 0; instruction_event != -1 && i < sizeof numbers / sizeof *numbers; i++) {
        PyObject *used =
            PyObject_CallMethod(monitoring, "use_tool_id", "ls", numbers[i], "sigwright");
        if (used != NULL) {
            Py_DECREF(used);
            tool = numbers[i];
            return true;
        }
        PyErr_Clear(); /* in use */
    }
    return false;
}

/* With the first exception that needs it. */
static bool prepare(void) {
    if (tool != -1) {
        return true;
    }
    PyObject *monitoring = PySys_GetObject("monitoring"); /* borrowed */
    if (monitoring == NULL || !use_tool(monitoring)) {
        return false;
    }
    PyObject *callback = PyCFunction_NewEx(&callback_method, NULL, NULL);
    PyObject *old = callback == NULL ? NULL
                                     : PyObject_CallMethod(monitoring, "register_callback", "llO",
                                                           tool, instruction_event, callback);
    Py_XDECREF(old);
    Py_XDECREF(callback);
    if (old != NULL) {
        set_local_events = PyObject_GetAttrString(monitoring, "set_local_events");
    }
    return set_local_events != NULL;
}

static bool watch_code(PyObject *code, bool on) {
    PyObject *done =
        PyObject_CallFunction(set_local_events, "lOl", tool, code, on ? instruction_event : 0L);
    Py_XDECREF(done);
    return done != NULL;
}

static void take_out(size_t place, struct put_off *taken) {
    *taken = all[place];
    all[place] = all[--count];
    bool wanted = false;
    for (size_t i = 0; i < count; i++) {
        wanted = wanted || all[i].code == taken->code;
    }
    if (!wanted && !watch_code(taken->code, false)) {
        PyErr_Clear();
    }
    Py_CLEAR(taken->code);
}

static PyObject *call_back(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    unsigned long thread = PyThread_get_thread_ident();
    for (size_t i = 0; nargs > 1 && i < count; i++) {
        if (all[i].code == args[0] && all[i].thread == thread) {
            if (all[i].entering) {
                all[i].entering = false;
                all[i].entered = true;
                break;
            }
            struct put_off put_off;
            take_out(i, &put_off);
            if (put_off.entered && !is_in_block(args[0], PyLong_AsLong(args[1]))) {
                limits_look_later(); /* the block is empty, and this is its end */
                break;
            }
            if (put_off.type != NULL) {
                PyErr_Restore(put_off.type, put_off.value, put_off.traceback);
                return NULL;
            }
            if (!limits_interrupt_here()) {
                return NULL;
            }
            break;
        }
    }
    Py_RETURN_NONE;
}

static bool add(PyObject *frame, struct put_off put_off) {
    if (!prepare()) {
        return false;
    }
    if (count == room) {
        struct put_off *larger = PyMem_Realloc(all, (room + 8) * sizeof *larger);
        if (larger == NULL) {
            return false;
        }
        all = larger;
        room += 8;
    }
    put_off.code = PyObject_GetAttrString(frame, "f_code");
    if (put_off.code == NULL || !watch_code(put_off.code, true)) {
        Py_XDECREF(put_off.code);
        return false;
    }
    all[count++] = put_off;
    return true;
}

/* The main thread: what is set now, if this is a hole. False: it stays set, and is to be raised. */
bool put_off_if_in_hole(PyObject *frame) {
    struct put_off put_off = {.thread = PyThread_get_thread_ident()};
    PyErr_Fetch(&put_off.type, &put_off.value, &put_off.traceback);
    PyObject *hole = frame_in_hole(frame);
    bool added = hole != NULL && add(hole, put_off);
    Py_XDECREF(hole);
    if (added) {
        return true;
    }
    PyErr_Restore(put_off.type, put_off.value, put_off.traceback); /* without it: as ever */
    return false;
}

/* It has no limit any more. */
void put_off_forget(unsigned long thread) {
    for (size_t i = count; i-- > 0;) {
        if (all[i].thread == thread && all[i].type == NULL) {
            struct put_off put_off;
            take_out(i, &put_off);
        }
    }
}

/* A worker, whose current frame this is: its limits look at the next instruction. */
bool put_off_limits(PyObject *frame, unsigned long thread, bool entering) {
    PyObject *code = PyObject_GetAttrString(frame, "f_code");
    bool waits = false;
    for (size_t i = 0; i < count; i++) {
        waits = waits || (all[i].thread == thread && all[i].type == NULL && all[i].code == code);
    }
    Py_XDECREF(code);
    if (!waits) {
        put_off_forget(thread); /* for a function that it has left meanwhile, by an exception */
        waits = add(frame, (struct put_off){.thread = thread, .entering = entering});
    }
    PyErr_Clear();
    return waits;
}
