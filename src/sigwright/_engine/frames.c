/* Frames: what can be told of a block from the frame that entered it.
 * Context: any thread, with the GIL; but for frame_entering(), only when something is due.
 * Callers: deferral.c, interrupting.c, limits.c.
 *
 * A generator or coroutine that is suspended inside a block has left the stack, and its block with
 * it: what runs meanwhile is somebody else's code. There is no hook at a suspension, so whether a
 * block is in force is asked when it matters: is its frame on the stack? */
#include "control.h"

/* CO_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR of inspect */
#define CODE_SUSPENDS (0x20 | 0x80 | 0x100 | 0x200)

/* ExitStack.enter_context's, which enters a section on behalf of its caller; NULL: not known yet.
 */
static PyObject *enter_context;

PyObject *set_enter_context(PyObject *module, PyObject *code) {
    (void)module;
    replace_reference(&enter_context, Py_NewRef(code));
    Py_RETURN_NONE;
}

static PyObject *back(PyObject *frame) { return PyObject_GetAttrString(frame, "f_back"); }

/* The frame that enters a section now. A new reference; None: there is no Python code. */
PyObject *frame_entering(void) {
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    if (frame == NULL) {
        return Py_NewRef(Py_None);
    }
    PyObject *code = (PyObject *)PyFrame_GetCode((PyFrameObject *)frame);
    Py_DECREF(code); /* the frame has it */
    if (code == enter_context) {
        frame = back(frame);
        if (frame != NULL) {
            return frame;
        }
        PyErr_Clear();
        return Py_NewRef(Py_None);
    }
    return Py_NewRef(frame);
}

enum suspends frame_suspends(PyObject *frame) {
    PyObject *code = PyObject_GetAttrString(frame, "f_code");
    PyObject *flags = code == NULL ? NULL : PyObject_GetAttrString(code, "co_flags");
    long value = flags == NULL ? 0 : PyLong_AsLong(flags);
    Py_XDECREF(flags);
    Py_XDECREF(code);
    PyErr_Clear();
    return (value & CODE_SUSPENDS) != 0 ? SUSPENDABLE : PLAIN;
}

/* Is it on the stack that ends with `current`? (NULL or None: an empty one.) */
bool frame_is_running(PyObject *frame, PyObject *current) {
    bool found = false;
    Py_XINCREF(current);
    while (current != NULL && current != Py_None && !found) {
        found = current == frame;
        PyObject *outer = back(current);
        Py_DECREF(current);
        current = outer;
    }
    Py_XDECREF(current);
    PyErr_Clear();
    return found;
}

static bool is_debuggers(PyObject *frame) {
    PyObject *globals = PyObject_GetAttrString(frame, "f_globals");
    PyObject *name = globals == NULL ? NULL : PyDict_GetItemString(globals, "__name__");
    const char *text =
        name != NULL && PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    bool is = text != NULL && (strcmp(text, "bdb") == 0 || strncmp(text, "pydevd", 6) == 0 ||
                               strncmp(text, "_pydevd", 7) == 0);
    Py_XDECREF(globals);
    PyErr_Clear();
    return is;
}

/* True: a debugger has stopped the program inside the block, at a prompt: between the block's frame
 * and the current one lies one of its own. (Beneath the block there always is one, in a program
 * that was started by `python -m pdb`.) */
bool debugger_holds(PyObject *frame, PyObject *current) {
    bool met = false, found = false;
    Py_XINCREF(current);
    while (current != NULL && current != Py_None && !found) {
        found = current == frame;
        met = met || (!found && is_debuggers(current));
        PyObject *outer = back(current);
        Py_DECREF(current);
        current = outer;
    }
    Py_XDECREF(current);
    PyErr_Clear();
    return met && found;
}

/* It is importlib's own: interrupted between taking the lock of a module and `try`, it keeps it,
 * and whoever imports that module next waits for ever. */
bool is_importing(PyObject *frame) {
    PyObject *globals = PyObject_GetAttrString(frame, "f_globals");
    PyObject *name = globals == NULL ? NULL : PyDict_GetItemString(globals, "__name__");
    const char *text =
        name != NULL && PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    bool is = text != NULL && strncmp(text, "importlib._bootstrap", 20) == 0;
    Py_XDECREF(globals);
    PyErr_Clear();
    return is;
}

/* The current frame of another thread, or NULL: no such thread. */
PyObject *frame_of_thread(unsigned long ident) {
    PyObject *function = PySys_GetObject("_current_frames"); /* borrowed */
    PyObject *frames = function == NULL ? NULL : PyObject_CallFunctionObjArgs(function, NULL);
    PyObject *key = frames == NULL ? NULL : PyLong_FromUnsignedLong(ident);
    PyObject *frame = key == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(frames, key));
    Py_XDECREF(key);
    Py_XDECREF(frames);
    PyErr_Clear();
    return frame;
}
