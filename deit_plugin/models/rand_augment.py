"""RandAugment for a whole batch of images, on the device they are on."""
import math
from numbers import Integral
from typing import NamedTuple, Sequence

import torch
import torch.nn.functional as F
from torch import nn

MAX_LEVEL = 10.


class Plan(NamedTuple):
    """What is done to a batch. The tensors are of shape (num_ops, B) and on
    the CPU, where reading them waits for no device.

    Args:
        ops (torch.Tensor): Indices into ``OPERATIONS``, int64; -1 for none.
        levels (torch.Tensor): In [0, 10], float64.
        signs (torch.Tensor): -1 or 1, float64. Like the level, it is without
            meaning for the operations that have none.
    """
    ops: torch.Tensor
    levels: torch.Tensor
    signs: torch.Tensor


class RandAugment(nn.Module):
    """timm's ``rand-m9-mstd0.5-inc1``, which DeiT's reference trains with.

    For every image ``num_ops`` of the 15 operations of timm's increasing set
    are drawn with replacement. Each is applied with probability ``prob``, at
    a level of its own from N(magnitude, magnitude_std) clipped to [0, 10].

    The results are Pillow's to the bit, but for the geometric operations.
    Those resample as Pillow does (bicubic with a=-1, truncated) in float32
    instead of float64: fewer than 1 value in 10,000 is another, by 1.
    ``PosterizeIncreasing`` at level 10 keeps no bit, so the image turns black
    as it did in the Pillow of DeiT's time; Pillow 13 refuses, and timm with
    it.

    All draws are from torch's global generator on the CPU, so
    ``torch.manual_seed`` fixes them whatever the device. Nothing is read back
    from the device. From RandAugment, https://arxiv.org/abs/1909.13719.

    Args:
        magnitude (float): The mean of the levels, in [0, 10]. Defaults to 9.
        magnitude_std (float): Their standard deviation before clipping, at
            least 0. Defaults to 0.5.
        num_ops (int): Operations drawn for an image, at least 1. Defaults
            to 2.
        prob (float): The probability that one that was drawn is applied, in
            [0, 1]. Defaults to 0.5.
        fill (Sequence[int]): The RGB colour of what comes from outside of the
            image, in [0, 255]. Defaults to ImageNet's mean.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self,
                 magnitude: float = 9.,
                 magnitude_std: float = .5,
                 num_ops: int = 2,
                 prob: float = .5,
                 fill: Sequence[int] = (124, 116, 104)):
        super().__init__()
        if not 0 <= magnitude <= MAX_LEVEL:
            raise ValueError(f'magnitude={magnitude} is not in [0, 10]')
        if not 0 <= magnitude_std < math.inf:
            raise ValueError(
                f'magnitude_std={magnitude_std} is not in [0, inf)')
        if not isinstance(num_ops, Integral) or num_ops < 1:
            raise ValueError(f'num_ops={num_ops} is not a positive integer')
        if not 0 <= prob <= 1:
            raise ValueError(f'prob={prob} is not in [0, 1]')
        if len(fill) != 3 or not all(
                isinstance(v, Integral) and 0 <= v <= 255 for v in fill):
            raise ValueError(f'fill={fill} is not 3 integers in [0, 255]')
        self.magnitude = magnitude
        self.magnitude_std = magnitude_std
        self.num_ops = num_ops
        self.prob = prob
        self.fill = tuple(fill)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``apply_plan`` with a plan of its own."""
        _check(images)
        return self.apply_plan(images, self.draw(len(images)))

    def draw(self, batch_size: int) -> Plan:
        """Draws what is done to ``batch_size`` images, in four calls to
        torch's global generator on the CPU."""
        shape = self.num_ops, batch_size
        ops = torch.randint(len(OPERATIONS), shape)
        applied = torch.rand(shape) < self.prob
        noise = torch.randn(shape, dtype=torch.float64)
        levels = self.magnitude + self.magnitude_std * noise
        signs = torch.randint(2, shape).double() * 2 - 1
        return Plan(ops.where(applied, -1), levels.clamp(0, MAX_LEVEL), signs)

    def apply_plan(self, images: torch.Tensor, plan: Plan) -> torch.Tensor:
        """Does to ``images`` what ``plan`` says.

        Args:
            images (torch.Tensor): RGB, uint8 of shape (B, 3, H, W).
            plan (Plan): For B images.

        Returns:
            torch.Tensor: As ``images``, in memory of its own.

        Raises:
            ValueError: If the images are of another dtype or shape, or the
                plan is for another number of them.
        """
        _check(images)
        if plan.ops.shape[1] != len(images):
            raise ValueError(
                f'the plan is for {plan.ops.shape[1]} images, not for '
                f'{len(images)}')
        rows = list(images)
        for ops, levels, signs in zip(*plan):
            names = [NAMES[op] if op >= 0 else None for op in ops.tolist()]
            rows = _grouped(OPERATIONS, rows, names, levels / MAX_LEVEL, signs,
                            self.fill)
        return torch.stack(rows) if rows else images.clone()


def _check(images):
    if images.dtype != torch.uint8:
        raise ValueError(f'images are of dtype {images.dtype}, not uint8')
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f'images are of shape {tuple(images.shape)}, not '
                         '(B, 3, H, W)')


def _to(tensor, images):
    # A blocking copy would wait for all that the device has to do.
    return tensor.to(images.device, non_blocking=True)


# The functions below take n images, uint8 of shape (n, 3, H, W), and the names
# of their operations, their levels in [0, 1] and signs, both (n,) and on the
# CPU, and the fill colour.


def _grouped(functions, rows, names, levels, signs, fill):
    """What each image's function makes of it, a list; the image itself where
    the name is None. Images of the same function go through it together."""
    groups = {}
    for i, name in enumerate(names):
        if name is not None:
            groups.setdefault(functions[name], []).append(i)
    results = list(rows)
    for function, at in groups.items():
        # Stacking picks images without an index on the device.
        done = function(
            torch.stack([rows[i] for i in at]), [names[i] for i in at],
            levels[at], signs[at], fill)
        for i, result in zip(at, done):
            results[i] = result
    return results


# Look-up tables, uint8 of shape (n, 3, 256)


def _table(values, images):
    return values.clamp(0, 255).byte().expand(len(images), 3, 256)


def _identity(images):
    return torch.arange(256, device=images.device).view(1, 1, 256)


def _auto_contrast(images, *_):
    pixels = images.flatten(2)
    low = pixels.amin(2, keepdim=True).double()
    spread = pixels.amax(2, keepdim=True) - low
    # A number divided by a tensor is the number times a rounded reciprocal.
    identity, scale = _identity(images), torch.full_like(spread, 255) / spread
    stretched = identity * scale + -low * scale
    return _table(stretched.where(spread > 0, identity), images)


def _equalize(images, *_):
    pixels = images.flatten(2).long()
    histogram = pixels.new_zeros(len(images), 3, 256)
    histogram.scatter_add_(2, pixels, pixels.new_ones(1).expand_as(pixels))
    brightest = histogram.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - brightest) // 255
    darker = histogram.cumsum(2) - histogram
    equal = (darker + step // 2) // step.clamp(min=1)
    return _table(equal.where(step > 0, _identity(images)), images)


def _invert(images, *_):
    return _table(255 - _identity(images), images)


def _posterize(images, names, levels, *_):
    mask = _to(-(2**(4 + (levels * 4).long())), images)[:, None, None]
    return _table(_identity(images) & mask, images)


def _solarize(images, names, levels, *_):
    threshold = _to(256 - (levels * 256).long(), images)[:, None, None]
    identity = _identity(images)
    return _table(identity.where(identity < threshold, 255 - identity), images)


def _solarize_add(images, names, levels, *_):
    added = _to((levels * 110).long(), images)[:, None, None]
    identity = _identity(images)
    return _table((identity + added).where(identity < 128, identity), images)


def _brightness(images, names, levels, signs, fill):
    black = torch.zeros_like(_identity(images))
    blend = _blend(black, _identity(images), levels, signs)
    return blend.expand(-1, 3, -1)


def _contrast(images, names, levels, signs, fill):
    grey = _grey(images).flatten(2)
    count = grey.shape[2]
    mean = (grey.sum(2, keepdim=True) * 2 + count) // (count * 2)
    blend = _blend(mean, _identity(images), levels, signs)
    return blend.expand(-1, 3, -1)


TABLES = {
    'AutoContrast': _auto_contrast,
    'Equalize': _equalize,
    'Invert': _invert,
    'PosterizeIncreasing': _posterize,
    'SolarizeIncreasing': _solarize,
    'SolarizeAdd': _solarize_add,
    'ContrastIncreasing': _contrast,
    'BrightnessIncreasing': _brightness,
}


def _look_up(images, *drawn):
    tables = torch.stack(_grouped(TABLES, images, *drawn))
    return tables.gather(2, images.flatten(2).long()).view_as(images)


# From a degenerate image towards the image, or beyond it


def _blend(degenerate, images, levels, signs):
    # In the order of Pillow's float32 operations, as each of them rounds.
    factor = (1 + levels * .9 * signs).float()
    factor = _to(factor, images).view(-1, *[1] * (degenerate.ndim - 1))
    degenerate = degenerate.float()
    blend = (images - degenerate) * factor + degenerate
    return blend.clamp_(0, 255).byte()


def _grey(images):
    """ITU-R 601 luma as Pillow rounds it, int32 of shape (n, 1, H, W)."""
    red, green, blue = images.int().split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _color(images, names, levels, signs, fill):
    return _blend(_grey(images), images, levels, signs)


def _sharpness(images, names, levels, signs, fill):
    # A 3x3 mean in which the middle counts 5 times; the border is kept.
    pixels = images.short()
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    total += 4 * pixels[:, :, 1:-1, 1:-1]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = (total + 6) // 13
    return _blend(smooth, images, levels, signs)


# Geometry: what comes from outside of the image is filled, by where the centre
# of a pixel comes from; where the kernel reaches out, the border is repeated.


def _rise(a, b, c, d, fraction):
    """From ``b`` to a place between ``b`` and ``c``, with a=-1 where others
    have -0.75 or -0.5; exactly 0 where the four are equal."""
    cubic = (d - c).add_(b).sub_(a)
    square = (a - b).sub_(cubic)
    rise = cubic.mul_(fraction).add_(square)
    return rise.mul_(fraction).add_(c - a).mul_(fraction)


def _cut(values, inside, fill):
    fill = _to(torch.tensor(fill, dtype=torch.uint8), values)[:, None, None]
    return values.clamp_(0, 255).byte().where(inside, fill)


def _shift_x(images, names, levels, signs, fill):
    height, width = images.shape[2:]
    shears = torch.tensor([name.startswith('Shear') for name in names])
    shear = (levels * .3 * signs).where(shears, 0)[:, None]
    offset = (levels * .45 * signs).where(~shears, 0)[:, None] * width
    # How much further right a row comes from, (n, H) in pixels.
    shift = shear * (torch.arange(height, dtype=torch.float64) + .5) + offset

    def sent(rows):
        return _to(rows, images)[:, None, :, None]

    whole = sent(shift.floor().long())
    fraction = sent((shift - shift.floor()).float())
    nearest = sent((shift + .5).floor().long())
    x = torch.arange(-1, width + 2, device=images.device)
    taps = (x + whole).clamp_(0, width - 1).expand(-1, 3, height, -1)
    pixels = images.gather(3, taps).float()
    taps = [pixels[..., k:k + width] for k in range(4)]
    # Truncated before the sum: a small fall would vanish in its rounding.
    values = _rise(*taps, fraction).floor_().add_(taps[1])
    source = x[1:-2] + nearest
    return _cut(values, (source >= 0) & (source < width), fill)


def _shift_y(images, *drawn):
    images = _shift_x(images.transpose(2, 3), *drawn)
    return images.transpose(2, 3).contiguous()


def _rotate(images, names, levels, signs, fill):
    height, width = images.shape[2:]
    angle = (levels * 30 * signs).deg2rad()[:, None]
    sin, cos = angle.sin(), angle.cos()
    x = torch.arange(width, dtype=torch.float64) + (.5 - width / 2)
    y = torch.arange(height, dtype=torch.float64) + (.5 - height / 2)

    def source(column, row, side):
        """Along one axis: if the sum of a column's part and a row's is
        inside, the first of its 4 taps in what is padded below, and how far
        beyond the second it is."""
        # In units of 2^-32 pixels: integers are exact where float32 would
        # lose the digits of the fraction.
        column = (column * 2**32).round().long()[:, None]
        row = ((row + side / 2) * 2**32).round().long()[:, :, None]
        place = _to(column, images) + _to(row, images)
        inside = (place >= 0) & (place < side << 32)
        place -= 2**31
        first = ((place >> 32) + 1).clamp_(0, side)
        fraction = (place & 2**32 - 1).float() / 2**32
        return inside, first, fraction[:, None]

    in_x, left, x_fraction = source(cos * x, -sin * y, width)
    in_y, top, y_fraction = source(sin * x, cos * y, height)
    # Padded by as far as the kernel reaches, so that a tap is at the same
    # distance from the first one for all pixels.
    padded = F.pad(images.float(), (2, 2, 2, 2), 'replicate').flatten(2)
    stride = width + 4
    first = (top * stride + left).view(len(images), 1, -1).expand(-1, 3, -1)

    def tap(row, column):
        pixels = padded[..., row * stride + column:]
        return pixels.gather(2, first).view_as(images)

    rows = []
    for row in range(4):
        taps = [tap(row, column) for column in range(4)]
        rows.append(_rise(*taps, x_fraction).add_(taps[1]))
    values = _rise(*rows, y_fraction).add_(rows[1])
    return _cut(values, (in_x & in_y)[:, None], fill)


# In timm's order. Those of the same function are done together.
OPERATIONS = {
    'AutoContrast': _look_up,
    'Equalize': _look_up,
    'Invert': _look_up,
    'Rotate': _rotate,
    'PosterizeIncreasing': _look_up,
    'SolarizeIncreasing': _look_up,
    'SolarizeAdd': _look_up,
    'ColorIncreasing': _color,
    'ContrastIncreasing': _look_up,
    'BrightnessIncreasing': _look_up,
    'SharpnessIncreasing': _sharpness,
    'ShearX': _shift_x,
    'ShearY': _shift_y,
    'TranslateXRel': _shift_x,
    'TranslateYRel': _shift_y,
}
NAMES = tuple(OPERATIONS)
