"""Files for results."""

import os
import os.path as osp
import tempfile


def check_output(path: str, force: bool, option: str = '--json') -> str:
    """Whether a file can be written, before hours of work and not after.

    Args:
        path (str): The file.
        force (bool): Whether it may be replaced.
        option (str): What it is the value of, for messages. Defaults to ``'--json'``.

    Returns:
        str: Its path without links: these stay, and the file that they lead to is written.

    Raises:
        FileExistsError: If it exists and is not to be replaced, or is no file.
        OSError: If it cannot be written.
    """
    path = osp.realpath(osp.expanduser(path))
    if osp.exists(path) and not osp.isfile(path):
        raise FileExistsError(f'{path} is a folder or a device: name a file')
    if osp.exists(path) and not force:
        raise FileExistsError(f'{path} is there already: choose another name, or replace it with --force')
    folder = osp.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f'{option} {path} cannot be written ({error}): choose another place') from error
    return path
