"""Draw where the class token and the distillation token look.

The heads of the last layer, their mean, and attention rollout over all layers (arXiv 2005.00928), over the
image.
"""


def add_arguments(parser):
    """Of the command."""
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='a file, an address, or a work folder, for its best one'
    )
    parser.add_argument('image', metavar='IMAGE', help='the file of an image')
    parser.add_argument('--output', metavar='PNG', default='attention.png', help='the picture')
    parser.add_argument('--similarity', action='store_true', help='compare the two tokens by layer, too')
    parser.add_argument('--config', help='the name of a variant, or a config file')
    parser.add_argument('--force', action='store_true', help='replace the picture')
    parser.add_argument('--device', help='such as cpu or cuda:1; without it an accelerator if there is one')


def run(**options) -> int:
    """Draw."""
    from ..apis.attention import attention

    result = attention(**options)
    if options['similarity']:
        values = '  '.join(f'{value:.2f}' for value in result['similarity'].tolist())
        print(f'Cosine similarity of the tokens, learned and after each layer: {values}')
    print(f'Drawn: {options["output"]}')
    return 0
