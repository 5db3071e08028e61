"""Integer features to bytes and back: the codec of narrows on numpy arrays."""

from ._narrows_codec import CodecError, Tables, bits, decode, encode

__all__ = ["CodecError", "Tables", "bits", "decode", "encode"]
