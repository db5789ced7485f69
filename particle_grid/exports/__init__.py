"""Policies as files for other programs: ONNX models and weights, each with its contract and a model card."""
