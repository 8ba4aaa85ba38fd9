"""The binary format of one batch's labels."""

import struct
import zlib

import numpy as np


def check_sizes(mode, iterations, batch_size, num_classes, rank, world_size, topk):
    """Refuse arguments of a store that are out of range."""
    if (
        mode not in ('record', 'replay', 'auto')
        or min(iterations, batch_size, num_classes, world_size) < 1
        or not 0 <= rank < world_size
        or not 0 <= topk <= num_classes
    ):
        raise ValueError(
            f'Out of range: mode={mode!r}, iterations={iterations}, batch_size={batch_size}, '
            f'num_classes={num_classes}, rank={rank}, world_size={world_size}, topk={topk}'
        )


def block_dtype(batch_size: int, num_classes: int, topk: int) -> np.dtype:
    """A checksum (uint32), the class indices (batch_size, ) or (batch_size, topk), and with ``topk``
    their probabilities (float16)."""
    shape = (batch_size, topk) if topk else (batch_size,)
    index = '<u2' if num_classes <= 65535 else '<u4'
    fields = [('checksum', '<u4'), ('indices', index, shape)]
    return np.dtype(fields + [('probs', '<f2', shape)] * bool(topk))


def make_block(dtype: np.dtype, num_classes: int, indices, probs=None) -> np.ndarray:
    """A block (1, ) without its checksum.

    Args:
        dtype (np.dtype): Of :func:`block_dtype`.
        num_classes (int): Of the teacher.
        indices (array): Integers, 0 to ``num_classes`` - 1, of the shape in ``dtype``.
        probs (array, optional): 0 to 1, of that shape, where ``dtype`` has probabilities.

    Raises:
        ValueError: If the arrays are not as above.
    """
    block = np.zeros(1, dtype)
    indices, shape = np.asarray(indices), block['indices'].shape[1:]
    if (
        indices.shape != shape
        or indices.dtype.kind not in 'iu'
        or indices.min() < 0
        or indices.max() >= num_classes
    ):
        raise ValueError(
            f'indices must be integers from 0 to {num_classes - 1} of shape {shape}, but are '
            f'{indices.dtype} of shape {indices.shape}, or out of range'
        )
    block['indices'] = indices
    has_probs = 'probs' in (dtype.names or ())
    if (probs is not None) != has_probs:
        raise ValueError(f'probs are needed if topk > 0, and only then: the block is {dtype}')
    if probs is not None:
        probs = np.asarray(probs, np.float16)
        if probs.shape != shape or not ((probs >= 0) & (probs <= 1)).all():
            raise ValueError(
                f'probs must be from 0 to 1 and of shape {shape}, but are {probs.shape}, or out of range'
            )
        block['probs'] = probs
    return block


def checksum(block: np.ndarray, iteration: int, rank: int) -> int:
    """CRC-32 of a block's labels and their place; never 0, which marks a hole."""
    place = zlib.crc32(struct.pack('<QQ', iteration, rank))
    return zlib.crc32(block.tobytes()[4:], place) or 1
