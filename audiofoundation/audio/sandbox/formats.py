"""Which containers and codecs are decoded at all, by ffmpeg's names, and within which bounds."""

MAX_CHANNELS = 8
MIN_RATE_HZ, MAX_RATE_HZ = 4000, 192000

# Containers that hold audio themselves. Never anything that names other files or addresses (hls, concat,
# dash, sdp, rtsp, tee, lavfi, image2, asx, webm_dash_manifest …).
DEMUXERS = frozenset(
    {
        "aac",
        "ac3",
        "aiff",
        "amr",
        "ape",
        "asf",
        "au",
        "avi",
        "caf",
        "dts",
        "eac3",
        "flac",
        "flv",
        "matroska",
        "mov",
        "mp3",
        "mpc",
        "mpc8",
        "mpeg",
        "mpegts",
        "nistsphere",
        "ogg",
        "tta",
        "voc",
        "w64",
        "wav",
        "wv",
    }
)

_DECODER_NAMES = """
aac aac_latm ac3 ac3_fixed eac3 alac amrnb amrwb ape dca flac gsm gsm_ms mp1 mp1float mp2 mp2float mp3 mp3float
mpc7 mpc8 opus libopus vorbis libvorbis speex libspeex tta wavpack wmav1 wmav2 wmapro wmalossless wmavoice truehd
mlp shorten nellymoser adpcm_ima_wav adpcm_ima_qt adpcm_ms adpcm_swf adpcm_yamaha g722 g726 g726le
pcm_alaw pcm_mulaw pcm_u8 pcm_s8 pcm_s8_planar pcm_s16be pcm_s16le pcm_s16be_planar pcm_s16le_planar pcm_u16be
pcm_u16le pcm_s24be pcm_s24le pcm_s24le_planar pcm_u24be pcm_u24le pcm_s32be pcm_s32le pcm_s32le_planar pcm_u32be
pcm_u32le pcm_s64be pcm_s64le pcm_f16le pcm_f24le pcm_f32be pcm_f32le pcm_f64be pcm_f64le pcm_dvd pcm_bluray
"""
AUDIO_DECODERS = frozenset(_DECODER_NAMES.split())

# Demuxers whose duration an encoder wrote; the others' is guessed from a bit rate. WAV and MP3 are looked
# at more closely (`media.py`): streamed WAV carries a placeholder, MP3 tells only in a Xing header.
TRUSTED_DURATION = frozenset({"flac", "mov", "ogg", "aiff", "wv", "tta", "ape", "matroska", "caf"})

# What ffmpeg itself calls these containers in full.
FULL_NAMES = {"mov": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm"}
