/* A frame's samples as float32. */

#include "libav.h"

const float *libav_floats(const struct frame *frame, int num_channels, int channel, long first, long count,
                          float *restrict room)
{
    int is_planar = (frame->format >= U8P && frame->format <= DBLP) || frame->format == S64P;
    const void *data = frame->planes[is_planar ? channel : 0];
    long stride = is_planar ? 1 : num_channels;
    first = is_planar ? first : first * num_channels + channel;
#define CONVERT(type, value)                                                                                           \
    {                                                                                                                  \
        const type *from = (const type *)data + first;                                                                 \
        for (long n = 0; n < count; n++) {                                                                             \
            float x = (float)from[n * stride];                                                                         \
            room[n] = value;                                                                                           \
        }                                                                                                              \
        return room;                                                                                                   \
    }
    switch (frame->format) {
    case FLTP:
        return (const float *)data + first;
    case FLT:
        CONVERT(float, x)
    case U8:
    case U8P:
        CONVERT(uint8_t, (x - 128) * 0x1p-7f)
    case S16:
    case S16P:
        CONVERT(int16_t, x * 0x1p-15f)
    case S32:
    case S32P:
        CONVERT(int32_t, x * 0x1p-31f)
    case S64:
    case S64P:
        CONVERT(int64_t, x * 0x1p-63f)
    case DBL:
    case DBLP:
        CONVERT(double, x)
    default:
        return NULL;
    }
}
