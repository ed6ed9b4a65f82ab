/* Entering: the step between a `with` statement's __enter__ and its block.
 * Context: the main thread, with the GIL.
 * Callers: module.c, when the engine opens; delivery.c, before it runs anything.
 *
 * On 3.14 `with` calls __enter__ by an ordinary call, and the interpreter ends each call with a
 * look for signals: here before the block has begun. A handler that raised there left a lock taken,
 * or signals blocked, by a `with` that nobody would ever leave (with blocked(): 1 in 20,000 of the
 * handlers that raised at any moment). So a delivery that finds itself there puts itself off until
 * the next look, in the block or after it. 3.13 and 3.15 have no look in this step.
 *
 * Only the statement is known by its bytecode: an __enter__ that Python code calls and then has to
 * remember (ExitStack) is not, on any version. */
#include "engine.h"

static struct {
    PyObject *f_code, *f_lasti, *co_code; /* names; NULL: nothing to look for */
    long call, load_special;              /* opcodes */
} entering;

void entering_open(void) {
    if (Py_Version >> 16 != 0x030E) {
        return;
    }
    PyObject *metadata = PyImport_ImportModule("_opcode_metadata");
    PyObject *opmap = metadata == NULL ? NULL : PyObject_GetAttrString(metadata, "opmap");
    PyObject *call = opmap == NULL ? NULL : PyMapping_GetItemString(opmap, "CALL");
    PyObject *load = call == NULL ? NULL : PyMapping_GetItemString(opmap, "LOAD_SPECIAL");
    if (load != NULL) {
        entering.call = PyLong_AsLong(call);
        entering.load_special = PyLong_AsLong(load);
        entering.f_lasti = PyUnicode_InternFromString("f_lasti");
        entering.co_code = PyUnicode_InternFromString("co_code");
        entering.f_code = PyUnicode_InternFromString("f_code");
    }
    Py_XDECREF(load);
    Py_XDECREF(call);
    Py_XDECREF(opmap);
    Py_XDECREF(metadata);
    PyErr_Clear(); /* without these names it is no CPython 3.14, and has other steps */
}

static bool calls_enter(PyObject *frame) {
    PyObject *lasti = PyObject_GetAttr(frame, entering.f_lasti);
    PyObject *code = lasti == NULL ? NULL : PyObject_GetAttr(frame, entering.f_code);
    PyObject *bytecode = code == NULL ? NULL : PyObject_GetAttr(code, entering.co_code);
    bool found = false;
    char *bytes;
    Py_ssize_t length;
    if (bytecode != NULL && PyBytes_AsStringAndSize(bytecode, &bytes, &length) == 0) {
        long at = PyLong_AsLong(lasti); /* an instruction is two bytes, the first its opcode */
        found = at >= 2 && at < length && (unsigned char)bytes[at] == entering.call &&
                (unsigned char)bytes[at - 2] == entering.load_special;
    }
    Py_XDECREF(bytecode);
    Py_XDECREF(code);
    Py_XDECREF(lasti);
    return found;
}

/* True: not now, the next look is soon. */
bool is_entering(PyObject *frame) {
    if (entering.f_code == NULL || frame == Py_None) {
        return false;
    }
    bool found = calls_enter(frame);
    PyErr_Clear(); /* no memory for a look: as up to now */
    return found;
}
