"""Draw the images of a training as the model sees them, with their labels.

Its first batches, by the config's data, augmentation, mixing and seed, as one process trains on them. No
model is built, and no teacher or checkpoint is needed.
"""

from .cfg_options import add_cfg_options


def add_arguments(parser):
    """Of the command."""
    parser.add_argument('config', metavar='CONFIG', help='of the training')
    parser.add_argument('--output', metavar='PNG', default='browse.png', help='the picture')
    parser.add_argument('--images', type=int, default=16, help='how many to draw')
    parser.add_argument('--epoch', type=int, default=0, help='which one begins with them, counted from 0')
    add_cfg_options(parser, 'data_root=my_images')
    parser.add_argument('--force', action='store_true', help='replace the picture')


def run(**options) -> int:
    """Draw."""
    from ..apis.browse import browse

    found = browse(**options)
    for note in found['notes']:
        print(note)
    first, last = found['iterations']
    height, width = found['images'][0].shape[:2]
    print(
        f'Drawn: {options["output"]}, {len(found["images"])} images of {width} x {height} by the seed '
        f'{found["seed"]}, of iteration {first + 1}' + (f' to {last + 1}' if last > first else '')
    )
    return 0
