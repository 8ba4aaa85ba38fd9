"""What an export can be. This imports nothing, as command lines need it at once."""

FORMATS = ('onnx', 'torch-export')
DYNAMIC = ('batch', 'size')
HEADS = ('both', 'mean', 'cls', 'dist', 'mean_softmax')
MODES = ('dynamic', 'static')
