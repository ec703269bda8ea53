/* Blocks of networks for one width of vectors: decode.c includes this once for each. Widths of matrices and heads are
 * multiples of 8.
 *
 * Expects LANES and NAME(x), which makes a name of this width's own.
 */

#include "vectors.h"

#define ROWS 8

/* LANES finite half floats as they are: without an instruction for it, their exponent is moved by a product (which loses
 * those below 6e-5 where the processor is told to flush denormal numbers). */
INLINE floats NAME(widen)(const unsigned short *halves)
{
#if LANES == 8
    return (floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
#else
    bits half;
    for (int lane = 0; lane < LANES; lane++)
        half[lane] = halves[lane];
    floats magnitude = (floats)((half & 0x7fff) << 13) * 0x1p112f;
    return (floats)((bits)magnitude | (half & 0x8000) << 16);
#endif
}

/* out += x W, for `count` rows x. W lies input-major and is read once and in order, ROWS rows at a time: for a single x the
 * product is bound by memory. */
#define ADD_PRODUCT(suffix, type, load)                                                                                     \
    INLINE void NAME(add_product_##suffix)(float *out, const float *x, long count, const type *weights, long rows, long columns)\
    {                                                                                                                       \
        for (long row = 0; row < rows; row += ROWS, weights += ROWS * columns)                                              \
            for (long column = 0; column < columns; column += LANES) {                                                      \
                floats part[ROWS];                                                                                          \
                for (int i = 0; i < ROWS; i++)                                                                              \
                    part[i] = load(weights + i * columns + column);                                                         \
                for (long n = 0; n < count; n++) {                                                                          \
                    const float *given = x + n * rows + row;                                                                \
                    loose *sum = (loose *)(out + n * columns + column);                                                     \
                    floats even = *sum, odd = {0};                                                                          \
                    for (int i = 0; i < ROWS; i += 2) {                                                                     \
                        even += given[i] * part[i];                                                                         \
                        odd += given[i + 1] * part[i + 1];                                                                  \
                    }                                                                                                       \
                    *sum = even + odd;                                                                                      \
                }                                                                                                           \
            }                                                                                                               \
    }
#define AS_IT_IS(weights) (*(const loose *)(weights))
ADD_PRODUCT(halves, unsigned short, NAME(widen))
ADD_PRODUCT(floats, float, AS_IT_IS)

static void NAME(add_products)(float *out, const float *x, long count, const struct matrix *matrix)
{
    if (matrix->is_half)
        NAME(add_product_halves)(out, x, count, matrix->weights, matrix->rows, matrix->columns);
    else
        NAME(add_product_floats)(out, x, count, matrix->weights, matrix->rows, matrix->columns);
}

static void NAME(add_product)(float *out, const float *x, const struct matrix *matrix)
{
    NAME(add_products)(out, x, 1, matrix);
}

INLINE float NAME(sum)(floats values)
{
    float sum = 0.0f;
    for (int lane = 0; lane < LANES; lane++)
        sum += values[lane];
    return sum;
}

INLINE float NAME(dot)(const float *a, const float *b, long width)
{
    floats sums = {0};
    for (long i = 0; i < width; i += LANES)
        sums += *(const loose *)(a + i) * *(const loose *)(b + i);
    return NAME(sum)(sums);
}

/* Root-mean-square normalisation. */
INLINE void NAME(normalize)(float *out, const float *x, const float *scale, long width, float epsilon)
{
    float factor = 1.0f / sqrtf(NAME(dot)(x, x, width) / (float)width + epsilon);
    for (long i = 0; i < width; i++)
        out[i] = x[i] * factor * scale[i];
}

/* Turn the pairs of a head by the position's angles; the sines of the first half are negated. */
INLINE void NAME(rotate)(float *head, const float *cosines, const float *sines, long width)
{
    long half = width / 2;
    for (long i = 0; i < half; i++) {
        float a = head[i], b = head[half + i];
        head[i] = a * cosines[i] + b * sines[i];
        head[half + i] = b * cosines[half + i] + a * sines[half + i];
    }
}

/* One query's mean of `length` values, weighted by softmax(query · key / sqrt(width)). */
INLINE void NAME(attend)(float *out, const float *query, const float *keys, const float *values, long length, long width,
                         float *weights)
{
    float highest = -INFINITY, sum = 0.0f, scale = 1.0f / sqrtf((float)width);
    for (long i = 0; i < length; i++) {
        weights[i] = NAME(dot)(query, keys + i * width, width) * scale;
        highest = weights[i] > highest ? weights[i] : highest;
    }
    memset(out, 0, 4 * width);
    for (long i = 0; i < length; i++) {
        float weight = expf(weights[i] - highest);
        sum += weight;
        for (long j = 0; j < width; j += LANES)
            *(loose *)(out + j) += weight * *(const loose *)(values + i * width + j);
    }
    for (long j = 0; j < width; j++)
        out[j] /= sum;
}

/* x += attention(x): the keys and values of this position are added to those seen, the oldest of which may go. */
INLINE void NAME(add_attention)(const struct block *block, float *x, struct memory memory)
{
    long width = block->head_width, heads = block->num_heads, groups = block->num_groups, capacity = block->capacity;
    long last = block->length < capacity ? block->length : capacity - 1;
    NAME(normalize)(memory.normed, x, block->attention_norm, block->width, block->epsilon);
    memset(memory.mixed, 0, 4 * block->query_key_value.columns);
    NAME(add_product)(memory.mixed, memory.normed, &block->query_key_value);
    for (long head = 0; head < heads + groups; head++) {
        float *here = memory.mixed + head * width;
        NAME(normalize)(here, here, head < heads ? block->query_scale : block->key_scale, width, block->epsilon);
        if (block->cosines)
            NAME(rotate)(here, block->cosines, block->sines, width);
    }
    for (long i = 0; i < 2 * groups; i++) { /* keys of all groups, then their values */
        float *held = block->keys_values + i * capacity * width;
        if (block->length == capacity)
            memmove(held, held + width, 4 * last * width);
        memcpy(held + last * width, memory.mixed + (heads + i) * width, 4 * width);
    }
    for (long head = 0; head < heads; head++) {
        const float *keys = block->keys_values + head / (heads / groups) * capacity * width;
        const float *values = keys + groups * capacity * width;
        NAME(attend)(memory.attended + head * width, memory.mixed + head * width, keys, values, last + 1, width, memory.weights);
    }
    NAME(add_product)(x, memory.attended, &block->out);
}

/* x += feed-forward(x), gated by silu. */
INLINE void NAME(add_feed_forward)(const struct block *block, float *x, struct memory memory)
{
    long hidden = block->down.rows;
    NAME(normalize)(memory.normed, x, block->feed_forward_norm, block->width, block->epsilon);
    memset(memory.mixed, 0, 4 * 2 * hidden);
    NAME(add_product)(memory.mixed, memory.normed, &block->gate_up);
    for (long i = 0; i < hidden; i++) {
        float gate = memory.mixed[i];
        memory.mixed[i] = gate / (1.0f + expf(-gate)) * memory.mixed[hidden + i];
    }
    NAME(add_product)(x, memory.mixed, &block->down);
}

static void NAME(decode_block)(const struct block *block, float *x, struct memory memory)
{
    NAME(add_attention)(block, x, memory);
    NAME(add_feed_forward)(block, x, memory);
}

/* Normalisation to zero mean and unit variance, then scale and offset. */
INLINE void NAME(normalize_layer)(float *x, const float *scale, const float *offset, long width, float epsilon)
{
    floats sums = {0}, squares = {0};
    for (long i = 0; i < width; i += LANES)
        sums += *(const loose *)(x + i);
    float mean = NAME(sum)(sums) / (float)width;
    for (long i = 0; i < width; i += LANES) {
        floats apart = *(const loose *)(x + i) - mean;
        squares += apart * apart;
    }
    float factor = 1.0f / sqrtf(NAME(sum)(squares) / (float)width + epsilon);
    for (long i = 0; i < width; i++)
        x[i] = (x[i] - mean) * factor * scale[i] + offset[i];
}

/* x (1 + erf(x / sqrt(2))) / 2, to within 4e-7 |x| (Abramowitz and Stegun 1964, 7.1.28). */
INLINE floats NAME(gelu)(floats x)
{
    floats a = (floats)((bits)x & 0x7fffffff) * 0.70710678f;
    floats p = 0.0001520143f + a * (0.0002765672f + a * 0.0000430638f);
    p = 1.0f + a * (0.0705230784f + a * (0.0422820123f + a * (0.0092705272f + a * p)));
    p *= p;
    p *= p;
    p *= p;
    p *= p;
    floats tail = 0.5f / p;
    masks is_positive = x > (floats){0};
    floats share = (floats)(((masks)(1.0f - tail) & is_positive) | ((masks)tail & ~is_positive));
    return x * share;
}

/* x += scale * MLP(norm(depthwise convolution of x and its past)); the past becomes the last frames. */
static void NAME(convnext_block)(const struct convnext *block, float *x, float *past, float *memory)
{
    long width = block->width, hidden = block->up.columns, count = block->num_frames;
    float *seen = memory, *normed = seen + (PAST_FRAMES + count) * width, *mixed = normed + count * width;
    memcpy(seen, past, 4 * PAST_FRAMES * width);
    memcpy(seen + PAST_FRAMES * width, x, 4 * count * width);
    memcpy(past, seen + count * width, 4 * PAST_FRAMES * width);
    for (long n = 0; n < count; n++) {
        float *out = normed + n * width;
        for (long i = 0; i < width; i += LANES) {
            floats sum = *(const loose *)(block->depthwise_bias + i);
            for (long tap = 0; tap <= PAST_FRAMES; tap++)
                sum += *(const loose *)(seen + (n + tap) * width + i) * *(const loose *)(block->depthwise + tap * width + i);
            *(loose *)(out + i) = sum;
        }
        NAME(normalize_layer)(out, block->norm_scale, block->norm_offset, width, block->epsilon);
        memcpy(mixed + n * hidden, block->up_bias, 4 * hidden);
    }
    NAME(add_products)(mixed, normed, count, &block->up);
    for (long i = 0; i < count * hidden; i += LANES)
        *(loose *)(mixed + i) = NAME(gelu)(*(const loose *)(mixed + i));
    for (long n = 0; n < count; n++)
        memcpy(normed + n * width, block->down_bias, 4 * width);
    NAME(add_products)(normed, mixed, count, &block->down);
    for (long n = 0; n < count * width; n += LANES)
        *(loose *)(x + n) += *(const loose *)(normed + n) * *(const loose *)(block->scale + n % width);
}
