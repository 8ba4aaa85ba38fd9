"""A picture of where the tokens look."""

import numpy as np

from ..checkpoints.atomic import write_whole
from ..visualization.attention import attention_maps, token_similarity
from ..visualization.figures import attention_figure, png
from .output import check_output
from .predict import Predictor


def attention(
    checkpoint: str,
    image: str,
    output: str = 'attention.png',
    config: str | None = None,
    similarity: bool = False,
    force: bool = False,
    device: str | None = None,
) -> dict:
    """Draw the attention of class and distillation token over an image.

    Args:
        checkpoint (str): As for :class:`Predictor`, of a DeiT.
        image (str): The file of an image.
        output (str): The PNG to write. Defaults to ``'attention.png'``.
        config (str, optional): As for :class:`Predictor`.
        similarity (bool): Whether to compare the two tokens by layer, too. Defaults to False.
        force (bool): Whether to replace ``output``. Defaults to False.
        device (str, optional): As for :class:`Predictor`.

    Returns:
        dict: ``attention``, an :class:`Attention`, and with ``similarity`` the cosine by layer.

    Raises:
        OSError: If the image is broken, or the picture cannot be written.
        ValueError: If the checkpoint is not of a DeiT, or has one token only to compare.
    """
    output = check_output(output, force, '--output')
    predictor = Predictor(checkpoint, config, device)
    backbone = getattr(predictor.model, 'backbone', predictor.model)
    inputs = predictor.prepare([image])
    result = dict(attention=attention_maps(backbone, inputs))
    if similarity:
        result['similarity'] = token_similarity(backbone, inputs)
    pixels = predictor.pipeline(dict(img_path=image))['inputs']  # (3, H, W) uint8 BGR
    shown = np.ascontiguousarray(pixels.flip(0).permute(1, 2, 0).numpy())
    write_whole(output, png(attention_figure(shown, result['attention'], result.get('similarity'))))
    return result
