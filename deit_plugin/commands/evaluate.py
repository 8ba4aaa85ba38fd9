"""Compare the published and the measured accuracy of variants on a folder of images."""

import os


def add_arguments(parser):
    """Of the command."""
    parser.add_argument(
        'names',
        nargs='*',
        metavar='NAME',
        help="variants, patterns of those with published weights ('repvit_*'), or paths of configs; without "
        "one the model of --weights FILE or work folder, as it records itself, else 'deit_*'",
    )
    parser.add_argument(
        '--data', required=True, help='a folder with `val/`, or with one folder of images for each class'
    )
    parser.add_argument(
        '--weights',
        help='of one model a file or a work folder; or a folder with the weights of each, by the published '
        'file names or as NAME.pth, NAME.safetensors, NAME/ ...; without it they are downloaded',
    )
    parser.add_argument('--batch-size', type=int, default=64, help='images at once')
    workers = min(4, os.cpu_count() or 1)
    parser.add_argument('--workers', type=int, default=workers, help='processes that read images')
    parser.add_argument('--json', dest='output', metavar='FILE', help='for the results')
    parser.add_argument(
        '--report', metavar='FILE', help='an HTML page: what was confused, and the most confident mistakes'
    )
    parser.add_argument('--force', action='store_true', help='replace these files')
    parser.add_argument(
        '--skip-broken', action='store_true', help='look for broken images first, and leave them out'
    )


def run(**options) -> int:
    """Evaluate; 1 if a variant failed."""
    from ..apis.evaluate import evaluate

    return 1 if any('error' in result for result in evaluate(**options)) else 0
