/* What a stream calls for each few frames: products with a single row, a decoder block for one position (models/layers.py),
 * a block of the causal vocoder (models/vocoder.py).
 *
 * Matrices are float32 or finite float16, told apart by their size, [inputs, outputs] in order; everything else is
 * float32. Sizes are checked before anything is touched.
 */

#include "native.h"

#define LEAST_WIDTH 8 /* widths are multiples of it */
#define MOST_WIDTH (1 << 20)
#define PAST_FRAMES 6 /* that a convolution looks back on */

struct matrix {
    const void *weights;
    long rows, columns;
    int is_half;
};

struct block {
    struct matrix query_key_value, out, gate_up, down;
    const float *attention_norm, *feed_forward_norm, *query_scale, *key_scale, *cosines, *sines;
    float *keys_values, epsilon;
    long width, num_heads, num_groups, head_width, capacity, length;
};

struct convnext {
    struct matrix up, down;
    const float *depthwise, *depthwise_bias, *norm_scale, *norm_offset, *up_bias, *down_bias, *scale;
    float epsilon;
    long width, num_frames;
};

/* What a step works in, of the sizes that `take_memory` gives. */
struct memory {
    float *normed, *mixed, *attended, *weights;
};

#define LANES 4
#include "decode_lanes.h"
#undef LANES

#ifdef HAS_WIDE
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define LANES 8
#include "decode_lanes.h"
#undef LANES
#pragma GCC pop_options
#endif

static int is_width(long width)
{
    return width > 0 && width <= MOST_WIDTH && width % LEAST_WIDTH == 0;
}

static int is_matrix(struct matrix *matrix, const Py_buffer *buffer, long rows, long columns)
{
    *matrix = (struct matrix){buffer->buf, rows, columns, buffer->len == 2 * rows * columns};
    return is_width(rows) && is_width(columns) && (matrix->is_half || buffer->len == 4 * rows * columns);
}

/* x [in], matrix [in, out], bias [out] or empty, out [out]: out = x matrix + bias */
PyObject *project(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer x, weights, bias, out;
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &x, &weights, &bias, &out))
        return NULL;
    struct matrix matrix;
    PyObject *result = NULL;
    if (!is_matrix(&matrix, &weights, x.len / 4, out.len / 4) || x.len % 4 || out.len % 4 || (bias.len && bias.len != out.len))
        refuse("x, matrix, bias and out do not fit each other, or a width is no multiple of 8");
    else {
        Py_BEGIN_ALLOW_THREADS
        if (bias.len)
            memcpy(out.buf, bias.buf, out.len);
        else
            memset(out.buf, 0, out.len);
        RUN(add_product, out.buf, x.buf, &matrix);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    Py_buffer *all[] = {&x, &weights, &bias, &out};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        PyBuffer_Release(all[i]);
    return result;
}

enum { X, ANGLES, CACHE, ATTENTION_NORM, QUERY_KEY_VALUE, QUERY_SCALE, KEY_SCALE, OUT, FEED_FORWARD_NORM, GATE_UP, DOWN, NUM };

static int is_block(struct block *block, const Py_buffer *given, long hidden)
{
    long width = given[X].len / 4, head = given[QUERY_SCALE].len / 4;
    long heads = block->num_heads, groups = block->num_groups;
    if (!is_width(width) || !is_width(head) || !is_width(hidden) || groups < 1 || groups > MOST_WIDTH || heads < 1 ||
        heads > MOST_WIDTH || heads % groups || given[X].len % 4 || given[QUERY_SCALE].len % 4)
        return 0;
    if (!is_matrix(&block->query_key_value, &given[QUERY_KEY_VALUE], width, (heads + 2 * groups) * head) ||
        !is_matrix(&block->out, &given[OUT], heads * head, width) ||
        !is_matrix(&block->gate_up, &given[GATE_UP], width, 2 * hidden) ||
        !is_matrix(&block->down, &given[DOWN], hidden, width))
        return 0;
    block->capacity = given[CACHE].len / (2 * groups * head * 4);
    block->width = width;
    block->head_width = head;
    block->keys_values = given[CACHE].buf;
    block->attention_norm = given[ATTENTION_NORM].buf;
    block->feed_forward_norm = given[FEED_FORWARD_NORM].buf;
    block->query_scale = given[QUERY_SCALE].buf;
    block->key_scale = given[KEY_SCALE].buf;
    block->cosines = given[ANGLES].len ? given[ANGLES].buf : NULL;
    block->sines = block->cosines ? block->cosines + head : NULL;
    return given[CACHE].len == block->capacity * 2 * groups * head * 4 && block->length >= 0 &&
           block->capacity > 0 && block->length <= block->capacity && given[ATTENTION_NORM].len == 4 * width &&
           given[FEED_FORWARD_NORM].len == 4 * width && given[KEY_SCALE].len == 4 * head &&
           (!block->cosines || given[ANGLES].len == 2 * 4 * head);
}

/* Returns what is to be freed, or NULL. */
static float *take_memory(struct memory *memory, const struct block *block)
{
    long mixed = block->query_key_value.columns;
    mixed = mixed > block->gate_up.columns ? mixed : block->gate_up.columns;
    float *all = malloc(4 * (block->width + mixed + block->out.rows + block->capacity));
    if (all) {
        memory->normed = all;
        memory->mixed = memory->normed + block->width;
        memory->attended = memory->mixed + mixed;
        memory->weights = memory->attended + block->out.rows;
    }
    return all;
}

/* Positions held, H, G, hidden width, epsilon; x [D] (becomes the block's output), angles [2, E] or empty, cache
 * [2, G, capacity, E], then the block's weights, in the order of `enum` -> how many positions the cache holds now. */
PyObject *decode_block(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer given[NUM];
    int length, heads, groups, hidden;
    struct block block = {0};
    if (!PyArg_ParseTuple(args, "iiiifw*y*w*y*y*y*y*y*y*y*y*", &length, &heads, &groups, &hidden, &block.epsilon, &given[0],
                          &given[1], &given[2], &given[3], &given[4], &given[5], &given[6], &given[7], &given[8], &given[9],
                          &given[10]))
        return NULL;
    block.length = length;
    block.num_heads = heads;
    block.num_groups = groups;
    PyObject *result = NULL;
    if (!is_block(&block, given, hidden))
        refuse("the parts of the block do not fit each other, or a width is no multiple of 8");
    else {
        struct memory memory;
        float *all = take_memory(&memory, &block);
        if (!all)
            PyErr_NoMemory();
        else {
            Py_BEGIN_ALLOW_THREADS
            RUN(decode_block, &block, given[X].buf, memory);
            Py_END_ALLOW_THREADS
            free(all);
            result = PyLong_FromLong(length < block.capacity ? length + 1 : length);
        }
    }
    for (int i = 0; i < NUM; i++)
        PyBuffer_Release(&given[i]);
    return result;
}

/* Hidden width, epsilon; x [T, D] (becomes the block's output), past [6, D] (becomes x's last frames), the convolution's
 * weights [7, D] and bias, the norm's scale and offset, up [D, hidden] and bias, down [hidden, D] and bias, scale. */
PyObject *convnext_block(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer x, past, depthwise, vectors[6], up, down;
    int hidden;
    struct convnext block;
    if (!PyArg_ParseTuple(args, "ifw*w*y*y*y*y*y*y*y*y*y*", &hidden, &block.epsilon, &x, &past, &depthwise, &vectors[0],
                          &vectors[1], &vectors[2], &up, &vectors[3], &down, &vectors[4], &vectors[5]))
        return NULL;
    long width = past.len / (4 * PAST_FRAMES);
    int fits = is_width(width) && is_width(hidden) && past.len == 4 * PAST_FRAMES * width && x.len > 0 && x.len % (4 * width) == 0;
    fits = fits && is_matrix(&block.up, &up, width, hidden) && is_matrix(&block.down, &down, hidden, width) &&
           depthwise.len == 4 * (PAST_FRAMES + 1) * width;
    for (int i = 0; i < 6; i++)
        fits = fits && vectors[i].len == 4 * (i == 3 ? hidden : width);
    PyObject *result = NULL;
    if (!fits)
        refuse("the parts of the block do not fit each other, or a width is no multiple of 8");
    else {
        block.width = width;
        block.num_frames = x.len / (4 * width);
        block.depthwise = depthwise.buf;
        block.depthwise_bias = vectors[0].buf;
        block.norm_scale = vectors[1].buf;
        block.norm_offset = vectors[2].buf;
        block.up_bias = vectors[3].buf;
        block.down_bias = vectors[4].buf;
        block.scale = vectors[5].buf;
        float *memory = malloc(4 * ((PAST_FRAMES + 2 * block.num_frames) * width + block.num_frames * hidden));
        if (!memory)
            PyErr_NoMemory();
        else {
            Py_BEGIN_ALLOW_THREADS
            RUN(convnext_block, &block, x.buf, past.buf, memory);
            Py_END_ALLOW_THREADS
            free(memory);
            result = Py_NewRef(Py_None);
        }
    }
    Py_buffer *all[] = {&x, &past, &depthwise, &up, &down};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        PyBuffer_Release(all[i]);
    for (int i = 0; i < 6; i++)
        PyBuffer_Release(&vectors[i]);
    return result;
}
