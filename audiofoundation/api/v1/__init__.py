"""Generated from proto/audiofoundation/v1 by `make proto`; not edited."""
