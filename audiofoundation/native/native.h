/* What the files of this extension share. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define GLUE_(a, b) a##_##b
#define GLUE(a, b) GLUE_(a, b)
#define NAME(x) GLUE(x, LANES)

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HAS_WIDE
#include <immintrin.h>
#define RUN(kernel, ...) (num_lanes == 8 ? kernel##_8(__VA_ARGS__) : kernel##_4(__VA_ARGS__))
#else
#define RUN(kernel, ...) kernel##_4(__VA_ARGS__)
#endif

extern int num_lanes; /* of a vector: 4, or 8 where there is AVX2 */

/* Raise ValueError; always NULL. */
PyObject *refuse(const char *what);

#define MOST_LANES 8
#define MAX_SIZE 4096

/* Frames of `size` samples, `hop` apart, and the tables of their real transform. */
struct spectra {
    const float *samples, *window, *cosines, *sines, *half_cosines, *half_sines;
    long num_frames, hop, size;
    int order[MAX_SIZE / 2];
};

/* Whether these fit each other. `tables`: cosines and sines of 2 pi k / (size / 2), then of 2 pi k / size, for k below
 * size / 2. */
int is_spectra(struct spectra *job, const Py_buffer *samples, long hop, const Py_buffer *window, const Py_buffer *tables);

/* The mean of planes of `count` samples. Those that are not finite, or above `loudest`, count as silence and are
 * counted in what is returned.
 */
long mix_planes(float *out, const float *const *planes, long num_planes, long count, float loudest);

PyObject *griffin_lim(PyObject *module, PyObject *args);
PyObject *project(PyObject *module, PyObject *args);
PyObject *decode_block(PyObject *module, PyObject *args);
PyObject *convnext_block(PyObject *module, PyObject *args);
PyObject *libav_load(PyObject *module, PyObject *args);
PyObject *libav_warm_up(PyObject *module, PyObject *args);
PyObject *libav_open(PyObject *module, PyObject *args);
PyObject *libav_start(PyObject *module, PyObject *capsule);
PyObject *libav_read(PyObject *module, PyObject *args);
