"""Record a teacher's answers to all batches of a training, without the student; or check such a record.

On several GPUs: torchrun --nproc_per_node 8 -m deit_plugin label CONFIG --launcher pytorch
A part of it: label CONFIG --epochs 100:200. A check: label --check FOLDER, with CONFIG also beside the
teacher.
"""

from .cfg_options import add_cfg_options


def add_arguments(parser):
    """Of the command."""
    parser.add_argument('config', nargs='?', help='of the training, with `model.teacher_labels`')
    add_cfg_options(parser, 'model.teacher_labels.path=FOLDER')
    parser.add_argument(
        '--epochs', metavar='FIRST:STOP', help='counted from 0, without the last; also beyond the training'
    )
    parser.add_argument('--check', metavar='FOLDER', help='read all of a record instead')
    parser.add_argument('--work-dir', default='work_dirs/label', help='for the log')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='of the processes'
    )


def run(config: str | None, check: str | None, epochs: str | None, **options) -> int:
    """Record, or check; returns 1 if a record is not sound."""
    from ..apis import label

    if check is None and config is None:
        raise ValueError('label needs the CONFIG of a training, or --check FOLDER')
    if check is None:
        label.label(config, epochs=epochs, **options)
        return 0
    if epochs is not None:
        raise ValueError(f'--check reads all epochs: leave out --epochs {epochs}')
    lines, sound = label.check(check)
    print('\n'.join(lines))
    if sound and config is not None:
        agreement = label.compare(config, check, **options)
        print(f'The teacher gives {agreement:.1f} % of a sample of the answers')
    return not sound
