"""Record a teacher's answers to all batches of a training, without the student.

On several GPUs: torchrun --nproc_per_node 8 -m deit_plugin label CONFIG --launcher pytorch
"""

import argparse


def add_arguments(parser):
    """Of the command."""
    parser.add_argument('config', help='of the training, with `model.teacher_labels`')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='changes of the config, such as model.teacher_labels.path=FOLDER',
    )
    parser.add_argument('--work-dir', default='work_dirs/label', help='for the log')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='of the processes'
    )


def run(**options) -> int:
    """Record."""
    from mmengine.config import DictAction

    from ..apis.label import label

    parsed = argparse.Namespace()
    DictAction([], 'cfg_options', nargs='+')(None, parsed, options['cfg_options'])
    label(**{**options, **vars(parsed)})
    return 0
