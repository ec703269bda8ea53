/* The inner loops of preprocessing, and the module that holds them, those of generation (decode.c, griffin_lim.c) and
 * the reader of files (libav.c). NumPy and torch do the same where this could not be compiled; tests hold them equal.
 *
 * Every function here takes buffers (float32 unless said otherwise) and checks their sizes before it touches them; those that
 * work for more than a microsecond let go of the interpreter's lock. Tables come from the caller; nothing is kept
 * between calls.
 */

#include "native.h"
#include <float.h>

#define INTERFACE 7 /* raised when a function's arguments change; native/__init__.py names the one it speaks */
#define TURNED_WIDTH(lanes, ratio) (((lanes) + (ratio) - 1 + (lanes) - 1) / (lanes) * (lanes))

/* Bands of neighbouring bins: `count` of them from `first` on, their weights one band after the other. */
struct filters {
    const int *first, *count;
    const float *weights;
    long num_bands;
};

struct bands {
    struct filters filters;
    int power;
    float epsilon;
    float *out;
};

struct description {
    struct filters filters;
    float share, zero;
    double *shapes, rms;
    float *bands, *power;
    long num_crossings;
};

struct loudness {
    const float *samples;
    const double *numerator, *denominator;
    long num_steps, step, warm_up;
    double *out;
};

/* Sums of squares of frames, the last of which may be shorter; extremes and sum of all samples. */
struct survey {
    const float *samples;
    long count, frame;
    double *energies, sum;
    float lowest, highest;
};

#define LANES 4
#include "lanes.h"
#undef LANES

#ifdef HAS_WIDE
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define LANES 8
#include "lanes.h"
#undef LANES
#pragma GCC pop_options
#endif

#if __GNUC__ >= 11 /* an older compiler cannot ask; what has AVX2 has had F16C before */
#define HAS_F16C __builtin_cpu_supports("f16c")
#else
#define HAS_F16C 1
#endif

int num_lanes = 4;

PyObject *refuse(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return NULL;
}

static int is_filters(struct filters *filters, const Py_buffer *first, const Py_buffer *count, const Py_buffer *weights,
                      long num_bins)
{
    long sum = 0;
    filters->num_bands = first->len / 4;
    filters->first = first->buf;
    filters->count = count->buf;
    filters->weights = weights->buf;
    if (count->len != first->len || filters->num_bands < 1)
        return 0;
    for (long band = 0; band < filters->num_bands; band++) {
        long from = filters->first[band], length = filters->count[band];
        if (from < 0 || length < 0 || from + length > num_bins)
            return 0;
        sum += length;
    }
    return sum * 4 == weights->len;
}

int is_spectra(struct spectra *job, const Py_buffer *samples, long hop, const Py_buffer *window, const Py_buffer *tables)
{
    long size = window->len / 4, half = size / 2, num_samples = samples->len / 4;
    if (size < 8 || size > MAX_SIZE || size & (size - 1) || hop < 1 || (hop < size && size % hop))
        return 0;
    if (tables->len != 4 * 4 * half || num_samples < size)
        return 0;
    job->samples = samples->buf;
    job->window = window->buf;
    job->cosines = tables->buf;
    job->sines = job->cosines + half;
    job->half_cosines = job->sines + half;
    job->half_sines = job->half_cosines + half;
    job->size = size;
    job->hop = hop;
    job->num_frames = 1 + (num_samples - size) / hop;
    for (long k = 0; k < half; k++) { /* digits of base four, from the last to the first; one of base two at the end */
        long place = 0, rest = k, part = half;
        while (part >= 4) {
            part /= 4;
            place += rest % 4 * part;
            rest /= 4;
        }
        job->order[k] = (int)(place + (part == 2 ? rest % 2 : 0));
    }
    return 1;
}

/* Room for the transform, the turned samples and two spectra of the widest vectors. */
static void *take_memory(const struct spectra *job)
{
    long columns = job->hop < job->size ? job->hop : job->size;
    size_t vectors = job->size + 2 * (job->size / 2 + 1);
    size_t bytes = vectors * 4 * MOST_LANES + 4 * columns * TURNED_WIDTH(MOST_LANES, job->size / columns);
    return aligned_alloc(4 * MOST_LANES, bytes);
}

static PyObject *band_energies(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer samples, window, tables, first, count, weights, out;
    int hop, power;
    float epsilon;
    if (!PyArg_ParseTuple(args, "y*iy*y*y*y*y*ifw*", &samples, &hop, &window, &tables, &first, &count, &weights, &power,
                          &epsilon, &out))
        return NULL;
    struct spectra job;
    struct bands bands = {.power = power, .epsilon = epsilon, .out = out.buf};
    PyObject *result = NULL;
    if (!is_spectra(&job, &samples, hop, &window, &tables))
        refuse("samples, hop, window or tables do not fit each other");
    else if (!is_filters(&bands.filters, &first, &count, &weights, job.size / 2 + 1) || (power != 1 && power != 2))
        refuse("filters do not fit the transform, or power is neither 1 nor 2");
    else if (out.len != 4 * job.num_frames * bands.filters.num_bands)
        refuse("out has another size than frames times bands");
    else {
        void *memory = take_memory(&job);
        if (!memory)
            PyErr_NoMemory();
        else {
            Py_BEGIN_ALLOW_THREADS
            RUN(band_energies, &job, &bands, memory);
            Py_END_ALLOW_THREADS
            free(memory);
            result = Py_NewRef(Py_None);
        }
    }
    Py_buffer *all[] = {&samples, &window, &tables, &first, &count, &weights, &out};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        PyBuffer_Release(all[i]);
    return result;
}

static PyObject *describe(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer samples, window, tables, first, count, weights, shapes, bands, power;
    int hop;
    float share, zero;
    if (!PyArg_ParseTuple(args, "y*iy*y*y*y*y*ffw*w*w*", &samples, &hop, &window, &tables, &first, &count, &weights, &share,
                          &zero, &shapes, &bands, &power))
        return NULL;
    struct spectra job;
    struct description out = {
        .share = share, .zero = zero, .shapes = shapes.buf, .bands = bands.buf, .power = power.buf};
    PyObject *result = NULL;
    if (!is_spectra(&job, &samples, hop, &window, &tables))
        refuse("samples, hop, window or tables do not fit each other");
    else if (!is_filters(&out.filters, &first, &count, &weights, job.size / 2 + 1))
        refuse("filters do not fit the transform");
    else if (shapes.len != 8 * 3 * job.num_frames || bands.len != 4 * job.num_frames * out.filters.num_bands ||
             power.len != 4 * (job.size / 2 + 1))
        refuse("shapes, bands or power have another size than the frames give");
    else {
        void *memory = take_memory(&job);
        if (!memory)
            PyErr_NoMemory();
        else {
            Py_BEGIN_ALLOW_THREADS
            RUN(describe, &job, &out, memory);
            Py_END_ALLOW_THREADS
            free(memory);
            result = Py_BuildValue("ld", out.num_crossings, out.rms);
        }
    }
    Py_buffer *all[] = {&samples, &window, &tables, &first, &count, &weights, &shapes, &bands, &power};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        PyBuffer_Release(all[i]);
    return result;
}

/* `energies` are float64, one of each frame: samples, frame, energies -> lowest, highest, sum. */
static PyObject *survey(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer samples, energies;
    int frame;
    if (!PyArg_ParseTuple(args, "y*iw*", &samples, &frame, &energies))
        return NULL;
    struct survey job = {.samples = samples.buf, .count = samples.len / 4, .frame = frame, .energies = energies.buf};
    PyObject *result = NULL;
    if (frame < 1 || job.count < 1 || energies.len / 8 != (job.count + frame - 1) / frame)
        refuse("there are no samples, or energies are not as many as frames");
    else {
        Py_BEGIN_ALLOW_THREADS
        RUN(survey, &job);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("ffd", job.lowest, job.highest, job.sum);
    }
    PyBuffer_Release(&samples);
    PyBuffer_Release(&energies);
    return result;
}

/* float32 to float16, the nearest, as many at a time as the machine can; how many were done. */
static PyObject *halve(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer values, out;
    if (!PyArg_ParseTuple(args, "y*w*", &values, &out))
        return NULL;
    long done;
    PyObject *result = NULL;
    if (values.len / 4 != out.len / 2)
        refuse("out has another size");
    else {
        Py_BEGIN_ALLOW_THREADS
        done = RUN(halve, values.buf, values.len / 4, out.buf);
        Py_END_ALLOW_THREADS
        result = PyLong_FromLong(done);
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *step_energies(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer samples, numerator, denominator, out;
    int step, warm_up;
    if (!PyArg_ParseTuple(args, "y*iiy*y*w*", &samples, &step, &warm_up, &numerator, &denominator, &out))
        return NULL;
    struct loudness job = {.samples = samples.buf, .numerator = numerator.buf, .denominator = denominator.buf,
                           .num_steps = out.len / 8, .step = step, .warm_up = warm_up, .out = out.buf};
    PyObject *result = NULL;
    if (step < 1 || warm_up < 0 || job.num_steps < 1 || samples.len / 4 != warm_up + job.num_steps * step)
        refuse("samples are not the warm-up and whole steps");
    else if (numerator.len != 5 * 8 || denominator.len != 5 * 8)
        refuse("the filter is not of fourth order");
    else {
        Py_BEGIN_ALLOW_THREADS
        RUN(step_energies, &job);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    Py_buffer *all[] = {&samples, &numerator, &denominator, &out};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        PyBuffer_Release(all[i]);
    return result;
}

long mix_planes(float *out, const float *const *planes, long num_planes, long count, float loudest)
{
    return RUN(mix, out, planes, num_planes, count, loudest);
}

static int choose_lanes(int most)
{
#ifdef HAS_WIDE
    __builtin_cpu_init();
    if (most >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HAS_F16C)
        return 8;
#endif
    (void)most;
    return 4;
}

/* For tests: work with at most so many lanes from now on; returns how many those are. */
static PyObject *use_lanes(PyObject *module, PyObject *args)
{
    (void)module;
    int most;
    if (!PyArg_ParseTuple(args, "i", &most))
        return NULL;
    num_lanes = choose_lanes(most);
    return PyLong_FromLong(num_lanes);
}

static PyMethodDef methods[] = {
    {"band_energies", band_energies, METH_VARARGS, NULL},
    {"describe", describe, METH_VARARGS, NULL},
    {"survey", survey, METH_VARARGS, NULL},
    {"halve", halve, METH_VARARGS, NULL},
    {"step_energies", step_energies, METH_VARARGS, NULL},
    {"griffin_lim", griffin_lim, METH_VARARGS, NULL},
    {"project", project, METH_VARARGS, NULL},
    {"decode_block", decode_block, METH_VARARGS, NULL},
    {"convnext_block", convnext_block, METH_VARARGS, NULL},
    {"libav_load", libav_load, METH_VARARGS, NULL},
    {"libav_warm_up", libav_warm_up, METH_VARARGS, NULL},
    {"libav_open", libav_open, METH_VARARGS, NULL},
    {"libav_start", libav_start, METH_O, NULL},
    {"libav_read", libav_read, METH_VARARGS, NULL},
    {"use_lanes", use_lanes, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void)
{
    num_lanes = choose_lanes(MOST_LANES);
    PyObject *module = PyModule_Create(&definition);
    if (module && (PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) ||
                   PyModule_AddIntConstant(module, "NUM_LANES", num_lanes))) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
