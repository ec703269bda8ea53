/* The transform of as many frames at once as a vector has lanes; one frame's value is in one lane of each.
 *
 * Expects LANES and NAME(x), which makes a name of this width's own.
 */

#include "vectors.h"

/* One radix-4 step, decimation in frequency, in place, over 4 * quarter values. */
INLINE void NAME(butterfly)(floats *re, floats *im, long quarter, const float *cosines, const float *sines, long step)
{
    for (long j = 0; j < quarter; j++, re++, im++) {
        floats a0 = re[0], a1 = re[quarter], a2 = re[2 * quarter], a3 = re[3 * quarter];
        floats b0 = im[0], b1 = im[quarter], b2 = im[2 * quarter], b3 = im[3 * quarter];
        floats even_re = a0 + a2, even_im = b0 + b2, even_dre = a0 - a2, even_dim = b0 - b2;
        floats odd_re = a1 + a3, odd_im = b1 + b3, odd_dre = a1 - a3, odd_dim = b1 - b3;
        float c1 = cosines[j * step], s1 = sines[j * step];
        float c2 = cosines[2 * j * step], s2 = sines[2 * j * step];
        float c3 = cosines[3 * j * step], s3 = sines[3 * j * step];
        re[0] = even_re + odd_re;
        im[0] = even_im + odd_im;
        floats x = even_dre + odd_dim, y = even_dim - odd_dre;
        re[quarter] = x * c1 + y * s1;
        im[quarter] = y * c1 - x * s1;
        x = even_re - odd_re;
        y = even_im - odd_im;
        re[2 * quarter] = x * c2 + y * s2;
        im[2 * quarter] = y * c2 - x * s2;
        x = even_dre - odd_dim;
        y = even_dim + odd_dre;
        re[3 * quarter] = x * c3 + y * s3;
        im[3 * quarter] = y * c3 - x * s3;
    }
}

/* The complex transform of `size` values in place; the k-th result lies at order[k]. After the first step each quarter
 * is finished by itself: it fits the first-level cache. */
INLINE void NAME(transform)(floats *re, floats *im, long size, const float *cosines, const float *sines)
{
    long quarter = size / 4;
    NAME(butterfly)(re, im, quarter, cosines, sines, 1);
    for (long from = 0; from < size; from += quarter) {
        long part = quarter;
        for (; part >= 4; part /= 4)
            for (long start = from; start < from + quarter; start += part)
                NAME(butterfly)(re + start, im + start, part / 4, cosines, sines, size / part);
        if (part == 2)
            for (long start = from; start < from + quarter; start += 2) {
                floats a = re[start], b = im[start];
                re[start] = a + re[start + 1];
                im[start] = b + im[start + 1];
                re[start + 1] = a - re[start + 1];
                im[start + 1] = b - im[start + 1];
            }
    }
}

INLINE floats NAME(root)(floats value)
{
    for (int lane = 0; lane < LANES; lane++)
        value[lane] = sqrtf(value[lane]);
    return value;
}
