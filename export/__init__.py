"""Exports trained runs as a SavedModel for servers, TFLite for edge devices, and ONNX."""
