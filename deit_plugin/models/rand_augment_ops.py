"""The operations of RandAugment on colours, each for a batch of images, with Pillow's results.

Operations of a kind are done together, to launch little. A kind is a function of what was drawn: the names
of its operations, in the order of ``KINDS``, their levels in [0, 1] and signs, both (n,), and the height and
width of the images. It works on the CPU and gives tensors for the device, and a function of the n images,
uint8 of shape (n, 3, H, W), the fill colour, uint8 of shape (3, 1, 1), and these tensors there.
"""

from functools import partial

import torch

# Look-up tables that follow from the level, uint8 of shape (n, 256), made on the CPU

VALUES = torch.arange(256)


def _invert(levels, signs):
    return (255 - VALUES).expand(len(levels), -1)


def _posterize(levels, signs):
    return VALUES & -(2 ** (4 + (levels * 4).long()))[:, None]


def _solarize(levels, signs):
    threshold = 256 - (levels * 256).long()[:, None]
    return VALUES.where(VALUES < threshold, 255 - VALUES)


def _solarize_add(levels, signs):
    added = (levels * 110).long()[:, None]
    return (VALUES + added).where(VALUES < 128, VALUES)


def _brightness(levels, signs):
    return VALUES * _factor(levels, signs)[:, None]


TABLES = {
    'Invert': _invert,
    'PosterizeIncreasing': _posterize,
    'SolarizeIncreasing': _solarize,
    'SolarizeAdd': _solarize_add,
    'BrightnessIncreasing': _brightness,
}


def look_up(names, levels, signs, size):
    """Whose values follow from a table, of the level or of the channel's values."""
    equalized, stretched = (names.count(name) for name in ('Equalize', 'AutoContrast'))
    start, made = equalized + stretched, []
    for name, table in TABLES.items():
        end = start + names.count(name)
        made.append(table(levels[start:end], signs[start:end]))
        start = end
    return look_up_in(made, equalized, stretched)


def look_up_in(tables, equalized=0, stretched=0):
    """Look values up in tables, each (n, 256), after those images whose tables follow from them."""
    made = torch.cat([torch.empty(0, 256, dtype=torch.uint8), *(t.clamp(0, 255).byte() for t in tables)])
    images = equalized + stretched + len(made)
    offsets = torch.arange(0, images * 768, 256, dtype=torch.int32).view(-1, 3, 1)
    return (made, offsets, VALUES), partial(_look_up, equalized, stretched)


def _look_up(equalized, stretched, images, fill, made, offsets, values):
    pixels, computed = images.flatten(2), equalized + stretched
    # Of each pixel, its value's place in all tables.
    at = pixels.int().add_(offsets)
    tables = pixels.new_empty(len(images), 3, 256)
    if computed:
        low, high = (f(pixels[:computed], 2, keepdim=True) for f in (torch.amin, torch.amax))
    if equalized:
        tables[:equalized] = _equalize(at[:equalized], high[:equalized], values)
    if stretched:
        tables[equalized:computed] = _auto_contrast(low[equalized:], high[equalized:], values)
    tables[computed:] = made[:, None]
    return tables.flatten().index_select(0, at.flatten()).view_as(images)


def _auto_contrast(low, high, values):
    spread = high - low
    # A number divided by a tensor would be the number times a rounded reciprocal.
    scale = torch.div(torch.tensor(255.0, dtype=torch.float64), spread)
    stretch = (values * scale).sub_(low * scale)
    return stretch.where(spread > 0, values).clamp_(0, 255)


def _equalize(at, high, values):
    count = at.shape[2]
    histogram = values.new_zeros(at.shape[:2].numel() * 256)
    histogram.index_add_(0, at.flatten(), values.new_ones(1).expand(at.numel()))
    histogram = histogram.view(-1, 3, 256)
    step = (count - histogram.gather(2, high.long())) // 255
    darker = histogram.cumsum(2).sub_(histogram)
    equal = darker.add_(step // 2) // step.clamp(min=1)
    return equal.where(step > 0, values).clamp_(0, 255)


# From a degenerate image towards the image, or beyond it


def _factor(levels, signs):
    return (1 + levels * 0.9 * signs).float()


def blend(names, levels, signs, size):
    """Contrast, colour and sharpness."""
    return blend_by(_factor(levels, signs), *(names.count(name) for name in KINDS[blend]))


def blend_by(factors, contrasts, colors, sharp=0):
    """By factors (n, ), float32, of so many images each."""
    return (factors.view(-1, 1, 1, 1),), partial(_blend, contrasts, colors, sharp)


def _blend(contrasts, colors, sharp, images, fill, factor):
    grey = contrasts + colors
    degenerate = torch.empty_like(images, dtype=torch.float32)
    if grey:
        luma = _grey(images[:grey])
        if contrasts:
            degenerate[:contrasts] = _mean(luma[:contrasts])
        degenerate[contrasts:grey] = luma[contrasts:]
    if sharp:
        _smooth(images[grey:], degenerate[grey:])
    # In the order of Pillow's float32 operations, as each of them rounds.
    return images.float().sub_(degenerate).mul_(factor).add_(degenerate).clamp_(0, 255).byte()


def _grey(images):
    """ITU-R 601 luma as Pillow rounds it, int32 of shape (n, 1, H, W)."""
    red, green, blue = images.int().split(1, 1)
    half = torch.tensor(0x8000, dtype=torch.int32)
    total = torch.add(half, red, alpha=19595).add_(green, alpha=38470).add_(blue, alpha=7471)
    return total.bitwise_right_shift_(16)


def _mean(grey):
    count = grey.shape[2:].numel()
    return grey.sum((2, 3), keepdim=True).add_(count // 2) // count


def _smooth(images, result):
    """A 3x3 mean in which the middle counts 5 times; the border is kept."""
    pixels = images.short()
    rows = (pixels[:, :, :-2] + pixels[:, :, 1:-1]).add_(pixels[:, :, 2:])
    total = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    total.add_(pixels[:, :, 1:-1, 1:-1], alpha=4).add_(6)
    result.copy_(images)
    result[:, :, 1:-1, 1:-1] = total // 13


KINDS = {
    look_up: ('Equalize', 'AutoContrast', *TABLES),
    blend: ('ContrastIncreasing', 'ColorIncreasing', 'SharpnessIncreasing'),
}
