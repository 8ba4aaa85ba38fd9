"""The operations of RandAugment that move pixels, as ``rand_augment_ops`` has those on colours.

What comes from outside of the image is filled, by where the centre of a pixel comes from; where the kernel
reaches out, the border is repeated.
"""

from functools import partial

import torch
import torch.nn.functional as F


def _rise(a, b, c, d, fraction):
    """From ``b`` to a place between ``b`` and ``c``, with a=-1 where others
    have -0.75 or -0.5; exactly 0 where the four are equal."""
    cubic = (d - c).add_(b).sub_(a)
    square = (a - b).sub_(cubic)
    rise = cubic.mul_(fraction).add_(square)
    return rise.mul_(fraction).add_(torch.sub(c, a, out=square)).mul_(fraction)


def _cut(values, inside, fill):
    return values.clamp_(0, 255).byte().where(inside, fill)


def shift(names, levels, signs, size):
    """Shear and translation. Those along the columns are those along the rows of the transposed image."""
    along_rows = sum('X' in name for name in names)
    parts = (slice(0, along_rows), size), (slice(along_rows, None), size[::-1])
    if size[0] == size[1]:
        parts = ((slice(None), size),)
    tensors = []
    for part, lengths in parts:
        tensors += _shift_of(names[part], levels[part], signs[part], *lengths)
    return tensors, partial(_shift_both, along_rows)


def _shift_of(names, levels, signs, height, width):
    """How much further right a row comes from, whole pixels (n, H) and the fraction beyond; the same to the
    nearest pixel; the columns with those that the kernel reaches, and without."""
    shears = torch.tensor([name.startswith('Shear') for name in names], dtype=torch.bool)
    shear = (levels * 0.3 * signs).where(shears, 0)[:, None]
    offset = (levels * 0.45 * signs).where(~shears, 0)[:, None] * width
    distance = shear * (torch.arange(height, dtype=torch.float64) + 0.5) + offset
    whole, nearest = distance.floor(), (distance + 0.5).floor()
    taps = torch.arange(-1, width + 2)
    return whole.long(), (distance - whole).float(), nearest.int(), taps, taps[1:-2].int()


def _shift_both(along_rows, images, fill, *tensors):
    parts = [images[:along_rows], images[along_rows:].transpose(2, 3)]
    if len(tensors) == 5:  # one call for both
        moved = _shift(torch.cat(parts), fill, *tensors)
        parts = [moved[:along_rows], moved[along_rows:]]
    else:
        parts = [_shift(parts[0], fill, *tensors[:5]), _shift(parts[1], fill, *tensors[5:])]
    return torch.cat([parts[0], parts[1].transpose(2, 3)])


def _shift(images, fill, *tensors):
    *sent, taps, columns = tensors
    whole, fraction, nearest = (rows[:, None, :, None] for rows in sent)
    height, width = images.shape[2:]
    source = columns + nearest
    inside = source.clamp(0, width - 1) == source
    del source
    # Without a name the index is freed at once: it is as large as the pixels.
    pixels = images.gather(3, (taps + whole).clamp_(0, width - 1).expand(-1, 3, height, -1)).float()
    taps = [pixels[..., k : k + width] for k in range(4)]
    # Truncated before the sum: a small fall would vanish in its rounding.
    return _cut(_rise(*taps, fraction).floor_().add_(taps[1]), inside, fill)


def rotate(names, levels, signs, size):
    """About the middle."""
    angle = (levels * 30 * signs).deg2rad()[:, None]
    sin, cos = angle.sin(), angle.cos()
    y, x = (torch.arange(side, dtype=torch.float64) + (0.5 - side / 2) for side in size)
    sides = torch.tensor(size[::-1]).view(2, 1, 1, 1)
    # Where a pixel comes from, x and y, is the sum of a part for its column and one for its row, both
    # (2, n, ...). In units of 2^-32 pixels: integers are exact where float32 would lose the digits of the
    # fraction. Half a pixel more, so that the whole pixels are the first of 4 taps in what is padded below.
    columns = (torch.stack([cos * x, sin * x]) * 2**32).round().long()[:, :, None]
    rows = (torch.stack([-sin * y, cos * y]) + sides[..., 0] / 2) * 2**32
    rows = (rows.round().long() + 2**31)[..., None]
    limits = torch.stack([torch.zeros_like(sides), sides])
    inside = (limits << 32) + 2**31 - torch.tensor([0, 1]).view(2, 1, 1, 1, 1)
    return (columns, rows, limits, inside), _rotate


def _rotate(images, fill, *drawn):
    inside, left, top, x_fraction, y_fraction = _sources(*drawn)
    # Padded by as far as the kernel reaches, so that a tap is at the same
    # distance from the first one for all pixels.
    padded = F.pad(images.float(), (2, 2, 2, 2), 'replicate').flatten(2)
    stride = images.shape[3] + 4
    first = torch.add(left, top, alpha=stride).view(len(images), 1, 1, -1).expand(-1, 3, 4, -1)

    def of_rows(values):
        return values.unfold(2, values.shape[2] - 3 * stride, stride).gather(3, first)

    # As in `_rise`, but the sums of taps, which are exact, are of each pixel once; gathered in turns, for the
    # sake of memory.
    length = padded.shape[2] - 3
    a, b, c, d = (padded[..., k : k + length] for k in range(4))
    cubic = (d - c).add_(b).sub_(a)
    values = of_rows(cubic).mul_(x_fraction).add_(of_rows((a - b).sub_(cubic))).mul_(x_fraction)
    values = values.add_(of_rows(c - a)).mul_(x_fraction).add_(of_rows(b)).unbind(2)
    values = _rise(*values, y_fraction[:, :, 0]).add_(values[1])
    return _cut(values.view_as(images), inside, fill)


def _sources(columns, rows, limits, inside):
    """Of each pixel, if it comes from inside, (n, 1, H, W), the column and the row of its first tap,
    (n, H, W), and how far beyond the second tap it comes from, along x and y, (n, 1, 1, H * W)."""
    place = columns + rows
    inside = (place.clamp(*inside) == place).all(0)[:, None]
    fraction = (place & 2**32 - 1).float().mul_(2**-32)
    first = (place >> 32).clamp_(*limits)
    return inside, *first, *fraction.flatten(2)[:, :, None, None]


KINDS = {shift: ('ShearX', 'TranslateXRel', 'ShearY', 'TranslateYRel'), rotate: ('Rotate',)}
