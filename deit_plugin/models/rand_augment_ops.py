"""The operations of RandAugment, each for a batch of images, with Pillow's results."""

import torch
import torch.nn.functional as F


def _to(tensor, images):
    # A blocking copy would wait for all that the device has to do.
    return tensor.to(images.device, non_blocking=True)


# The functions below take n images, uint8 of shape (n, 3, H, W), and the names
# of their operations, their levels in [0, 1] and signs, both (n,) and on the
# CPU, and the fill colour.


def apply_grouped(functions, rows, names, levels, signs, fill):
    """The result of each image's function, as a list; the image itself where
    the name is None. Images of the same function go through it together."""
    groups = {}
    for i, name in enumerate(names):
        if name is not None:
            groups.setdefault(functions[name], []).append(i)
    results = list(rows)
    for function, at in groups.items():
        # Stacking picks images without an index on the device.
        done = function(
            torch.stack([rows[i] for i in at]), [names[i] for i in at], levels[at], signs[at], fill
        )
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
    mask = _to(-(2 ** (4 + (levels * 4).long())), images)[:, None, None]
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
    tables = torch.stack(apply_grouped(TABLES, images, *drawn))
    return tables.gather(2, images.flatten(2).long()).view_as(images)


# From a degenerate image towards the image, or beyond it


def _blend(degenerate, images, levels, signs):
    # In the order of Pillow's float32 operations, as each of them rounds.
    factor = (1 + levels * 0.9 * signs).float()
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
    shear = (levels * 0.3 * signs).where(shears, 0)[:, None]
    offset = (levels * 0.45 * signs).where(~shears, 0)[:, None] * width
    # How much further right a row comes from, (n, H) in pixels.
    shift = shear * (torch.arange(height, dtype=torch.float64) + 0.5) + offset

    def sent(rows):
        return _to(rows, images)[:, None, :, None]

    whole = sent(shift.floor().long())
    fraction = sent((shift - shift.floor()).float())
    nearest = sent((shift + 0.5).floor().long())
    x = torch.arange(-1, width + 2, device=images.device)
    taps = (x + whole).clamp_(0, width - 1).expand(-1, 3, height, -1)
    pixels = images.gather(3, taps).float()
    taps = [pixels[..., k : k + width] for k in range(4)]
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
    x = torch.arange(width, dtype=torch.float64) + (0.5 - width / 2)
    y = torch.arange(height, dtype=torch.float64) + (0.5 - height / 2)

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
        pixels = padded[..., row * stride + column :]
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
