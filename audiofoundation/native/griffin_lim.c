/* Iterations of Griffin-Lim over a fixed number of frames (features/griffin_lim.py says what they compute).
 *
 * Buffers are float32, complex ones in pairs. Sizes are checked before anything is touched.
 */

#include "native.h"

#define TINY 1e-8f
/* Rows of a turned signal: those of all frames and of the last one's rest, in whole vectors of the widest. */
#define SIGNAL_WIDTH(frames, ratio) (((frames) + (ratio) - 1 + MOST_LANES - 1) / MOST_LANES * MOST_LANES)

struct phases {
    struct spectra spectra;
    const float *magnitude, *before, *gain;
    float *frames, *previous, momentum;
    long num_iterations;
};

#define LANES 4
#include "griffin_lim_lanes.h"
#undef LANES

#ifdef HAS_WIDE
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define LANES 8
#include "griffin_lim_lanes.h"
#undef LANES
#pragma GCC pop_options
#endif

/* Bins, the transform and three turned signals of the widest vectors. */
static void *take_memory(const struct spectra *job)
{
    size_t frames = (size_t)(job->num_frames + MOST_LANES - 1) / MOST_LANES * MOST_LANES;
    size_t signal = (size_t)job->hop * SIGNAL_WIDTH(frames, (size_t)(job->size / job->hop));
    return aligned_alloc(4 * MOST_LANES, 4 * (5 * frames * (job->size / 2 + 1) + job->size * MOST_LANES + 3 * signal));
}

/* Hop, iterations, momentum; frames and previous spectra [T, K] complex (both are replaced), magnitude [T, K], signal under
 * the frames and gain [T + size / hop - 1, hop], window, tables. */
PyObject *griffin_lim(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer frames, previous, magnitude, before, gain, window, tables;
    int hop, num_iterations;
    struct phases job;
    if (!PyArg_ParseTuple(args, "iifw*w*y*y*y*y*y*", &hop, &num_iterations, &job.momentum, &frames, &previous, &magnitude,
                          &before, &gain, &window, &tables))
        return NULL;
    PyObject *result = NULL;
    if (!is_spectra(&job.spectra, &before, hop, &window, &tables) || job.spectra.size % hop || num_iterations < 0)
        refuse("signal, hop, window, tables or iterations do not fit each other");
    else {
        long num_bins = job.spectra.num_frames * (job.spectra.size / 2 + 1);
        job.frames = frames.buf;
        job.previous = previous.buf;
        job.magnitude = magnitude.buf;
        job.before = before.buf;
        job.gain = gain.buf;
        job.num_iterations = num_iterations;
        void *memory = NULL;
        if (frames.len != 8 * num_bins || previous.len != 8 * num_bins || magnitude.len != 4 * num_bins ||
            gain.len != before.len || before.len != 4 * ((job.spectra.num_frames - 1) * hop + job.spectra.size))
            refuse("frames, magnitude, signal and gain do not fit each other");
        else if (!(memory = take_memory(&job.spectra)))
            PyErr_NoMemory();
        else {
            Py_BEGIN_ALLOW_THREADS
            RUN(griffin_lim, &job, memory);
            Py_END_ALLOW_THREADS
            result = Py_NewRef(Py_None);
        }
        free(memory);
    }
    Py_buffer *all[] = {&frames, &previous, &magnitude, &before, &gain, &window, &tables};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        PyBuffer_Release(all[i]);
    return result;
}
