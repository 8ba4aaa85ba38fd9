"""Training on one GPU in figures, then the tests that need one: one command, eight minutes at most.

    python tests/benchmarks/gpu.py
    python tests/benchmarks/gpu.py --device cpu --rehearse     # whether it runs, on models that are small

Steps as in `step.py`, in bfloat16, with the paper's teacher and random weights: ours with the live teacher,
ours with given labels, and timm's TokenDistillationTask take turns; medians. The parts of our step are
measured one by one; preparation (RandAugment to mixing) is not in the step. MFU is of the student's and
teacher's nominal arithmetic, a forward and backward pass taken as three forward passes. A row is left out
when the time (`--minutes`) is over, and an error in one is printed in its place.
"""

import argparse
import functools
import gc
import signal
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from step import (
    FLOPS,
    TEACHER_FLOPS,
    autocast,
    batch_of,
    clock,
    loss_of_ours,
    model_of_ours,
    side_of,
    timms,
)

BATCHES = dict(tiny=256, small=256, base=128, base_384=32)
# TFLOPS in dense bfloat16, added up in float32: NVIDIA's data sheets, for the RTX 4090 the Ada white paper.
PEAKS = {'H100 PCIe': 756, 'H100': 989, 'H200': 989, 'A100': 312, 'L40S': 362, 'RTX 4090': 165}
ANCHOR = (
    'To compare: 8,003 images/s and 22.9 % MFU for a ViT-S in training on one H100 '
    "(NVIDIA-BioNeMo/nvSubquadratic's table)"
)
PARTS = 'preparation', 'teacher', 'forward and loss', 'backward', 'optimizer'
COLUMNS = [
    *('student', 'compiled', 'batch', 'images/s', 'ms', 'timm, ms', 'ratio'),
    *('labels given, images/s', 'ms', 'ratio', *(f'{part}, ms' for part in PARTS)),
    *('MFU', 'MFU, labels given', 'GiB', 'timm, GiB'),
]
RESERVE = 100  # seconds for the tests


class Peak:
    """The largest memory on the device since it was made, in GiB, beyond what was there."""

    def __init__(self, device):
        self.is_cuda = device == 'cuda'
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()

    def __str__(self):
        if not self.is_cuda:
            return '-'
        return f'{(torch.cuda.max_memory_allocated() - self.before) / 2**30:.1f}'


def small(side):
    """What makes our student and timm's small, for a rehearsal."""
    ours = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=192)
    return dict(arch=ours, img_size=side), dict(embed_dim=48, depth=2, num_heads=3, img_size=side)


def repeat(number, function, *inputs):
    """So that the host can be ahead of the device, as in training."""
    for _ in range(number):
        function(*inputs)


def seconds_in_turns(functions, args):
    """The medians of a call of each, and the median of each call's share in one of the last function."""
    times = [[] for _ in functions]
    for i in range(args.rounds):
        order = range(len(functions))
        for k in reversed(order) if i % 2 else order:
            times[k].append(clock(repeat, args.steps, functions[k]) / args.steps)
    ratios = [statistics.median(a / b for a, b in zip(taken, times[-1])) for taken in times]
    return [statistics.median(taken) for taken in times], ratios


def seconds_of_parts(model, wrapper, args, images, target):
    """Of each part of our step, by itself."""
    raw = torch.randint(0, 256, images.shape, dtype=torch.uint8, device=args.device)
    data = dict(inputs=raw, labels=torch.arange(len(raw), device=args.device) % 1000)
    loss = None

    def teacher():
        with autocast(args):
            model.teacher(images)

    def forward():
        nonlocal loss
        loss = loss_of_ours(model, args, images, target)

    functions = (
        lambda: model.data_preprocessor(data, training=True),
        teacher,
        forward,
        lambda: loss.backward(),
        lambda: (wrapper.step(), wrapper.zero_grad()),
    )
    rounds = [[clock(function) for function in functions] for _ in range(args.rounds)]
    return [statistics.median(taken) for taken in zip(*rounds)]


def share(args, rate, student, teacher=0.0):
    """Of the device's peak, by the multiply-adds of a forward pass."""
    if args.peak_tflops is None or teacher is None:
        return '-'
    return f'{100 * (6 * student + 2 * teacher) * rate / 1e12 / args.peak_tflops:.1f} %'


def row(size, args):
    """The cells of one row."""
    side = side_of(size)
    if args.rehearse:
        side = {224: 32, 384: 48}[side]
    of_ours, of_timms = small(side) if args.rehearse else ({}, {})
    images, target = batch_of(args, side)
    own_memory = Peak(args.device)
    model, cfg = model_of_ours(size, args, **of_ours)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    classes = target.argmax(1)

    def own(labels=None):
        model.teacher_labels = labels
        wrapper.update_params(loss_of_ours(model, args, images, target))

    given = functools.partial(own, lambda images: classes)
    repeat(2, own)
    repeat(2, given)
    own_memory = str(own_memory)
    peer_memory = Peak(args.device)
    peer = functools.partial(timms(size, args, **of_timms), images, target)
    repeat(2, peer)
    peer_memory = str(peer_memory)
    (live, replayed, other), ratios = seconds_in_turns([own, given, peer], args)
    model.teacher_labels = lambda images: classes
    parts = seconds_of_parts(model, wrapper, args, images, target)
    rates = args.batch_size / live, args.batch_size / replayed
    teacher = TEACHER_FLOPS.get(args.teacher)
    teacher = teacher and teacher * (side / 224) ** 2
    return [
        *(f'{rates[0]:.0f}', *(f'{1e3 * s:.1f}' for s in (live, other)), f'{ratios[0]:.2f}'),
        *(f'{rates[1]:.0f}', f'{1e3 * replayed:.1f}', f'{ratios[1]:.2f}', *(f'{1e3 * s:.1f}' for s in parts)),
        *(share(args, rates[0], FLOPS[size], teacher), share(args, rates[1], FLOPS[size])),
        *(own_memory, peer_memory),
    ]


def row_in_time(size, args, until):
    """The cells of a row, or why there are none."""
    over = TimeoutError('the time was over')

    def late(*_):
        raise over

    left = until - time.monotonic()
    if left <= 0:
        return ['left out: the time is over']
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        return row(size, args)
    except Exception as error:  # the next row may succeed
        # Once it was raised: what it passed may have raised another one.
        reason = error if over.__traceback__ is None else over
        return [f'{type(reason).__name__}: {(str(reason).strip().splitlines() or [""])[0]}']
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.collect()
        torch.compiler.reset()
        if args.device == 'cuda':
            torch.cuda.empty_cache()


def run_tests(seconds):
    """Run the tests that need a GPU, of the files that have such."""
    folder = Path(__file__).resolve().parents[1]
    files = [f for f in sorted(folder.rglob('test_*.py')) if 'pytest.mark.gpu' in f.read_text()]
    command = [
        sys.executable,
        '-m',
        'pytest',
        '-q',
        '-m',
        'gpu',
        '--tb=short',
        '-p',
        'no:cacheprovider',
        *files,
    ]
    print(f'\npytest -m gpu, in {", ".join(f.name for f in files)}:', flush=True)
    try:
        done = subprocess.run(
            command, cwd=folder.parent, timeout=max(seconds, 1), capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        print(f'not finished in {seconds:.0f} s')
        return 1
    print(done.stdout[-4000:], flush=True)
    return done.returncode


def peak_of(device):
    """From the table, or None."""
    name = torch.cuda.get_device_name() if device == 'cuda' else ''
    return next((peak for known, peak in PEAKS.items() if known in name), None)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--rehearse', action='store_true', help='small models and batches, nothing compiled')
    parser.add_argument('--sizes', nargs='+', default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument('--minutes', type=float, default=8.0, help='for all')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument(
        '--peak-tflops', type=float, help='of the device in bfloat16, if it is none of the known'
    )
    parser.add_argument('--no-tests', action='store_true')
    args = parser.parse_args()
    args.precision, args.teacher, args.steps = 'bfloat16', 'regnety_160', 5
    if args.rehearse:
        args.teacher, args.rounds, args.steps = 'resnet10t', 2, 1
    if args.peak_tflops is None:
        args.peak_tflops = peak_of(args.device)
    return args


def main():
    start, args = time.monotonic(), parse()
    end = start + 60 * args.minutes
    until = end if args.no_tests else end - RESERVE
    MMLogger.get_instance('gpu').setLevel('ERROR')
    warnings.filterwarnings('ignore', message='pkg_resources')
    device = torch.cuda.get_device_name() if args.device == 'cuda' else args.device
    print(
        f'torch {torch.__version__}, {device}, {args.precision}, teacher {args.teacher}, medians of '
        f'{args.rounds} rounds of {args.steps} steps, peak {args.peak_tflops or "unknown"} TFLOPS\n'
    )
    print(f'| {" | ".join(COLUMNS)} |\n|{"---|" * len(COLUMNS)}', flush=True)
    for compiled in (False,) if args.rehearse else (False, True):
        args.compile = compiled
        for size in args.sizes:
            args.batch_size = 4 if args.rehearse else BATCHES[size]
            known = size, 'yes' if compiled else 'no', str(args.batch_size)
            print(f'| {" | ".join([*known, *row_in_time(size, args, until)])} |', flush=True)
    print(f'\n{ANCHOR}', flush=True)
    if not args.no_tests:
        sys.exit(run_tests(end - time.monotonic()))


if __name__ == '__main__':
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        main()
