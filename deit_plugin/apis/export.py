"""Export of a classifier for other runtimes."""

import math
import os.path as osp
import tempfile
from collections.abc import Sequence

import torch

from ..checkpoints.atomic import write_whole
from ..datasets.image_folder import broken_image
from ..export.classifier import ExportedClassifier
from ..export.formats import DYNAMIC, FORMATS, MODES
from ..export.int8 import quantize
from ..export.preparation import ImagePreparation
from ..export.programs import Program, check_torch, onnx_program, run, torch_program, trace
from ..messages import some
from .image_list import labels_of, list_images
from .output import check_output
from .predict import Predictor, find_images
from .samples import Sample, Samples

SUFFIX = {'onnx': '.onnx', 'torch-export': '.pt2'}
# Of the largest logit; the other where pixels may differ by one level of 255.
TOLERANCE, TOLERANCE_OF_PIXELS = 1e-3, 5e-2
TOLERANCE_OF_INT8 = 1.0  # beyond it nothing is left of the model
MOST_CALIBRATION = 256  # images


def export(
    checkpoint: str,
    to: str,
    output: str | None = None,
    head: str | None = None,
    dynamic: Sequence[str] = (),
    preprocess: bool = False,
    int8: str | None = None,
    calibration: str | None = None,
    data: str | None = None,
    config: str | None = None,
    force: bool = False,
) -> dict:
    """Write a classifier as another runtime runs it, run it there, and compare.

    Args:
        checkpoint (str): As for :class:`Predictor`.
        to (str): ``'onnx'`` or ``'torch-export'``.
        output (str, optional): The file. Defaults to ``model.onnx`` or ``model.pt2``.
        head (str, optional): See :class:`ExportedClassifier`.
        dynamic (Sequence[str]): Of ``'batch'`` and ``'size'``, what the program leaves free.
        preprocess (bool): Whether it takes whole images as uint8 RGB (B, H, W, 3) of any size, and resizes,
            crops and normalises them as evaluation does. Defaults to False: (B, 3, H, W) float32, prepared.
        int8 (str, optional): ``'dynamic'`` or ``'static'``: the layers with weights in int8, of ONNX.
        calibration (str, optional): For ``'static'``, images of training: a file, folder or glob.
        data (str, optional): As for :func:`evaluate`: the accuracy before and after.
        config (str, optional): As for :class:`Predictor`.
        force (bool): Whether to replace the file. Defaults to False.

    Returns:
        dict: ``output`` and its ``size`` in bytes; ``differences`` of the logits by the shape of the images,
        with ``int8`` also ``int8_differences``; with ``data`` ``accuracy``, top-1 in percent, by
        ``pytorch``, ``exported`` and ``int8``.

    Raises:
        FileExistsError: If the file exists and is not to be replaced.
        ModuleNotFoundError: If a library for ONNX is not installed.
        ValueError: If an argument does not fit, torch is older than 2.8, or the program differs from the
            model. Nothing is written.
    """
    check_torch()
    _check(to, dynamic, preprocess, int8, calibration)
    output = _output(output or 'model' + SUFFIX[to], to, force)
    images = list_images(data) if data else {}
    paths = _calibration(calibration) if calibration else []
    predictor = Predictor(checkpoint, config, 'cpu')
    labels = labels_of(list(images), len(predictor.classes), predictor.classes) if images else []
    samples = Samples(predictor, preprocess, dynamic)
    classifier = _classifier(predictor, head, preprocess)
    programs: dict[str, Program] = {}
    with tempfile.TemporaryDirectory() as scratch:
        written = osp.join(scratch, 'float' + SUFFIX[to])
        write_whole(written, _program(classifier, samples, to))
        programs['exported'] = run(written, classifier.names)
        result: dict = dict(output=output)
        result['differences'] = _compare(classifier, programs['exported'], samples, _tolerance(samples))
        if int8:
            source, written = written, osp.join(scratch, 'int8.onnx')
            quantize(source, written, int8, (samples.read([path]).given for path in paths))
            programs['int8'] = run(written, classifier.names)
            result['int8_differences'] = _compare(classifier, programs['int8'], samples, TOLERANCE_OF_INT8)
        with open(written, 'rb') as file:
            write_whole(output, file.read())
        result['size'] = osp.getsize(output)
        if images:
            result['accuracy'] = _accuracy(classifier, programs, samples, labels, images)
    return result


def _output(path: str, to: str, force: bool) -> str:
    path = check_output(path, force, '--output')
    if osp.splitext(path)[1] != SUFFIX[to]:
        raise ValueError(f'--output {path}: the name of a file of {to} ends with {SUFFIX[to]}')
    return path


def _calibration(folder: str) -> list[str]:
    paths = find_images([folder])
    paths = paths[:: math.ceil(len(paths) / MOST_CALIBRATION)]  # of all classes
    if broken := [reason for reason in map(broken_image, paths) if reason]:
        raise ValueError(f'--calibration takes sound images: {some(broken)}')
    return paths


def _classifier(predictor: Predictor, head: str | None, preprocess: bool) -> ExportedClassifier:
    preparation = None
    if preprocess:
        preparation = ImagePreparation(predictor.pipeline.transforms, predictor.model.data_preprocessor)
    return ExportedClassifier(predictor.model, head, preparation).eval()


def _program(classifier: ExportedClassifier, samples: Samples, to: str) -> bytes:
    """The file in float32."""
    program = trace(classifier, samples.example(), samples.dynamic)
    if to == 'torch-export':
        return torch_program(program)
    return onnx_program(program, classifier.names, _notes(samples))


def _check(to: str, dynamic: Sequence[str], preprocess: bool, int8: str | None, calibration: str | None):
    if to not in FORMATS:
        raise ValueError(f'--to {to!r} is unknown: choose one of {FORMATS}')
    if unknown := [name for name in dynamic if name not in DYNAMIC]:
        raise ValueError(f'--dynamic {some(unknown)} is unknown: choose of {DYNAMIC}')
    if preprocess and 'size' in dynamic:
        raise ValueError('--dynamic size: with --preprocess images have any size, leave it out')
    if int8 is None:
        if calibration:
            raise ValueError('--calibration is for --int8 static')
        return
    if int8 not in MODES:
        raise ValueError(f'--int8 {int8!r} is unknown: choose one of {MODES}')
    if to != 'onnx':
        raise ValueError('--int8 is for --to onnx')
    if (int8 == 'static') != bool(calibration):
        raise ValueError('--int8 static, and no other, needs --calibration FOLDER, with images of training')


@torch.no_grad()
def _logits(classifier: ExportedClassifier, sample: Sample) -> dict[str, torch.Tensor]:
    """The model's own, by the names of the outputs."""
    return dict(zip(classifier.names, classifier.of_prepared(sample.prepared)))


def _tolerance(samples: Samples) -> float:
    return TOLERANCE_OF_PIXELS if samples.whole else TOLERANCE


def _compare(
    classifier: ExportedClassifier, program: Program, samples: Samples, tolerance: float
) -> dict[str, float]:
    """The largest difference of the logits, as a part of the largest logit, by the shape of the images."""
    differences = {}
    for sample in samples.compared():
        expected, given = _logits(classifier, sample), program(sample.given)
        shape = ' x '.join(map(str, sample.given.shape))
        if any(given[name].shape != value.shape for name, value in expected.items()):
            raise ValueError(f'Of images of {shape} the program gives logits of another shape')
        difference = max(
            ((given[name] - value).abs().max() / value.abs().max()).item() for name, value in expected.items()
        )
        if not difference <= tolerance:
            raise ValueError(
                f'Of images of {shape} the logits of the program differ by {difference:.2g} of the largest, '
                f'more than {tolerance:g}: it is not written'
                + (', calibrate it with more images' if tolerance == TOLERANCE_OF_INT8 else '')
            )
        differences[shape] = difference
    return differences


def _accuracy(
    classifier: ExportedClassifier,
    programs: dict[str, Program],
    samples: Samples,
    labels: Sequence[int],
    images: dict[str, list[str]],
) -> dict[str, float]:
    """Top-1 in percent; of two heads that of their mean."""
    hits = dict.fromkeys(('pytorch', *programs), 0)
    for label, paths in zip(labels, images.values()):
        for path in paths:
            sample = samples.read([path])
            answers = dict(pytorch=_logits(classifier, sample))
            answers.update({name: program(sample.given) for name, program in programs.items()})
            for name, logits in answers.items():
                hits[name] += int(sum(logits.values()).argmax() == label)
    return {name: 100 * number / sum(map(len, images.values())) for name, number in hits.items()}


def _notes(samples: Samples) -> dict:
    """What a user of the file must know, for its metadata."""
    predictor = samples.predictor
    preprocessor = predictor.model.data_preprocessor
    notes: dict = dict(classes=predictor.classes)
    if 'size' in samples.dynamic:
        notes['size_is_a_multiple_of'] = list(predictor.model.backbone.patch_size)
    prepared = dict(
        mean=preprocessor.mean.flatten().tolist(),
        std=preprocessor.std.flatten().tolist(),
        channels='RGB' if preprocessor.to_rgb else 'BGR',
        pipeline=predictor.steps,
    )
    notes['images'] = 'uint8 RGB (batch, height, width, 3)' if samples.whole else prepared
    return notes
