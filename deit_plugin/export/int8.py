"""Weights and activations in int8, by onnxruntime."""

import warnings
from collections.abc import Iterable, Iterator

import torch

_LINEAR = ('MatMul', 'Gemm', 'Conv')


def quantize(source: str, target: str, mode: str, calibration: Iterable[torch.Tensor] = ()):
    """Write an ONNX program with the layers that have weights in int8.

    Products of two activations, as in attention, stay in float32, and so does the preparation of images.

    Args:
        source (str): The file in float32.
        target (str): The file to write.
        mode (str): ``'dynamic'``: the range of the activations is measured as they come. ``'static'``: it is
            that of the calibration.
        calibration (Iterable[torch.Tensor]): For ``'static'`` batches as the program takes them.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    _infer_shapes(source, target)
    source = target
    common = dict(per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=_without_weights(source))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if mode == 'dynamic':
            quantize_dynamic(source, target, op_types_to_quantize=['MatMul', 'Gemm'], **common)
        else:
            quantize_static(
                source,
                target,
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_LINEAR),
                **common,
            )


def _infer_shapes(source: str, target: str):
    """As onnxruntime advises before it quantizes. Its symbolic way does not know all ranges of a free
    size."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    try:
        quant_pre_process(source, target)
    except Exception:  # assertions among others
        quant_pre_process(source, target, skip_symbolic_shape=True)


def _without_weights(path: str) -> list[str]:
    """The names of the products of two activations."""
    import onnx

    graph = onnx.load(path).graph
    weights = {value.name for value in graph.initializer}
    return [
        node.name for node in graph.node if node.op_type in _LINEAR and not weights.intersection(node.input)
    ]


class _Reader:
    """Batches as onnxruntime's ``CalibrationDataReader`` hands them on."""

    def __init__(self, batches: Iterable[torch.Tensor]):
        self.batches: Iterator[torch.Tensor] = iter(batches)

    def get_next(self) -> dict | None:
        """The next batch, or None."""
        images = next(self.batches, None)
        return None if images is None else dict(images=images.numpy())
