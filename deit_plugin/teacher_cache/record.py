"""A folder of a teacher's answers, an epoch a file."""

import hashlib
import json
import os
import os.path as osp
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..checkpoints.atomic import write_whole
from ..messages import shown, some
from .fingerprint import compare_fingerprints
from .header import FORMAT, check_header, write_header


def epochs_in(folder: str) -> dict[int, str]:
    """The files of a record, by their epochs in ascending order; none where there is no folder.

    Raises:
        ValueError: If the record has another format.
    """
    names = os.listdir(folder) if osp.exists(folder) else []
    if old := sorted(name for name in names if re.fullmatch(r'rank\d+\.labels', name)):
        raise ValueError(
            f'The labels in {folder} ({some(old)}) are of the old format, one file for each process, which '
            'is not read any more. They are as they were: record anew into another folder, '
            '`model.teacher_labels.path=ANOTHER`, and delete this one when you like'
        )
    numbers = (int(m[1]) for m in map(re.compile(r'epoch-(\d{4,})\.safetensors').fullmatch, names) if m)
    return {number: epoch_file(folder, number) for number in sorted(numbers)}


def epoch_file(folder: str, number: int) -> str:
    """The file of an epoch."""
    return osp.join(folder, f'epoch-{number:04d}.safetensors')


def shape_of(recipe: dict) -> tuple[int, ...]:
    """Of an epoch's tensors: (steps, processes, images), and the classes of an image where it has several."""
    shape = recipe['steps'], recipe['processes'], recipe['batch_size']
    return (*shape, recipe['topk']) if recipe['topk'] else shape


def read_epoch(path: str, whole: bool = True) -> tuple[dict, list[np.ndarray]]:
    """Read a file.

    Args:
        path (str): The file.
        whole (bool): Defaults to True. False leaves the tensors, and so the checksum.

    Returns:
        tuple[dict, list[np.ndarray]]: What it says of itself; classes and, with k, their probabilities.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, of another format, or bears the name of another epoch.
    """
    try:
        with safe_open(path, 'np') as file:
            about = json.loads(file.metadata()['about'])
            names = ('classes', 'probs') if whole else ()
            arrays = [file.get_tensor(name) for name in names if name in file.keys()]
        version, name = about['format'], f'epoch-{about["epoch"]:04d}.safetensors'
        recipe, sha256 = about['fingerprint']['recipe'], about.pop('sha256')
        if not isinstance(recipe, dict) or not isinstance(about['fingerprint']['recorded_on'], dict):
            raise ValueError('its fingerprint is no dictionary')
        if whole and sha256 != _checksum(about, arrays):
            raise ValueError('it does not match its checksum')
        if whole and [array.shape for array in arrays] != [shape_of(recipe)] * (1 + bool(recipe['topk'])):
            raise ValueError(f'it should have the shape {shape_of(recipe)}')
        if whole:
            _check_values(arrays, recipe['num_classes'])
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}). Copy it anew, or delete it: mode='auto' then records it again"
        ) from error
    if version != FORMAT or name != osp.basename(path):
        raise ValueError(f'{path} should be {name} of format {FORMAT}, and is of format {shown(version)}')
    return about, arrays


def _check_values(arrays: Sequence[np.ndarray], num_classes: int):
    classes, *probs = arrays
    if classes.dtype not in (np.uint16, np.int32) or any(p.dtype != np.float16 for p in probs):
        raise ValueError(f'its values are {", ".join(str(array.dtype) for array in arrays)}')
    known = classes[classes != np.iinfo(classes.dtype).max]
    if known.size and not 0 <= known.min() <= known.max() < num_classes:
        raise ValueError(f'it has the classes {known.min()} to {known.max()}, of {num_classes}')


def _checksum(about: dict, arrays: Sequence[np.ndarray]) -> str:
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for value in arrays:
        found.update(f'{value.dtype} {value.shape}\n'.encode() + value.tobytes())
    return found.hexdigest()


class Record:
    """The epochs of one recipe.

    Args:
        folder (str): One, which may be missing where epochs are to be recorded.
        mode (str): ``'record'`` asks for all epochs, ``'replay'`` for none, ``'auto'`` for those that are
            missing.
        wanted (Iterable[int]): The epochs of the training, counted from 0.
        fingerprint (Callable): Gives that of the training; its argument tells whether the teacher is asked.
        data (dict): Config of the data set, for the header.

    Attributes:
        recorded (set[int]): The epochs that are there.
        differences (list[str]): What may have changed images and answers by a rounding since.

    Raises:
        ValueError: If the folder holds anything of another recipe or format, or an epoch is missing that is
            to be replayed.
        OSError: If the folder cannot be written, and is to be.
    """

    def __init__(
        self, folder: str, mode: str, wanted: Iterable[int], fingerprint: Callable[[bool], dict], data: dict
    ):
        self.folder, self.mode, self.data = folder, mode, data
        found, wanted = epochs_in(folder), set(wanted)
        self.recorded = set(found)
        missing = sorted(wanted - self.recorded)
        if mode == 'replay' and missing:
            raise ValueError(
                f'{epochs_named(missing)} missing in {folder} ({osp.abspath(folder)}); {epochs_named(found)} '
                "there. `model.teacher_labels.mode='auto'` asks the teacher for them; or record them, "
                '`deit-plugin label CONFIG`, or copy their files from another record'
            )
        asked = mode == 'record' or bool(missing)
        self.fingerprint = fingerprint(asked)
        lines: dict[str, None] = {}  # each once, in their order
        for number, path in found.items():
            if mode == 'record' and number in wanted:
                continue  # it is replaced, whatever it is
            lines.update(dict.fromkeys(self._compared(path, read_epoch(path, whole=False)[0])))
        self.differences = list(lines)
        # Before an epoch's work, which a folder that cannot be written would lose.
        if not check_header(folder, self.fingerprint) and asked:
            write_header(folder, data, self.fingerprint, {})

    def _compared(self, path: str, about: dict) -> list[str]:
        return compare_fingerprints(path, about['fingerprint'], self.fingerprint)

    def read(self, number: int) -> list[np.ndarray] | None:
        """The classes of an epoch and, with k, their probabilities; None if it is to be recorded.

        Raises:
            ValueError: If it is damaged, or of another recipe.
            FileNotFoundError: If it is missing, and to be replayed.
        """
        path = epoch_file(self.folder, number)
        if self.mode == 'record' or self.mode == 'auto' and not osp.exists(path):
            return None
        about, arrays = read_epoch(path)
        self._compared(path, about)
        return arrays

    def write(self, number: int, arrays: Sequence[np.ndarray], notes: dict) -> str:
        """Write an epoch, in the place of what may be there; returns its file.

        Args:
            number (int): Of the epoch.
            arrays (Sequence[np.ndarray]): As :meth:`read` gives them.
            notes (dict): What was seen meanwhile, in values that JSON knows.

        Raises:
            OSError: If there is no room, or the folder cannot be written.
        """
        about = dict(notes, format=FORMAT, epoch=number, fingerprint=self.fingerprint)
        about['sha256'] = _checksum(about, arrays)
        # A single entry, since the order of several is not always the same.
        metadata = dict(about=json.dumps(about, sort_keys=True))
        path = epoch_file(self.folder, number)
        write_whole(path, save(dict(zip(('classes', 'probs'), arrays)), metadata))
        if notes:
            write_header(self.folder, self.data, self.fingerprint, dict(notes, epoch=number))
        return path


def epochs_named(numbers: Iterable[int]) -> str:
    """Such as ``epochs 0 to 99, 120 are``, for a message."""
    numbers = sorted(numbers)
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    named = some(f'{a} to {b}' if b > a else a for a, b in zip(starts, ends))
    return f'epoch {named} is' if len(numbers) == 1 else f'epochs {named} are'


def check_record(folder: str) -> tuple[list[int], list[str], dict]:
    """Read all files of a record.

    Returns:
        tuple[list[int], list[str], dict]: The epochs that are sound; what is wrong with the others; and the
        fingerprint of the first.

    Raises:
        ValueError: If the record has another format, or there is none.
    """
    first: dict = {}
    sound, problems = [], []
    for number, path in epochs_in(folder).items():
        try:
            found = read_epoch(path)[0]['fingerprint']
            first = first or found
            compare_fingerprints(path, found, first)
            sound.append(number)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    if not sound and not problems:
        raise ValueError(f'There is no record of a teacher in {folder!r} ({osp.abspath(folder)})')
    return sound, problems, first
