/* What the files of this extension share. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Raise ValueError; always NULL. */
PyObject *refuse(const char *what);

/* The mean of planes of `count` samples. Those that are not finite, or above `loudest`, count as silence and are
 * counted in what is returned.
 */
long mix_planes(float *out, const float *const *planes, long num_planes, long count, float loudest);

PyObject *libav_load(PyObject *module, PyObject *args);
PyObject *libav_warm_up(PyObject *module, PyObject *args);
PyObject *libav_open(PyObject *module, PyObject *args);
PyObject *libav_start(PyObject *module, PyObject *capsule);
PyObject *libav_read(PyObject *module, PyObject *args);
