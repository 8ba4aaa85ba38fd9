"""The header of a label store."""

import json
import os.path as osp

from ..checkpoints.atomic import write_whole
from .fingerprint import fingerprint_difference


class Header:
    """The ``header.json`` of a folder of labels.

    Args:
        path (str): The file.
        values (dict): What it must hold beside the number of iterations, in values that JSON knows.
    """

    def __init__(self, path: str, values: dict):
        self.path = path
        self.values = values

    def stored_iterations(self) -> int | None:
        """The number of iterations in the file, or None if there is no file.

        Raises:
            ValueError: If it is of another run, or damaged.
        """
        try:
            with open(self.path, 'rb') as file:
                stored = dict(json.loads(file.read()))
            iterations = stored.pop('iterations')
            if type(iterations) is not int or 'fingerprint' not in stored:
                raise ValueError('not all entries are there')
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f'{self.path} is damaged ({error!r}), so the run that '
                'the labels beside it belong to is unknown. Restore it, or '
                'delete the folder to record anew'
            ) from error
        different = fingerprint_difference(stored, self.values)
        if different:
            raise ValueError(
                f'The labels in {osp.dirname(self.path)} are of another run. Choose '
                'another `model.teacher_labels.path`, train without a record, '
                '`model.teacher_labels=None`, or delete the folder to record anew. Stored values -> '
                'present ones:\n' + '\n'.join(different)
            )
        return iterations

    def write(self, iterations: int) -> None:
        """Write it whole."""
        write_whole(self.path, json.dumps(dict(self.values, iterations=iterations)).encode())
