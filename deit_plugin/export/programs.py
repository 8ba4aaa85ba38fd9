"""Programs of torch.export and ONNX, and running them."""

import io
import json
import os.path as osp
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from mmengine.utils import digit_version
from torch.export import Dim

from ..models import DeiT
from .classifier import ExportedClassifier

_MOST = 1 << 16  # torch 2.6 wants a limit
# Images in, logits by their names out.
Program = Callable[[torch.Tensor], dict[str, torch.Tensor]]


def check_torch():
    """Whether torch can export.

    Raises:
        ValueError: If it is older than 2.8. 2.6 gives programs that are wrong at other sizes.
    """
    if digit_version(torch.__version__) < digit_version('2.8.0'):
        raise ValueError(f'To export takes torch >= 2.8, here is {torch.__version__}')


def trace(classifier: ExportedClassifier, images: torch.Tensor, dynamic: Sequence[str] = ()):
    """A program of torch.export.

    Args:
        classifier (ExportedClassifier): In evaluation mode.
        images (torch.Tensor): An example (B, 3, H, W), or (B, H, W, 3) uint8 for one with a preparation,
            whose height and width are then free. With a dynamic size another than the model's own.
        dynamic (Sequence[str]): Of ``'batch'`` and ``'size'``, what is free.

    Raises:
        ValueError: If the model takes images of one size only.
    """
    shape: dict = {}
    if 'batch' in dynamic:
        shape[0] = Dim('batch', min=1, max=_MOST)
    if classifier.preparation is not None:
        shape[1], shape[2] = (Dim(name, min=1, max=_MOST) for name in ('height', 'width'))
    elif 'size' in dynamic:
        backbone = getattr(classifier.model, 'backbone', None)
        if not isinstance(backbone, DeiT):
            raise ValueError('--dynamic size: only a DeiT takes images of other sizes')
        for axis, name, patch in zip((2, 3), ('rows', 'columns'), backbone.patch_size):
            shape[axis] = patch * Dim(name, min=2, max=_MOST)  # torch takes 1 for a constant
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch about its own parts
        return torch.export.export(classifier, (images,), dynamic_shapes=(shape,), strict=False)


def torch_program(exported) -> bytes:
    """The file of a program of torch.export."""
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return buffer.getvalue()


def onnx_program(exported, names: tuple[str, ...], notes: Mapping) -> bytes:
    """The file of an ONNX program, with notes in its metadata.

    Args:
        exported (ExportedProgram): Of :func:`trace`.
        names (tuple[str]): Of the outputs.
        notes (Mapping): Texts, or what JSON can hold.

    Raises:
        ModuleNotFoundError: If one of the libraries is not installed.
    """
    onnx = _imported('onnx')
    _imported('onnxscript')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            exported, dynamo=True, input_names=['images'], output_names=list(names), verbose=False
        )
    model = program.model_proto
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    _tidy(model.graph)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _tidy(graph):
    """Name the free sides, and leave out where on this machine each node came from."""
    for node in graph.node:
        node.doc_string = ''
        del node.metadata_props[:]
    sides = graph.input[0].type.tensor_type.shape.dim
    last = len(sides) - 1
    order = (
        ('batch', 'height', 'width', '') if sides[last].dim_value == 3 else ('batch', '', 'height', 'width')
    )
    names = {side.dim_param: name for side, name in zip(sides, order) if side.dim_param}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in names:
                side.dim_param = names[side.dim_param]


def run_torch(path: str, names: tuple[str, ...]) -> Program:
    """A program from a file of torch.export."""
    module = torch.export.load(path).module()

    @torch.no_grad()
    def program(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(names, module(images)))

    return program


def run_onnx(path: str) -> Program:
    """A program from a file of ONNX, on the CPU.

    Raises:
        ModuleNotFoundError: If onnxruntime is not installed.
    """
    runtime = _imported('onnxruntime')
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]

    def program(images: torch.Tensor) -> dict[str, torch.Tensor]:
        answer = session.run(names, {'images': np.ascontiguousarray(images.numpy())})
        return {name: torch.from_numpy(value) for name, value in zip(names, answer)}

    return program


def run(path: str, names: tuple[str, ...]) -> Program:
    """A program from a file of either format."""
    return run_onnx(path) if osp.splitext(path)[1] == '.onnx' else run_torch(path, names)


def _imported(name: str):
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name} is needed for ONNX: `pip install 'deit_plugin[onnx]'`, or `pip install {name}`"
        ) from error
