"""``header.json``: what a folder of a teacher's answers is, for whoever it is handed to."""

import json
import os.path as osp

from ..checkpoints.atomic import write_whole
from ..json_file import read_json
from .fingerprint import compare_fingerprints

FORMAT = 2  # 1 had a file for each process
_ABOUT = dict(
    what="A teacher's answers to the augmented images of a training (`model.teacher_labels` of deit_plugin, "
    'for mmpretrain). All draws follow from the seed, so any training by `recipe` sees these very images.',
    files='epoch-0000.safetensors and so on. `classes` (steps, processes, images) are uint16, above 65,535 '
    'classes int32; with `topk` (steps, processes, images, topk), beside `probs`, float16. The largest '
    'value of the type stands where the last step has no image. Files of one recipe may be put together.',
    use={
        'model.teacher_labels.path': 'this folder',
        'model.teacher_labels.mode': 'replay; auto asks the teacher for missing epochs, record for all',
        'model.teacher_labels.topk': 'as in `recipe`',
    },
    check='deit-plugin label --check FOLDER',
    format=FORMAT,
)


def check_header(folder: str, fingerprint: dict) -> bool:
    """Whether a folder has a header.

    Raises:
        ValueError: If it is that of another recipe, or of something else.
    """
    path = osp.join(folder, 'header.json')
    try:
        header = read_json(path)
        if header['format'] != FORMAT:
            raise ValueError(f'the format {header["format"]!r}')
        compared = {name: dict(header[name]) for name in ('recipe', 'recorded_on')}
    except FileNotFoundError:
        return False
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} is damaged, of the old format or of something else ({error!r}). It is as it was: choose '
            'another `model.teacher_labels.path`, or delete it'
        ) from error
    compare_fingerprints(path, compared, fingerprint)
    return True


def write_header(folder: str, data: dict, fingerprint: dict, notes: dict) -> None:
    """Write it whole.

    Args:
        folder (str): The record.
        data (dict): Config of the data set.
        fingerprint (dict): See :func:`run_fingerprint`.
        notes (dict): What was seen while recording, such as ``teacher_acc`` in percent.

    Raises:
        OSError: If the folder cannot be written.
    """
    while isinstance(data.get('dataset'), dict):
        data = data['dataset']
    root = str(data.get('data_root') or '').rstrip('/')
    kind = getattr(data['type'], '__name__', data['type'])
    named = dict(type=kind, folder=osp.basename(root), split=data.get('split') or '')
    header = dict(_ABOUT, data=named, seen_while_recording=notes, **fingerprint)
    write_whole(osp.join(folder, 'header.json'), json.dumps(header, indent=1).encode())
