/* The kernels for one width of vectors; _kernels.c includes this once for each.
 *
 * LANES float32 values are worked on at once, and each lane is a frame of its own (or, for the loudness filter, a
 * stretch of its own): no value ever has to cross from lane to lane.
 *
 * Expects LANES and NAME(x), which makes a name of this width's own.
 */

#include "fft_lanes.h"

/* Lay `num` frames side by side, one a lane, under the window: even samples to re, odd ones to im. Frames that overlap
 * share their samples: those `hop` apart stand in neighbouring lanes, so each sample is moved once. */
INLINE void NAME(load)(const struct spectra *job, const float *samples, long num, float *turned, floats *re, floats *im)
{
    long columns = job->hop < job->size ? job->hop : job->size, ratio = job->size / columns;
    long width = TURNED_WIDTH(LANES, ratio), rows = num + ratio - 1;
    for (long column = 0; column < columns; column++)
        for (long row = 0; row < rows; row++)
            turned[column * width + row] = samples[row * job->hop + column];
    for (long row = rows; row < width && num < LANES; row++) /* nothing is left there of the block before */
        for (long column = 0; column < columns; column++)
            turned[column * width + row] = 0.0f;
    for (long part = 0; part < ratio; part++)
        for (long column = 0; column < columns; column++) {
            long sample = part * columns + column;
            floats value = *(const loose *)(turned + column * width + part) * job->window[sample];
            if (sample % 2)
                im[sample / 2] = value;
            else
                re[sample / 2] = value;
        }
}

/* The power |X[k]|² of bins 0 to size / 2 of `num` frames. */
INLINE void NAME(powers)(const struct spectra *job, const float *samples, long num, floats *work, floats *power)
{
    long half = job->size / 2;
    floats *re = work, *im = re + half;
    NAME(load)(job, samples, num, (float *)(im + half), re, im);
    NAME(transform)(re, im, half, job->cosines, job->sines);
    floats sum = re[0] + im[0], difference = re[0] - im[0];
    power[0] = sum * sum;
    power[half] = difference * difference;
    for (long k = 1; k <= half / 2; k++) {
        long here = job->order[k], there = job->order[half - k];
        floats even_re = (re[here] + re[there]) * 0.5f, even_im = (im[here] - im[there]) * 0.5f;
        floats odd_re = (im[here] + im[there]) * 0.5f, odd_im = (re[there] - re[here]) * 0.5f;
        float c = job->half_cosines[k], s = job->half_sines[k];
        floats turned_re = odd_re * c + odd_im * s, turned_im = odd_im * c - odd_re * s;
        floats a = even_re + turned_re, b = even_im + turned_im;
        power[k] = a * a + b * b;
        a = even_re - turned_re;
        b = even_im - turned_im;
        power[half - k] = a * a + b * b;
    }
}

/* out[frame][band] = sum over the band's bins of weight * value */
INLINE void NAME(filter)(const struct filters *filters, const floats *values, long num, float *out)
{
    const float *weight = filters->weights;
    for (long band = 0; band < filters->num_bands; band++) {
        const floats *value = values + filters->first[band];
        floats sum = {0};
        for (int i = 0; i < filters->count[band]; i++)
            sum += value[i] * *weight++;
        for (long frame = 0; frame < num; frame++)
            out[frame * filters->num_bands + band] = sum[frame];
    }
}

static void NAME(band_energies)(const struct spectra *job, const struct bands *bands, void *memory)
{
    long half = job->size / 2;
    floats *values = memory, *work = values + half + 1;
    for (long frame = 0; frame < job->num_frames; frame += LANES) {
        long num = job->num_frames - frame < LANES ? job->num_frames - frame : LANES;
        NAME(powers)(job, job->samples + frame * job->hop, num, work, values);
        if (bands->power == 1)
            for (long k = 0; k <= half; k++)
                values[k] = NAME(root)(values[k] + bands->epsilon);
        NAME(filter)(&bands->filters, values, num, bands->out + frame * bands->filters.num_bands);
    }
}

/* Centre of gravity and spread as shares of the highest frequency, and the bin below which 85 % lie. */
INLINE void NAME(shape)(const floats *magnitudes, long half, float share, long num, double *out)
{
    floats total = {0}, first = {0}, second = {0}, risen = {0}, below = {0};
    for (long k = 0; k <= half; k++) {
        float place = (float)k / (float)half;
        floats moment = magnitudes[k] * place;
        total += magnitudes[k];
        first += moment;
        second += moment * place;
    }
    floats limit = total * share;
    for (long k = 0; k <= half; k++) {
        risen += magnitudes[k];
        for (int lane = 0; lane < LANES; lane++)
            below[lane] += risen[lane] < limit[lane] ? 1.0f : 0.0f;
    }
    for (long frame = 0; frame < num; frame++, out += 3) {
        double sum = total[frame] < FLT_MIN ? 1.0 : total[frame];
        double mean = first[frame] / sum, spread = second[frame] / sum - mean * mean;
        out[0] = mean;
        out[1] = spread > 0.0 ? sqrt(spread) : 0.0;
        out[2] = below[frame] / (double)half;
    }
}

/* Add how often a frame's samples change their sign, and the root of their mean square. */
INLINE void NAME(loudness_of_frame)(const float *samples, long size, struct description *out)
{
    int num_crossings = 0;
    for (long n = 1; n < size; n++)
        num_crossings += (samples[n] < -out->zero) != (samples[n - 1] < -out->zero);
    floats squares = {0};
    for (long n = 0; n < size; n += LANES) {
        floats x = *(const loose *)(samples + n);
        squares += x * x;
    }
    double sum = 0.0;
    for (int lane = 0; lane < LANES; lane++)
        sum += squares[lane];
    out->num_crossings += num_crossings;
    out->rms += sqrt(sum / (double)size);
}

static void NAME(describe)(const struct spectra *job, struct description *out, void *memory)
{
    long half = job->size / 2;
    floats *sums = memory, *values = sums + half + 1, *work = values + half + 1;
    memset(sums, 0, sizeof(floats) * (half + 1));
    for (long frame = 0; frame < job->num_frames; frame += LANES) {
        long num = job->num_frames - frame < LANES ? job->num_frames - frame : LANES;
        NAME(powers)(job, job->samples + frame * job->hop, num, work, values);
        NAME(filter)(&out->filters, values, num, out->bands + frame * out->filters.num_bands);
        floats is_frame = {0};
        for (long lane = 0; lane < num; lane++) {
            is_frame[lane] = 1.0f;
            NAME(loudness_of_frame)(job->samples + (frame + lane) * job->hop, job->size, out);
        }
        for (long k = 0; k <= half; k++) {
            sums[k] += values[k] * is_frame;
            values[k] = NAME(root)(values[k]);
        }
        NAME(shape)(values, half, out->share, num, out->shapes + frame * 3);
    }
    for (long k = 0; k <= half; k++) {
        float sum = 0.0f;
        for (int lane = 0; lane < LANES; lane++)
            sum += sums[k][lane];
        out->power[k] = sum / (float)job->num_frames;
    }
    out->rms /= (double)job->num_frames;
}

/* a where the mask is set, b elsewhere */
INLINE floats NAME(choose)(masks mask, floats a, floats b)
{
    return (floats)(((masks)a & mask) | ((masks)b & ~mask));
}

/* In two strands, so that one's results need not be waited for. */
static void NAME(survey)(struct survey *job)
{
    floats lowest[2], highest[2];
    for (int lane = 0; lane < LANES; lane++)
        lowest[0][lane] = lowest[1][lane] = highest[0][lane] = highest[1][lane] = job->samples[0];
    for (long start = 0, length; start < job->count; start += length) {
        const float *samples = job->samples + start;
        length = job->count - start < job->frame ? job->count - start : job->frame;
        floats squares[2] = {{0}}, sums[2] = {{0}};
        long n = 0;
        for (; n + 2 * LANES <= length; n += 2 * LANES)
            for (int strand = 0; strand < 2; strand++) {
                floats x = *(const loose *)(samples + n + strand * LANES);
                squares[strand] += x * x;
                sums[strand] += x;
                lowest[strand] = NAME(choose)(x < lowest[strand], x, lowest[strand]);
                highest[strand] = NAME(choose)(x > highest[strand], x, highest[strand]);
            }
        double energy = 0.0, sum = 0.0;
        for (int lane = 0; lane < LANES; lane++) {
            energy += squares[0][lane] + squares[1][lane];
            sum += sums[0][lane] + sums[1][lane];
        }
        for (; n < length; n++) {
            energy += samples[n] * samples[n];
            sum += samples[n];
            lowest[0][0] = samples[n] < lowest[0][0] ? samples[n] : lowest[0][0];
            highest[0][0] = samples[n] > highest[0][0] ? samples[n] : highest[0][0];
        }
        *job->energies++ = energy;
        job->sum += sum;
    }
    job->lowest = lowest[0][0];
    job->highest = highest[0][0];
    for (int lane = 0; lane < 2 * LANES; lane++) {
        float low = lowest[lane / LANES][lane % LANES], high = highest[lane / LANES][lane % LANES];
        job->lowest = low < job->lowest ? low : job->lowest;
        job->highest = high > job->highest ? high : job->highest;
    }
}

static long NAME(halve)(const float *values, long count, void *out)
{
    long n = 0;
#if LANES == 8
    for (__m128i *halves = out; n + LANES <= count; n += LANES)
        _mm_storeu_si128(halves++, _mm256_cvtps_ph(_mm256_loadu_ps(values + n), _MM_FROUND_TO_NEAREST_INT));
#else
    (void)values, (void)count, (void)out;
#endif
    return n;
}

/* Mean squares of the filtered samples, a step at a time. Each lane filters a stretch of consecutive steps and begins
 * `warm_up` samples before it, from rest: by the first step its filter has forgotten that. */
static void NAME(step_energies)(const struct loudness *job)
{
    const double *b = job->numerator, *a = job->denominator;
    long most = (job->num_steps + DOUBLES - 1) / DOUBLES, first[DOUBLES];
    const float *samples[DOUBLES];
    for (int lane = 0; lane < DOUBLES; lane++) {
        first[lane] = lane * most < job->num_steps - most ? lane * most : job->num_steps - most;
        samples[lane] = job->samples + first[lane] * job->step;
    }
    doubles z0 = {0}, z1 = {0}, z2 = {0}, z3 = {0}, energy = {0};
    long left = job->warm_up;
    for (long step = -1; step < most; step++, left = job->step) {
        energy = (doubles){0};
        for (long n = 0; n < left; n++) {
            doubles x;
            for (int lane = 0; lane < DOUBLES; lane++)
                x[lane] = *samples[lane]++;
            doubles y = b[0] * x + z0;
            z0 = b[1] * x - a[1] * y + z1;
            z1 = b[2] * x - a[2] * y + z2;
            z2 = b[3] * x - a[3] * y + z3;
            z3 = b[4] * x - a[4] * y;
            energy += y * y;
        }
        for (int lane = 0; step >= 0 && lane < DOUBLES; lane++)
            job->out[first[lane] + step] = energy[lane] / (double)job->step;
    }
}

INLINE long NAME(count_bad)(const float *samples, long count, float loudest)
{
    int bad = 0;
    for (long n = 0; n < count; n++)
        bad += !(fabsf(samples[n]) <= loudest);
    return bad;
}

/* The mean of planes; samples that are no sound count as silence. Returns how many those were. */
static long NAME(mix)(float *restrict out, const float *const *planes, long num_planes, long count, float loudest)
{
    long num_bad = 0;
    for (long plane = 0; plane < num_planes; plane++) {
        const float *restrict samples = planes[plane];
        long bad = NAME(count_bad)(samples, count, loudest);
        if (!plane)
            memcpy(out, samples, 4 * count);
        else if (!bad)
            for (long n = 0; n < count; n++)
                out[n] += samples[n];
        for (long n = 0; bad && n < count; n++) {
            float sound = fabsf(samples[n]) <= loudest ? samples[n] : 0.0f;
            out[n] = plane ? out[n] + sound : sound;
        }
        num_bad += bad;
    }
    for (long n = 0; num_planes > 1 && n < count; n++)
        out[n] *= 1.0f / (float)num_planes;
    return num_bad;
}
