/* Places: steps of the bytecode at which the interpreter looks for signals, but nothing may be
 * raised, since no __exit__, `finally` or `except` around them would see it.
 * Context: any thread, with the GIL. Only where something is about to be run or raised.
 * Callers: delivery.c, interrupting.c, putting_off.c.
 *
 * Entering. On 3.14 `with` calls __enter__ by an ordinary call, and the interpreter ends each call
 * with a look for signals: here before the block has begun. A handler that raised there left a lock
 * taken, or signals blocked, by a `with` that nobody would ever leave (with blocked(): 1 in 20,000
 * of the handlers that raised at any moment). 3.13 and 3.15 have no look in this step. Only the
 * statement is known by its bytecode: an __enter__ that Python code calls and then has to remember
 * (ExitStack) is not, on any version.
 *
 * Holes. From 3.12 to 3.14 the compiler leaves the jump back of some loops out of the exception
 * table (CPython's tracker, 108214 and 130279): `while a < b: pass` in a `with` or `try`. There the
 * interpreter looks at each turn, and what is raised passes by all that surrounds the loop. */
#include "engine.h"

/* Fixed for each version of the bytecode; test_places.py compares. 0: it has no such place. */
struct opcodes {
    unsigned char call, load_special, jump_backward, jump_caches, extended_arg, resume;
};

static struct opcodes opcodes(void) {
    switch (Py_Version >> 16) {
    case 0x030C:
        return (struct opcodes){0, 0, 140, 0, 144, 0};
    case 0x030D:
        return (struct opcodes){0, 0, 77, 1, 71, 0};
    case 0x030E:
        return (struct opcodes){52, 95, 75, 1, 69, 0};
    case 0x030F:
        return (struct opcodes){0, 0, 74, 1, 67, 128};
    default:
        return (struct opcodes){0, 0, 0, 0, 0, 0};
    }
}

struct place {
    PyObject *bytecode, *table; /* references */
    const unsigned char *bytes, *entries;
    Py_ssize_t length, entries_length;
};

static bool read_code(PyObject *code, struct place *place) {
    char *bytes, *entries;
    *place = (struct place){0};
    place->bytecode = PyObject_GetAttrString(code, "co_code");
    place->table = PyObject_GetAttrString(code, "co_exceptiontable");
    bool read = place->bytecode != NULL && place->table != NULL &&
                PyBytes_AsStringAndSize(place->bytecode, &bytes, &place->length) == 0 &&
                PyBytes_AsStringAndSize(place->table, &entries, &place->entries_length) == 0;
    if (read) {
        place->bytes = (const unsigned char *)bytes;
        place->entries = (const unsigned char *)entries;
    }
    PyErr_Clear();
    return read;
}

static void release(struct place *place) {
    Py_XDECREF(place->bytecode);
    Py_XDECREF(place->table);
}

static const unsigned char *read_varint(const unsigned char *at, const unsigned char *end,
                                        Py_ssize_t *value) {
    *value = 0;
    while (at < end) {
        unsigned char byte = *at++;
        *value = *value << 6 | (byte & 0x3F);
        if (!(byte & 0x40)) {
            break;
        }
    }
    return at;
}

/* Objects/exception_handling_notes.txt. Offsets in instructions of two bytes. */
static bool is_covered(const struct place *place, Py_ssize_t instruction) {
    const unsigned char *at = place->entries, *end = at + place->entries_length;
    while (at < end) {
        Py_ssize_t start, length, target, depth;
        at = read_varint(at, end, &start);
        at = read_varint(at, end, &length);
        at = read_varint(at, end, &target);
        at = read_varint(at, end, &depth);
        if (instruction >= start && instruction < start + length) {
            return true;
        }
    }
    return false;
}

/* A jump back that is not covered, though the loop that it goes back to is. */
static bool is_hole(const struct place *place, Py_ssize_t instruction) {
    const struct opcodes op = opcodes();
    const unsigned char *bytes = place->bytes;
    if (op.jump_backward == 0 || place->entries_length == 0 || instruction < 0 ||
        instruction * 2 >= place->length || bytes[instruction * 2] != op.jump_backward ||
        is_covered(place, instruction)) {
        return false;
    }
    Py_ssize_t distance = bytes[instruction * 2 + 1];
    Py_ssize_t before = instruction - 1;
    for (int shift = 8; before >= 0 && bytes[before * 2] == op.extended_arg; shift += 8) {
        distance |= (Py_ssize_t)bytes[before * 2 + 1] << shift;
        before--;
    }
    return is_covered(place, instruction + 1 + op.jump_caches - distance);
}

static bool look(PyObject *frame, bool (*is)(const struct place *, Py_ssize_t)) {
    PyObject *lasti = PyObject_GetAttrString(frame, "f_lasti");
    PyObject *code = lasti == NULL ? NULL : PyObject_GetAttrString(frame, "f_code");
    struct place place = {0};
    bool found = code != NULL && read_code(code, &place) && is(&place, PyLong_AsLong(lasti) / 2);
    release(&place);
    Py_XDECREF(code);
    Py_XDECREF(lasti);
    PyErr_Clear();
    return found;
}

static bool calls_enter(const struct place *place, Py_ssize_t instruction) {
    const struct opcodes op = opcodes();
    return instruction >= 1 && instruction * 2 < place->length &&
           place->bytes[instruction * 2] == op.call &&
           place->bytes[instruction * 2 - 2] == op.load_special;
}

/* True: not now, the next look is soon. */
bool is_entering(PyObject *frame) {
    return opcodes().load_special != 0 && frame != Py_None && look(frame, calls_enter);
}

/* The frame is of the trace function that the other one called. */
static bool traces(PyObject *frame, PyObject *traced) {
    PyObject *function = PyObject_GetAttrString(traced, "f_trace");
    PyObject *its = function == NULL ? NULL : PyObject_GetAttrString(function, "__code__");
    PyObject *code = its == NULL ? NULL : PyObject_GetAttrString(frame, "f_code");
    bool does = code != NULL && code == its;
    Py_XDECREF(code);
    Py_XDECREF(its);
    Py_XDECREF(function);
    PyErr_Clear();
    return does;
}

/* This frame, where it stands in a hole; or the one that called it there as its trace function. A
 * new reference, or NULL. No exception may be set. */
PyObject *frame_in_hole(PyObject *frame) {
    if (opcodes().jump_backward == 0 || frame == NULL || frame == Py_None) {
        return NULL;
    }
    if (look(frame, is_hole)) {
        return Py_NewRef(frame);
    }
    PyObject *outer = PyObject_GetAttrString(frame, "f_back");
    PyErr_Clear();
    if (outer != NULL && outer != Py_None && look(outer, is_hole) && traces(frame, outer)) {
        return outer;
    }
    Py_XDECREF(outer);
    return NULL;
}

/* Would a block around it see what is raised there? `offset` in bytes. */
bool is_in_block(PyObject *code, long offset) {
    struct place place;
    bool in = read_code(code, &place) && is_covered(&place, offset / 2);
    release(&place);
    return in;
}

static bool looks_there(const struct place *place, Py_ssize_t instruction) {
    const struct opcodes op = opcodes();
    unsigned char here = instruction * 2 < place->length ? place->bytes[instruction * 2] : 0;
    return here == op.jump_backward || here == op.resume;
}

/* On 3.15 an asynchronous exception that is set while its thread stands here is raised by the next
 * look, and from then on also by those in C code that were for signals only. There it may be lost:
 * that of repr(), in a function that makes a message of its own. */
bool next_look_may_lose_it(PyObject *frame) {
    return opcodes().resume != 0 && look(frame, looks_there);
}

bool has_holes(PyObject *code) {
    struct place place;
    if (opcodes().jump_backward == 0) {
        return false;
    }
    bool found = false;
    if (read_code(code, &place)) {
        for (Py_ssize_t i = 0; !found && i * 2 < place.length; i++) {
            found = is_hole(&place, i);
        }
    }
    release(&place);
    return found;
}
