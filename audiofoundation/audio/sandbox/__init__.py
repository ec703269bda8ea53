"""Decoding of untrusted media in disposable, confined child processes.

A caller's process starts one zygote (`zygote.py`), which has the decoders loaded, lies in a network
namespace of its own and forks a fresh child per file: about 3 ms of CPU instead of the 190 ms that a
new interpreter with NumPy and PyAV costs. The child (`media.py`) gets two descriptors, the bytes and a
pipe, confines itself (`confinement.py`, `seccomp.py`), decodes, and is never used again.
`client.py` is the caller's side and believes nothing that a child says.
"""
