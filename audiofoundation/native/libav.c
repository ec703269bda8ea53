/* Decoding with the libraries that PyAV's wheel brings: a descriptor in, blocks of float32 out. Only the sandbox's
 * child calls this with foreign bytes; PyAV itself does the same where this cannot be used (ADR 0011).
 */

#include "clipping.h"
#include "libav.h"
#include "native.h"
#include <unistd.h>

#define READ_BYTES (1 << 18)
#define MOST_CHANNELS 8
#define CHUNK 1024

struct recording {
    int fd, stream;
    int is_started, is_drained;
    int has_frame; /* there was one in the packet at hand */
    int has_sound; /* a packet was decoded that had one */
    const struct codec *codec;
    struct container *container;
    struct io *io;
    void *decoder;
    struct packet *packet;
    struct frame *frame;
    int rate, num_channels, format; /* of the first frame and so of all */
    int position;                   /* samples of the frame at hand that have been given out */
    struct picks picks[MOST_CHANNELS]; /* of the step at hand */
};

static PyObject *fail(int code)
{
    char text[128];
    PyObject *reason = Py_BuildValue("(is)", code, libav_words(code, text, sizeof(text)));
    if (reason) {
        PyErr_SetObject(PyExc_OSError, reason);
        Py_DECREF(reason);
    }
    return NULL;
}

static void close_recording(struct recording *it)
{
    av_frame_free(&it->frame);
    av_packet_free(&it->packet);
    avcodec_free_context(&it->decoder);
    avformat_close_input(&it->container);
    if (it->io)
        av_freep(&it->io->buffer);
    avio_context_free(&it->io);
    free(it);
}

static void destroy(PyObject *capsule)
{
    close_recording(PyCapsule_GetPointer(capsule, "recording"));
}

static struct recording *recording_of(PyObject *capsule)
{
    return PyCapsule_GetPointer(capsule, "recording");
}

static int read_some(void *recording, uint8_t *data, int size)
{
    ssize_t count = read(((struct recording *)recording)->fd, data, size);
    return count > 0 ? (int)count : count ? -errno : END_OF_FILE;
}

static int64_t seek_to(void *recording, int64_t offset, int whence)
{
    int fd = ((struct recording *)recording)->fd;
    if (whence & ASKS_SIZE) {
        off_t here = lseek(fd, 0, SEEK_CUR), end = lseek(fd, 0, SEEK_END);
        return here < 0 || end < 0 || lseek(fd, here, SEEK_SET) < 0 ? -errno : end;
    }
    off_t place = lseek(fd, offset, whence & 3);
    return place < 0 ? -errno : place;
}

static int options_from(PyObject *pairs, void **options)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(pairs); i++) {
        const char *key, *value;
        if (!PyArg_ParseTuple(PyTuple_GetItem(pairs, i), "ss", &key, &value))
            return 0;
        if (av_dict_set(options, key, value, 0) < 0) {
            PyErr_NoMemory();
            return 0;
        }
    }
    return 1;
}

static int refuse_to_open(struct container *container, struct io **io, const char *url, int flags, void **options)
{
    (void)container, (void)io, (void)url, (void)flags, (void)options;
    return -EPERM;
}

static int open_container(struct recording *it, const char *demuxer, void **options)
{
    const void *format = av_find_input_format(demuxer);
    uint8_t *buffer = av_malloc(READ_BYTES);
    it->container = avformat_alloc_context();
    it->packet = av_packet_alloc();
    it->frame = av_frame_alloc();
    it->io = buffer ? avio_alloc_context(buffer, READ_BYTES, 0, it, read_some, NULL, seek_to) : NULL;
    if (!it->container || !it->packet || !it->frame || !it->io) {
        if (!it->io)
            av_freep(&buffer);
        return -ENOMEM;
    }
    if (!format)
        return -EINVAL; /* without a name libav would guess */
    it->container->io = it->io;
    *libav_opener_of(it->container) = refuse_to_open;
    int code = avformat_open_input(&it->container, "", format, options);
    if (code < 0)
        return code;
    if (av_dict_count(*options))
        return -EINVAL; /* a wall that libav does not know would stand nowhere */
    return avformat_find_stream_info(it->container, NULL);
}

static int find_audio(struct recording *it)
{
    it->stream = av_find_best_stream(it->container, AUDIO, -1, -1, NULL, 0);
    if (it->stream < 0)
        return 0;
    struct stream *stream = it->container->streams[it->stream];
    it->codec = avcodec_find_decoder(stream->parameters->codec_id);
    if (!it->codec)
        return 0;
    it->decoder = avcodec_alloc_context3(it->codec);
    if (!it->decoder)
        return -ENOMEM;
    int code = avcodec_parameters_to_context(it->decoder, stream->parameters);
    return code < 0 ? code : av_opt_set_q(it->decoder, "pkt_timebase", stream->time_base, 0);
}

static int has_video(const struct container *container)
{
    for (unsigned i = 0; i < container->num_streams; i++)
        if (container->streams[i]->parameters->media_type == VIDEO)
            return 1;
    return 0;
}

static PyObject *description(struct recording *it, PyObject *capsule)
{
    double stream_s = NAN, container_s = NAN;
    int64_t bit_rate = 0;
    const char *codec_name = NULL;
    if (it->container->duration != NO_TIME)
        container_s = it->container->duration / TICKS_PER_S;
    if (it->stream >= 0) {
        struct stream *stream = it->container->streams[it->stream];
        codec_name = avcodec_get_name(stream->parameters->codec_id);
        if (stream->duration != NO_TIME && stream->time_base.den)
            stream_s = (double)stream->duration * stream->time_base.num / stream->time_base.den;
    }
    if (it->decoder)
        av_opt_get_int(it->decoder, "b", 0, &bit_rate);
    return Py_BuildValue("(ONszddL)", capsule, PyBool_FromLong(has_video(it->container)), it->codec ? it->codec->name : "", codec_name,
                         stream_s, container_s, (long long)bit_rate);
}

/* Open a recording: (fd, demuxer, options as pairs) -> handle, whether there is video, the decoder's name ("" without
 * one), the codec's (None without audio), seconds by the stream and by the container (NaN where unknown), bit rate.
 * The descriptor stays the caller's. OSError holds libav's code and words, here and below.
 */
PyObject *libav_open(PyObject *module, PyObject *args)
{
    (void)module;
    int fd;
    const char *demuxer;
    PyObject *pairs;
    void *options = NULL;
    if (!PyArg_ParseTuple(args, "isO!", &fd, &demuxer, &PyTuple_Type, &pairs))
        return NULL;
    if (!libav_is_loaded)
        return refuse("libav has not been loaded");
    struct recording *it = calloc(1, sizeof(*it));
    if (!it)
        return PyErr_NoMemory();
    it->fd = fd;
    it->stream = -1;
    PyObject *capsule = PyCapsule_New(it, "recording", destroy);
    if (!capsule) {
        free(it);
        return NULL;
    }
    PyObject *result = NULL;
    if (options_from(pairs, &options)) {
        int code = open_container(it, demuxer, &options);
        if (code >= 0)
            code = find_audio(it);
        result = code < 0 ? fail(code) : description(it, capsule);
    }
    av_dict_free(&options);
    Py_DECREF(capsule);
    return result;
}

/* Send the decoder its next packet, or that there is none; 0, or libav's error. */
static int feed(struct recording *it)
{
    it->has_frame = 0;
    for (;;) {
        int code = av_read_frame(it->container, it->packet);
        if (code == END_OF_FILE) {
            it->is_drained = 1;
            return avcodec_send_packet(it->decoder, NULL);
        }
        if (code < 0)
            return code;
        int is_ours = it->packet->stream == it->stream;
        if (is_ours)
            code = avcodec_send_packet(it->decoder, it->packet);
        av_packet_unref(it->packet);
        if (is_ours && (code >= 0 || it->has_sound || code == END_OF_FILE))
            return code;
    }
}

/* 1: there is a frame; 0: there are no more; negative: libav's error. Passed over are errors before the first packet that
 * was decoded, and senseless data behind a frame in its packet, such as the last byte of a WAV cut off within a sample.
 */
static int next_frame(struct recording *it)
{
    it->position = 0;
    for (;;) {
        int code = avcodec_receive_frame(it->decoder, it->frame);
        if (code >= 0 && it->frame->num_samples <= 0)
            continue;
        if (code >= 0)
            return it->has_frame = 1;
        if (code == END_OF_FILE)
            return 0;
        int is_whole = code == AGAIN || (code == INVALID_DATA && it->has_frame);
        if (!is_whole && it->has_sound)
            return code;
        it->has_sound |= is_whole && it->has_frame;
        if (it->is_drained)
            return 0;
        code = feed(it);
        if (code < 0)
            return code == END_OF_FILE ? 0 : code;
    }
}

static PyObject *channel_names(const struct layout *layout)
{
    struct layout guess = {0};
    if (layout->order == IN_ORDER_OF_NO_LAYOUT) {
        av_channel_layout_default(&guess, layout->num_channels);
        layout = &guess;
    }
    PyObject *names = PyTuple_New(layout->num_channels);
    for (int i = 0; names && i < layout->num_channels; i++) {
        char name[32] = "";
        av_channel_name(name, sizeof(name), av_channel_layout_channel_from_index(layout, i));
        PyObject *text = PyUnicode_DecodeUTF8(name, strlen(name), "replace");
        if (!text || PyTuple_SetItem(names, i, text)) {
            Py_DECREF(names);
            return NULL;
        }
    }
    return names;
}

/* Open the decoder and decode the first frame: handle -> sample rate, number of channels, their names; None where
 * there is no sound. Names are left out for more channels than are ever read.
 */
PyObject *libav_start(PyObject *module, PyObject *capsule)
{
    (void)module;
    struct recording *it = recording_of(capsule);
    if (!it)
        return NULL;
    if (!it->decoder || it->is_started)
        return refuse("there is no decoder, or it has been started");
    it->is_started = 1;
    int code = avcodec_open2(it->decoder, it->codec, NULL);
    if (code >= 0)
        code = next_frame(it);
    if (code < 0)
        return fail(code);
    if (code == 0)
        return Py_NewRef(Py_None);
    it->rate = it->frame->rate;
    it->num_channels = it->frame->layout.num_channels;
    it->format = it->frame->format;
    int is_readable = it->num_channels >= 1 && it->num_channels <= MOST_CHANNELS;
    PyObject *names = is_readable ? channel_names(&it->frame->layout) : PyTuple_New(0);
    return names ? Py_BuildValue("(iiN)", it->rate, it->num_channels, names) : NULL;
}

/* Give out `count` samples of the frame at hand, to `at` in rows of `capacity`; how many were no sound, or -1. */
static long give_out(struct recording *it, float *out, long capacity, long at, long count, int is_mixed, float loudest,
                     int is_measured)
{
    float room[MOST_CHANNELS][CHUNK];
    const float *planes[MOST_CHANNELS];
    long num_bad = 0, step;
    for (long done = 0; done < count; done += step) {
        step = count - done < CHUNK ? count - done : CHUNK;
        for (int channel = 0; channel < it->num_channels; channel++) {
            long first = it->position + done;
            planes[channel] = libav_floats(it->frame, it->num_channels, channel, first, step, room[channel]);
            if (!planes[channel])
                return -1;
            if (is_measured)
                pick_samples(&it->picks[channel], planes[channel], (at + done) % STEP_SAMPLES, step, loudest);
            if (!is_mixed)
                num_bad += mix_planes(out + channel * capacity + at + done, &planes[channel], 1, step, loudest);
        }
        if (is_mixed)
            num_bad += mix_planes(out + at + done, planes, it->num_channels, step, loudest);
    }
    return num_bad;
}

/* The share of clipped samples in the step at hand, the mean of the channels. */
static float share_of_step(struct recording *it)
{
    float sum = 0.0f;
    for (int channel = 0; channel < it->num_channels; channel++)
        sum += clipped_share(&it->picks[channel]);
    return sum / (float)it->num_channels;
}

/* Fill a block of float32 [channels, n], or [1, n] with the channels' mean: (handle, block, is_mixed, loudest, clipped) ->
 * samples per channel, how many of all were no numbers of a sound (they are made silent), how it went on (0 there may
 * be more, 1 that was all, 2 rate, channels or format change here, negative: libav's error) and that error in words.
 * `clipped` takes the share of clipped samples of each step of the block; it may be empty, and then none is measured.
 */
PyObject *libav_read(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *capsule;
    Py_buffer out, clipped;
    int is_mixed;
    float loudest;
    if (!PyArg_ParseTuple(args, "Ow*pfw*", &capsule, &out, &is_mixed, &loudest, &clipped))
        return NULL;
    struct recording *it = recording_of(capsule);
    long capacity = 0, at = 0, num_bad = 0;
    int state = 0;
    if (it && it->num_channels >= 1 && it->num_channels <= MOST_CHANNELS)
        capacity = out.len / 4 / (is_mixed ? 1 : it->num_channels);
    float *shares = clipped.buf;
    int is_measured = clipped.len > 0;
    if (is_measured && clipped.len / 4 < (capacity + STEP_SAMPLES - 1) / STEP_SAMPLES)
        capacity = 0;
    while (at < capacity && !state) {
        const struct frame *frame = it->frame;
        if (frame->rate != it->rate || frame->layout.num_channels != it->num_channels || frame->format != it->format) {
            state = 2;
            break;
        }
        long left = frame->num_samples - it->position, count = left < capacity - at ? left : capacity - at;
        if (is_measured && count > STEP_SAMPLES - at % STEP_SAMPLES)
            count = STEP_SAMPLES - at % STEP_SAMPLES;
        long bad = give_out(it, out.buf, capacity, at, count, is_mixed, loudest, is_measured);
        if (bad < 0) {
            state = -ENOSYS;
            break;
        }
        num_bad += bad;
        at += count;
        it->position += count;
        if (is_measured && at % STEP_SAMPLES == 0)
            shares[at / STEP_SAMPLES - 1] = share_of_step(it);
        if (it->position == frame->num_samples) {
            int code = next_frame(it);
            state = code > 0 ? 0 : code ? code : 1;
        }
    }
    if (is_measured && at % STEP_SAMPLES)
        shares[at / STEP_SAMPLES] = share_of_step(it);
    PyBuffer_Release(&out);
    PyBuffer_Release(&clipped);
    if (!capacity)
        return it ? refuse("nothing was started, it cannot be read, or there is no room") : NULL;
    char text[128];
    return Py_BuildValue("(llis)", at, num_bad, state, libav_words(state, text, sizeof(text)));
}
