/* Clipping of one channel. */

#include "clipping.h"
#include "native.h"

#define NUM_BINS 128
#define LEAST 6
#define QUIETEST_PEAK (1.0f / 32)

static const struct {
    int width, quarters; /* what must lie in the window, in quarters of what lies beneath */
} windows[] = {{1, 7}, {2, 7}, {4, 7}, {8, 8}, {16, 18}, {24, 20}};

/* b where a is no number. */
INLINE float at_most(float a, float b)
{
    return a < b ? a : b;
}

INLINE float at_least(float a, float b)
{
    return a > b ? a : b;
}

void pick_samples(struct picks *picks, const float *samples, long position, long count, float loudest)
{
    long n = (PHASE - position % STRIDE + STRIDE) % STRIDE, k = picks->count;
    float peak = picks->peak;
    for (n = n ? n : STRIDE; n < count - 1 && k < STEP_SAMPLES / STRIDE + 1; n += STRIDE, k++) {
        float here = samples[n], before = samples[n - 1], after = samples[n + 1];
        float low = at_most(at_most(before, after), here), high = at_least(at_least(before, after), here);
        float level = fabsf(here) <= loudest ? fabsf(here) : 0.0f;
        picks->levels[k] = level;
        picks->flats[k] = at_most(at_least(at_least(low, -high), 0.0f), level);
        peak = at_least(level, peak);
    }
    picks->count = k;
    picks->peak = peak;
}

/* How many values lie beneath each bin. */
static void cumulate(int *out, const float *values, long count, float scale)
{
    memset(out, 0, (NUM_BINS + 1) * sizeof(*out));
    for (long k = 0; k < count; k++)
        out[1 + (int)(values[k] * scale)]++;
    for (int bin = 0; bin < NUM_BINS; bin++)
        out[bin + 1] += out[bin];
}

/* How many lie about full scale, above it too: where lossy coding has smeared what was cut off there. */
static long num_about_full_scale(const struct picks *picks)
{
    long beneath = 0, below = 0, beyond = 0, above = 0;
    for (long k = 0; k < picks->count; k++) {
        float level = picks->levels[k];
        beneath += level >= 0.78f;
        below += level >= 0.93f;
        beyond += level >= 1.001f;
        above += level >= 1.08f;
    }
    beneath -= below;
    long here = below - above;
    int is_ceiling = 2 * here >= 3 * beneath + 2 * LEAST && 4 * (beyond - above) >= here && 2 * above <= here;
    return is_ceiling ? here + above - beneath : 0;
}

float clipped_share(struct picks *picks)
{
    long count = picks->count, best = 0;
    int at_level[NUM_BINS + 1], in_run[NUM_BINS + 1];
    float peak = picks->peak;
    long about_full_scale = peak > 1.0f ? num_about_full_scale(picks) : 0;
    picks->count = 0;
    picks->peak = 0.0f;
    if (peak < QUIETEST_PEAK)
        return 0.0f;
    float scale = (NUM_BINS - 0.5f) / peak;
    cumulate(at_level, picks->levels, count, scale);
    cumulate(in_run, picks->flats, count, scale);
    /* Of sound in few bits the levels lie some bins apart, and windows between them are empty by nature. */
    int num_levels = 0;
    for (int bin = NUM_BINS / 2; bin < NUM_BINS; bin++)
        num_levels += at_level[bin + 1] > at_level[bin];
    for (unsigned i = 0; i < sizeof(windows) / sizeof(*windows); i++) {
        long width = windows[i].width, found = 0;
        if (4 * num_levels <= NUM_BINS && width * num_levels < NUM_BINS)
            continue; /* narrower than two steps */
        for (long low = NUM_BINS / 2; low <= NUM_BINS - width; low++) {
            long flat = in_run[low + width] - in_run[low], beneath = at_level[low] - at_level[low - 2 * width];
            long above = count - at_level[low + width];
            if (4 * flat < windows[i].quarters * beneath + 4 * LEAST || 2 * above > flat)
                continue;
            long here = at_level[low + width] - at_level[low] + above - beneath / 2;
            found = here > found ? here : found;
        }
        best = 4 * found > 5 * best ? found : best;
    }
    best = about_full_scale > best ? about_full_scale : best;
    return (float)best / (float)count;
}
