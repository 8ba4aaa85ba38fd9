"""Write a classifier as another runtime runs it, and compare them.

ONNX needs `pip install 'deit_plugin[onnx]'`. What the file takes and gives is in its metadata.
"""

from ..export.formats import DYNAMIC, FORMATS, HEADS, MODES


def add_arguments(parser):
    """Of the command."""
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='a file, an address, or a work folder, for its best one'
    )
    parser.add_argument('--to', required=True, choices=FORMATS, help='what to write')
    parser.add_argument('--output', metavar='FILE', help='without it model.onnx or model.pt2')
    parser.add_argument(
        '--head', choices=HEADS, help="of a distilled model; without it the model's `prediction`"
    )
    parser.add_argument(
        '--dynamic',
        type=lambda value: [word.strip() for word in value.split(',') if word.strip()],
        default=[],
        metavar='WHAT',
        help=f'what stays free: {",".join(DYNAMIC)} or one of them; without it one image of one size',
    )
    parser.add_argument(
        '--preprocess',
        action='store_true',
        help='take whole images as uint8 RGB (batch, height, width, 3), and prepare them inside',
    )
    parser.add_argument('--int8', choices=MODES, help='layers with weights in int8')
    parser.add_argument('--calibration', metavar='FOLDER', help='for --int8 static: images of training')
    parser.add_argument('--data', metavar='FOLDER', help='tell the accuracy on it, before and after')
    parser.add_argument('--config', help='the name of a variant, or a config file')
    parser.add_argument('--force', action='store_true', help='replace the file')


def run(**options) -> int:
    """Export."""
    from ..apis.export import export

    result = export(**options)
    for kind in ('differences', 'int8_differences'):
        program = 'In int8, images' if kind == 'int8_differences' else 'Images'
        for shape, difference in result.get(kind, {}).items():
            print(f'{program} of {shape}: the logits differ by at most {difference:.1e} of the largest')
    for name, accuracy in result.get('accuracy', {}).items():
        print(f'Top-1 of {name}: {accuracy:.2f} %')
    print(f'Written: {result["output"]} ({result["size"] / 1e6:.1f} MB)')
    return 0
