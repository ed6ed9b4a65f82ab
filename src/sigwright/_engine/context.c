/* Context methods: __enter__ and __exit__ of deferred() and the limits, without bound methods.
 * Context: any thread, with the GIL.
 * Callers: deferral.c and limits.c make them; the interpreter calls.
 *
 * Up to 3.13 `with` binds both methods before it calls them: two objects made and freed, a third of
 * what a section costs. So these two descriptors give, instead of a bound method, the object
 * itself, and calling it enters (no argument), leaves (three: an exception's), or decorates (one: a
 * function). The price: a call without an argument, which is no use, is no error; and a subclass
 * with a __call__ of its own would be called instead, so the types are final. From 3.14 on the
 * interpreter calls method descriptors unbound: there they are as they are. Looked up on the class
 * (as ExitStack does), they are ordinary methods on all versions. */
#include "engine.h"

struct context_method {
    PyObject_HEAD PyObject *method; /* the ordinary descriptor */
};

static PyTypeObject *context_method_type;

static PyObject *get(PyObject *self, PyObject *object, PyObject *type) {
    (void)type;
    if (object == NULL || object == Py_None) {
        return Py_NewRef(((struct context_method *)self)->method);
    }
    return Py_NewRef(object);
}

static void dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((struct context_method *)self)->method);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_descr_get, get},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "sigwright._engine.context_method",
    .basicsize = sizeof(struct context_method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

static bool replace(PyObject *type, const char *name) {
    PyObject *method = PyObject_GetAttrString(type, name);
    if (method == NULL) {
        return false;
    }
    struct context_method *self = PyObject_New(struct context_method, context_method_type);
    if (self == NULL) {
        Py_DECREF(method);
        return false;
    }
    self->method = method;
    bool replaced = PyObject_SetAttrString(type, name, (PyObject *)self) == 0;
    Py_DECREF((PyObject *)self);
    return replaced;
}

static PyObject *decorate(PyObject *object, PyObject *function, const char *module_name) {
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *decorated =
        module == NULL ? NULL : PyObject_CallMethod(module, "_decorate", "OO", object, function);
    Py_XDECREF(module);
    return decorated;
}

/* The tp_call of such a type. Functions are wrapped in Python, by the module's _decorate(). */
PyObject *context_call(PyObject *object, PyObject *args, PyObject *kwargs,
                       const struct context_functions *functions) {
    if (kwargs != NULL && PyDict_Size(kwargs) == 0) {
        kwargs = NULL;
    }
    Py_ssize_t count = PyTuple_Size(args);
    if (kwargs == NULL && count == 0 && Py_Version < 0x030E0000) {
        return functions->enter(object, NULL);
    }
    PyObject *arguments[3];
    for (Py_ssize_t i = 0; i < count && i < 3; i++) {
        arguments[i] = PyTuple_GetItem(args, i);
    }
    if (kwargs == NULL && count == 3 && Py_Version < 0x030E0000) {
        return functions->exit(object, arguments, 3);
    }
    if (kwargs == NULL && count == 1) {
        return decorate(object, arguments[0], functions->module);
    }
    PyErr_SetString(PyExc_TypeError, "a decorator takes one function");
    return NULL;
}

/* For a new type whose tp_call is context_call(). */
bool add_context_methods(PyObject *type) {
    if (Py_Version >= 0x030E0000) {
        return true;
    }
    if (context_method_type == NULL) {
        context_method_type = (PyTypeObject *)PyType_FromSpec(&spec);
    }
    return context_method_type != NULL && replace(type, "__enter__") && replace(type, "__exit__");
}
