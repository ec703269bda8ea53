/* Clipping of one channel; audio/clipping.py does the same and says how and why. */

#define STEP_SAMPLES (1 << 14)
#define STRIDE 11
#define PHASE 3

/* Of every eleventh sample of a step its magnitude, and the level that it and its two neighbours do not fall under. */
struct picks {
    long count;
    float peak;
    float levels[STEP_SAMPLES / STRIDE + 1], flats[STEP_SAMPLES / STRIDE + 1];
};

/* Take `count` samples that begin at a position in the step; those that are no numbers of a sound count as silence. */
void pick_samples(struct picks *picks, const float *samples, long position, long count, float loudest);

/* The share of clipped samples; the picks are used up. */
float clipped_share(struct picks *picks);
