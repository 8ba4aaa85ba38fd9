"""Write the digits that scikit-learn ships into folders, to try what is for your own images."""


def add_arguments(parser):
    """Of the command."""
    parser.add_argument('folder', metavar='FOLDER', help='a new one; train/ and val/ are made in it')


def run(folder: str) -> int:
    """Write."""
    from ..datasets.digits import write_digits

    print(f'{write_digits(folder)} images are in {folder}')
    return 0
