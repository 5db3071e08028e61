"""Custom backbones: loading, split points, partition and ONNX export."""
