"""Stream encoders, one file per format. `audiofoundation.audio.encode` chooses between them.

The containers around FLAC, MP3 and Opus are written here rather than by ffmpeg's muxers, because those
go back to the start of the file when they finish, which a stream cannot.
"""
