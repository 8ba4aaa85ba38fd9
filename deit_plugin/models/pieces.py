"""Images that the device makes of what a worker sent (:class:`deit_plugin.datasets.pieces.Pieces`)."""

import logging
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from mmengine.logging import print_log

from ..datasets.jpeg import choose_decoder, decode, read_header
from .sending import send


def images_of(batch: dict, device: torch.device) -> torch.Tensor:
    """The images of a batch of ``Pieces``, made on a device.

    Resized as Pillow does it (bicubic, antialiased), but in float32 and without rounding between the passes.
    A GPU decodes JPEGs by nvJPEG (``torchvision.io.decode_jpeg``), which rounds otherwise than libjpeg.

    Args:
        batch (dict): ``pieces``, ``boxes`` and ``size``, on the CPU.
        device (torch.device): Where they are made.

    Returns:
        torch.Tensor: (B, 3, H, W) uint8, RGB.

    Raises:
        OSError: If a file is broken.
    """
    rows = batch['boxes'].tolist()
    # Asynchronously, if it is in pinned memory; a file is decoded from where it is.
    sent = batch['pieces'].to(device, non_blocking=True) if all(row[1] for row in rows) else batch['pieces']
    images = []
    for image, (_, _, _, top, left, height, width, _) in zip(_whole(sent, rows, device), rows):
        crop = image[:, top : top + height, left : left + width]
        images.append(F.interpolate(crop[None].float(), batch['size'], mode='bicubic', antialias=True))
    resized = torch.cat(images).add_(0.5).clamp_(0, 255).byte()  # cut off: as Pillow rounds
    flipped = send(batch['boxes'][:, -1].bool(), device)
    return resized.flip(3).where(flipped[:, None, None, None], resized)


def _whole(sent: torch.Tensor, rows: list[list[int]], device: torch.device) -> Iterator[torch.Tensor]:
    """What was sent of each image, (3, H, W) uint8 RGB on the device."""
    parts = sent.split([row[0] for row in rows])
    files = iter(_decoded([part for part, row in zip(parts, rows) if not row[1]], device))
    for part, (_, height, width, *_) in zip(parts, rows):
        if height:
            yield part.view(height, width, 3).permute(2, 0, 1).to(device, non_blocking=True)
        else:
            yield next(files)


def _decoded(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    if device.type == 'cuda' and files:
        from torchvision.io import ImageReadMode, decode_jpeg

        try:
            return decode_jpeg(files, ImageReadMode.RGB, device)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:  # nvJPEG knows fewer kinds; what is broken is what Pillow calls broken
            print_log(
                f'nvJPEG refuses a batch, which is decoded on the CPU: {error}', 'current', logging.WARNING
            )
    return [_decoded_here(file.numpy().tobytes()).to(device) for file in files]


def _decoded_here(data: bytes) -> torch.Tensor:
    try:
        image = decode(data, read_header(data), choose_decoder('auto'))
    except Exception as error:  # Pillow's readers raise many kinds
        raise OSError(
            f'A JPEG of this batch is broken: {error}. Without `on_device="decode"` its name is told'
        ) from error
    return torch.from_numpy(image).permute(2, 0, 1)
