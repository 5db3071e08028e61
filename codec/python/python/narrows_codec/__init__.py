"""The entropy codec of narrows: integer features as numpy arrays to packets and back."""

from ._narrows_codec import CodecError, Tables, bits, decode, encode

__all__ = ["CodecError", "Tables", "bits", "decode", "encode"]
