"""Bring your own backbone: timm, torchvision or ONNX, cut at any point where one tensor carries everything."""
