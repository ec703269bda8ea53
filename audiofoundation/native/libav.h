/* What is used of the public interface of ffmpeg's libraries, which PyAV's wheel brings without headers: constants, the
 * beginnings of structures, functions. All of it holds within one major version of each library: libavformat and
 * libavcodec 62, libavutil 60.
 */

#ifndef LIBAV_H
#define LIBAV_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#define TAG_ERROR(a, b, c, d) (-(int)((a) | (b) << 8 | (c) << 16 | (unsigned)(d) << 24))
#define END_OF_FILE TAG_ERROR('E', 'O', 'F', ' ')
#define INVALID_DATA TAG_ERROR('I', 'N', 'D', 'A')
#define AGAIN (-EAGAIN)
#define NO_TIME INT64_MIN
#define TICKS_PER_S 1e6
#define QUIET (-8)
#define ASKS_SIZE 0x10000 /* libav's own "whence" */
#define VIDEO 0
#define AUDIO 1
#define IN_ORDER_OF_NO_LAYOUT 0

struct ratio {
    int num, den;
};

struct parameters {
    int media_type, codec_id;
};

struct stream {
    const void *class;
    int index, id;
    struct parameters *parameters;
    void *private;
    struct ratio time_base;
    int64_t start, duration;
};

struct container {
    const void *class, *input_format, *output_format;
    void *private, *io;
    int flags;
    unsigned num_streams;
    struct stream **streams;
    unsigned num_groups;
    void **groups;
    unsigned num_chapters;
    void **chapters;
    char *url;
    int64_t start, duration;
};

struct packet {
    void *buffer;
    int64_t pts, dts;
    uint8_t *data;
    int size, stream;
};

struct layout {
    int order, num_channels;
    uint64_t mask;
    void *opaque;
};

struct frame {
    uint8_t *data[8];
    int line_size[8];
    uint8_t **planes;
    int width, height, num_samples, format, picture_type;
    struct ratio aspect;
    int64_t pts, dts;
    struct ratio time_base;
    int quality;
    void *opaque;
    int repeat, rate;
    void *buffers[8], *more_buffers;
    int num_more_buffers;
    void *side_data;
    int num_side_data, flags, colour[5];
    int64_t best_pts;
    void *metadata;
    int errors;
    void *hardware, *opaque_reference;
    size_t crop[4];
    void *private;
    struct layout layout;
};

struct codec {
    const char *name;
};

struct io {
    const void *class;
    uint8_t *buffer;
};

struct option {
    const char *name, *help;
    int offset;
};

/* What a container calls to open a further file. */
typedef int (*opener)(struct container *, struct io **, const char *url, int flags, void **options);

enum sample_format { U8, S16, S32, FLT, DBL, U8P, S16P, S32P, FLTP, DBLP, S64, S64P };

#define FORMAT_FUNCTIONS(X)                                                                                            \
    X(unsigned, avformat_version, (void))                                                                              \
    X(struct container *, avformat_alloc_context, (void))                                                              \
    X(const void *, av_find_input_format, (const char *))                                                              \
    X(int, avformat_open_input, (struct container **, const char *, const void *, void **))                            \
    X(int, avformat_find_stream_info, (struct container *, void **))                                                   \
    X(int, av_find_best_stream, (struct container *, int, int, int, const struct codec **, int))                       \
    X(int, av_read_frame, (struct container *, struct packet *))                                                       \
    X(void, avformat_close_input, (struct container **))                                                               \
    X(struct io *, avio_alloc_context,                                                                                 \
      (uint8_t *, int, int, void *, int (*)(void *, uint8_t *, int), void *, int64_t (*)(void *, int64_t, int)))       \
    X(void, avio_context_free, (struct io **))

#define CODEC_FUNCTIONS(X)                                                                                             \
    X(unsigned, avcodec_version, (void))                                                                               \
    X(const struct codec *, avcodec_find_decoder, (int))                                                               \
    X(const struct codec *, avcodec_find_decoder_by_name, (const char *))                                              \
    X(const char *, avcodec_get_name, (int))                                                                           \
    X(void *, avcodec_alloc_context3, (const struct codec *))                                                          \
    X(int, avcodec_parameters_to_context, (void *, const struct parameters *))                                         \
    X(int, avcodec_open2, (void *, const struct codec *, void **))                                                     \
    X(int, avcodec_send_packet, (void *, const struct packet *))                                                       \
    X(int, avcodec_receive_frame, (void *, struct frame *))                                                            \
    X(void, avcodec_free_context, (void **))                                                                           \
    X(struct packet *, av_packet_alloc, (void))                                                                        \
    X(void, av_packet_unref, (struct packet *))                                                                        \
    X(void, av_packet_free, (struct packet **))

#define UTIL_FUNCTIONS(X)                                                                                              \
    X(unsigned, avutil_version, (void))                                                                                \
    X(void *, av_malloc, (size_t))                                                                                     \
    X(void, av_freep, (void *))                                                                                        \
    X(struct frame *, av_frame_alloc, (void))                                                                          \
    X(void, av_frame_free, (struct frame **))                                                                          \
    X(int, av_dict_set, (void **, const char *, const char *, int))                                                    \
    X(int, av_dict_count, (const void *))                                                                              \
    X(void, av_dict_free, (void **))                                                                                   \
    X(const struct option *, av_opt_find, (void *, const char *, const char *, int, int))                              \
    X(int, av_opt_get_int, (void *, const char *, int, int64_t *))                                                     \
    X(int, av_opt_set_q, (void *, const char *, struct ratio, int))                                                    \
    X(int, av_strerror, (int, char *, size_t))                                                                         \
    X(void, av_log_set_level, (int))                                                                                   \
    X(void, av_channel_layout_default, (struct layout *, int))                                                         \
    X(int, av_channel_layout_channel_from_index, (const struct layout *, unsigned))                                    \
    X(int, av_channel_name, (char *, size_t, int))

#define DECLARE(result, name, arguments) extern result(*name) arguments;
FORMAT_FUNCTIONS(DECLARE)
CODEC_FUNCTIONS(DECLARE)
UTIL_FUNCTIONS(DECLARE)

/* Whether the functions may be called. */
extern int libav_is_loaded;

/* The samples of one channel as float32, full scale 1: in place where they are that already, else in `room`; NULL for a
 * format that is not known.
 */
const float *libav_floats(const struct frame *frame, int num_channels, int channel, long first, long count,
                          float *restrict room);

/* Where a container keeps its opener, which has no option and follows the last one that has; NULL if it does not. */
opener *libav_opener_of(struct container *container);

/* An error in words, written to `text`; "" where the code is none. */
const char *libav_words(int code, char *text, size_t size);

#endif
