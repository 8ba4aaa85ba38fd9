"""Record a teacher's answers to all batches of a training, without the student.

On several GPUs: torchrun --nproc_per_node 8 -m deit_plugin label CONFIG --launcher pytorch
"""

from .cfg_options import add_cfg_options


def add_arguments(parser):
    """Of the command."""
    parser.add_argument('config', help='of the training, with `model.teacher_labels`')
    add_cfg_options(parser, 'model.teacher_labels.path=FOLDER')
    parser.add_argument('--work-dir', default='work_dirs/label', help='for the log')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='of the processes'
    )


def run(**options) -> int:
    """Record."""
    from ..apis.label import label

    label(**options)
    return 0
