"""The operations of 3-Augment, each for a batch of images, with Pillow's results.

Of what shape they are, ``rand_augment_ops`` says.
"""

import torch

from .rand_augment_ops import VALUES, blend_by, look_up_in

_PASSES = 3  # of Pillow's box blur


def look_up(names, levels, signs, size):
    """Solarize, and brightness by a factor."""
    inverted = VALUES.where(VALUES < 128, 255 - VALUES)
    scaled = VALUES * levels[names.count('Solarize') :, None].float()
    return look_up_in([inverted.expand(names.count('Solarize'), -1), scaled])


def blend(names, levels, signs, size):
    """Contrast and colour by a factor; without colour an image is grey."""
    return blend_by(levels.float(), names.count('Contrast'), names.count('Color'))


def blur(names, levels, signs, size):
    """Gaussian blur by a radius up to 2, which Pillow makes of three box blurs a side.

    A box counts its outermost pixels in part, in units of 2**-24. Its radius is here below 2, so it has five
    weights. Values are rounded after each pass. Less 128 they fit into 32 bits, and what the weights lack of
    2**24 is made up for.
    """
    weights = _weights(_box_radii(levels.float()))
    lacking = 2**24 - weights[0] - 2 * (weights[1] + weights[2])
    numbers = torch.stack([*weights, 2**23 - 128 * lacking]).int()
    edges = [torch.arange(-2, side + 2).clamp(0, side - 1) for side in size]
    return (numbers.view(4, -1, 1, 1, 1), *edges), _blur


def _box_radii(radii):
    """Of the boxes whose threefold blur has the variance of a Gaussian, as Pillow has them after Gwosdek et
    al. (2011)."""
    variance = radii * radii / _PASSES
    length = (12 * variance.double() + 1).sqrt().float()
    whole = ((length.double() - 1) / 2).floor().float()
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    return whole + rest / (6 * (variance - (whole + 1) * (whole + 1)))


def _weights(radii):
    """Of a pixel itself, of those beside it, and of those two away, (n, ) each, int64."""
    whole = radii.long()
    # A number divided by a tensor would be the number times a rounded reciprocal.
    full = torch.div(torch.tensor(2.0**24), radii * 2 + 1).long()
    outer = (2**24 - (2 * whole + 1) * full) // 2
    return full, full.where(whole > 0, outer), outer.where(whole > 0, 0)


def _blur(images, fill, weights, rows, columns):
    own, one, two, half = weights
    values = images.int().sub_(128)
    for dim, at in ((3, columns), (2, rows)):
        length = values.shape[dim]
        for _ in range(_PASSES):
            around = values.index_select(dim, at)
            a, b, c, d, e = (around.narrow(dim, k, length) for k in range(5))
            total = (a + e).mul_(two).add_((b + d).mul_(one)).add_(c * own).add_(half)
            values = total.bitwise_right_shift_(24)
    return values.add_(128).byte()


KINDS = {
    blur: ('GaussianBlur',),
    look_up: ('Solarize', 'Brightness'),
    blend: ('Contrast', 'Color'),
}
