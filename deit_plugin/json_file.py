"""JSON from files of others."""

import json
import os
import os.path as osp

_LARGEST = 1 << 26  # bytes


def read_json(path: str):
    """What a file holds.

    Args:
        path (str): The file; a device or a pipe is none.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is no JSON, or too large or too deep for any that is known here.
    """
    if osp.exists(path) and not osp.isfile(path):
        raise ValueError(f'{path} is no file')
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST:
            raise ValueError(f'{path} has {size} bytes')
        try:
            return json.loads(file.read().decode())
        except RecursionError as error:
            raise ValueError(f'{path} is nested too deep') from error
