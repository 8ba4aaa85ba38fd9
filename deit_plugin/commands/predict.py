"""Classify images with a checkpoint.

A checkpoint of mmengine records its model and its classes. Others need --config.
"""


def add_arguments(parser):
    """Of the command."""
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='a file, an address, or a work folder, for its best one'
    )
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='files, folders or globs')
    parser.add_argument('--config', help='the name of a variant, or a config file')
    parser.add_argument('--top', type=int, default=5, help='classes to show')
    parser.add_argument('--batch-size', type=int, default=32, help='images at once')
    parser.add_argument('--json', dest='output', metavar='FILE', help='for the results')
    parser.add_argument('--force', action='store_true', help='replace that file')
    parser.add_argument('--device', help='such as cpu or cuda:1; without it an accelerator if there is one')


def run(**options) -> int:
    """Predict; 1 if an image could not be read."""
    from ..apis.predict import predict

    return 1 if any('error' in result for result in predict(**options)) else 0
