"""Models for other runtimes: ONNX and torch.export, with their preparation of images and in int8."""
