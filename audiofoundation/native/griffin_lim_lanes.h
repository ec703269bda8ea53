/* Griffin-Lim for one width of vectors; griffin_lim.c includes this once for each.
 *
 * Each lane is a frame. Signals lie turned, [hop, width]: the samples of neighbouring frames at one place stand beside each
 * other, so frames are added to and taken from the signal without moving a lane.
 *
 * Expects LANES and NAME(x), which makes a name of this width's own.
 */

#include "fft_lanes.h"

/* A bin of LANES frames. */
#define bin NAME(bin)
struct bin {
    floats re, im, before_re, before_im, magnitude;
};

INLINE void NAME(turn)(const struct phases *job, const float *rows, float *turned, long width)
{
    long hop = job->spectra.hop, num_rows = job->spectra.num_frames + job->spectra.size / hop - 1;
    for (long column = 0; column < hop; column++)
        for (long row = 0; row < width; row++)
            turned[column * width + row] = row < num_rows ? rows[row * hop + column] : 0.0f;
}

/* Bins 0 to half -> real frames, unscaled: those of even samples in im, of odd ones in re, the n-th at order[n]. A transform
 * of exchanged parts is the inverse with exchanged parts. */
INLINE void NAME(invert)(const struct spectra *job, const struct bin *bins, floats *re, floats *im)
{
    long half = job->size / 2;
    im[0] = (bins[0].re + bins[half].re) * 0.5f;
    re[0] = (bins[0].re - bins[half].re) * 0.5f;
    for (long k = 1; k <= half / 2; k++) {
        floats a_re = bins[k].re, a_im = bins[k].im, b_re = bins[half - k].re, b_im = bins[half - k].im;
        floats even_re = (a_re + b_re) * 0.5f, even_im = (a_im - b_im) * 0.5f;
        floats odd_re = (a_re - b_re) * 0.5f, odd_im = (a_im + b_im) * 0.5f;
        float c = job->half_cosines[k], s = job->half_sines[k];
        floats turned_re = odd_re * c - odd_im * s, turned_im = odd_re * s + odd_im * c;
        im[k] = even_re - turned_im;
        re[k] = even_im + turned_re;
        im[half - k] = even_re + turned_im;
        re[half - k] = turned_re - even_im;
    }
    NAME(transform)(re, im, half, job->cosines, job->sines);
}

/* Add the windowed frames to the signal. */
INLINE void NAME(add_frames)(const struct spectra *job, const floats *re, const floats *im, float *turned, long width)
{
    float scale = 1.0f / (float)(job->size / 2);
    for (long part = 0, n = 0; part < job->size / job->hop; part++)
        for (long column = 0; column < job->hop; column++, n++) {
            floats value = (n % 2 ? re : im)[job->order[n / 2]];
            *(loose *)(turned + column * width + part) += value * (job->window[n] * scale);
        }
}

INLINE void NAME(take_frames)(const struct spectra *job, const float *turned, long width, floats *re, floats *im)
{
    for (long part = 0, n = 0; part < job->size / job->hop; part++)
        for (long column = 0; column < job->hop; column++, n++)
            (n % 2 ? im : re)[n / 2] = *(const loose *)(turned + column * width + part) * job->window[n];
}

/* Extrapolate by momentum, then give the bin its magnitude back. */
INLINE void NAME(update)(struct bin *it, floats re, floats im, float momentum)
{
    floats moved_re = re - it->before_re * momentum, moved_im = im - it->before_im * momentum;
    floats gain = it->magnitude / (NAME(root)(moved_re * moved_re + moved_im * moved_im) + TINY);
    it->re = moved_re * gain;
    it->im = moved_im * gain;
    it->before_re = re;
    it->before_im = im;
}

/* The spectrum of frames, bin by bin. */
INLINE void NAME(update_bins)(const struct spectra *job, struct bin *bins, floats *re, floats *im, float momentum)
{
    long half = job->size / 2;
    NAME(transform)(re, im, half, job->cosines, job->sines);
    NAME(update)(&bins[0], re[0] + im[0], (floats){0}, momentum);
    NAME(update)(&bins[half], re[0] - im[0], (floats){0}, momentum);
    for (long k = 1; k <= half / 2; k++) {
        long here = job->order[k], there = job->order[half - k];
        floats even_re = (re[here] + re[there]) * 0.5f, even_im = (im[here] - im[there]) * 0.5f;
        floats odd_re = (im[here] + im[there]) * 0.5f, odd_im = (re[there] - re[here]) * 0.5f;
        float c = job->half_cosines[k], s = job->half_sines[k];
        floats turned_re = odd_re * c + odd_im * s, turned_im = odd_im * c - odd_re * s;
        NAME(update)(&bins[k], even_re + turned_re, even_im + turned_im, momentum);
        if (k < half - k)
            NAME(update)(&bins[half - k], even_re - turned_re, turned_im - even_im, momentum);
    }
}

/* Copy all bins in or out; lanes beyond the last frame are silent. */
INLINE void NAME(copy_bins)(const struct phases *job, struct bin *bins, int is_out)
{
    long num_bins = job->spectra.size / 2 + 1, last = job->spectra.num_frames - 1;
    for (long frame = 0; frame <= (last | (LANES - 1)); frame++)
        for (long k = 0; k < num_bins; k++) {
            struct bin *it = bins + frame / LANES * num_bins + k;
            long lane = frame % LANES, at = frame * num_bins + k;
            if (is_out && frame <= last) {
                job->frames[2 * at] = it->re[lane];
                job->frames[2 * at + 1] = it->im[lane];
                job->previous[2 * at] = it->before_re[lane];
                job->previous[2 * at + 1] = it->before_im[lane];
            } else if (!is_out) {
                it->re[lane] = frame <= last ? job->frames[2 * at] : 0.0f;
                it->im[lane] = frame <= last ? job->frames[2 * at + 1] : 0.0f;
                it->before_re[lane] = frame <= last ? job->previous[2 * at] : 0.0f;
                it->before_im[lane] = frame <= last ? job->previous[2 * at + 1] : 0.0f;
                it->magnitude[lane] = frame <= last ? job->magnitude[at] : 0.0f;
            }
        }
}

static void NAME(griffin_lim)(const struct phases *job, void *memory)
{
    const struct spectra *spectra = &job->spectra;
    long num_bins = spectra->size / 2 + 1, groups = (spectra->num_frames + LANES - 1) / LANES;
    long width = SIGNAL_WIDTH(groups * LANES, spectra->size / spectra->hop), count = spectra->hop * width;
    struct bin *bins = memory;
    floats *re = (floats *)(bins + groups * num_bins), *im = re + spectra->size / 2;
    float *before = (float *)(im + spectra->size / 2), *gain = before + count, *signal = gain + count;
    NAME(copy_bins)(job, bins, 0);
    NAME(turn)(job, job->before, before, width);
    NAME(turn)(job, job->gain, gain, width);
    for (long iteration = 0; iteration < job->num_iterations; iteration++) {
        memcpy(signal, before, 4 * count);
        for (long group = 0; group < groups; group++) {
            NAME(invert)(spectra, bins + group * num_bins, re, im);
            NAME(add_frames)(spectra, re, im, signal + group * LANES, width);
        }
        for (long i = 0; i < count; i++)
            signal[i] *= gain[i];
        for (long group = 0; group < groups; group++) {
            NAME(take_frames)(spectra, signal + group * LANES, width, re, im);
            NAME(update_bins)(spectra, bins + group * num_bins, re, im, job->momentum);
        }
    }
    NAME(copy_bins)(job, bins, 1);
}
