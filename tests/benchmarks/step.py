"""The training step of a distilled DeiT beside timm's TokenDistillationTask.

    python tests/benchmarks/step.py                              # CPU, float32
    python tests/benchmarks/step.py --device cuda --precision bfloat16 \
        --batch-size 256 --compile --peak-tflops 989

Both have the same student, teacher, batch of normalised and mixed images, and
AdamW: forward pass, losses, backward pass and optimizer step, without what is
before the model. They take turns; the figures are medians. The share of the
teacher and the use of the device's arithmetic (forward and backward pass
taken as three forward passes) are ours.
"""

import argparse
import os.path as osp
import statistics
import time

import timm
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.task import TokenDistillationTask

import deit_plugin  # noqa: F401

CONFIGS = osp.join(osp.dirname(osp.abspath(__file__)), '..', '..', 'configs')
FLOPS = dict(tiny=1.265e9, small=4.633e9, base=17.674e9)  # multiply-adds


def autocast(args):
    return torch.autocast(
        args.device, dtype=getattr(torch, args.precision), enabled=args.precision != 'float32'
    )


def ours(size, args):
    """A training step of ours, and the model."""
    cfg = Config.fromfile(osp.join(CONFIGS, f'deit_{size}_distilled.py'))
    cfg.model.teacher = dict(type='TimmClassifier', model_name=args.teacher, num_classes=1000)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    cfg.optim_wrapper.type = 'OptimWrapper'
    for key in ('dtype', 'loss_scale'):
        cfg.optim_wrapper.pop(key)
    model = MODELS.build(cfg.model).to(args.device).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    if args.compile:
        model.backbone.compile()
        model.teacher.compile_kwargs = {}

    def step(images, target):
        with autocast(args):
            losses = model.loss(images, [DataSample().set_gt_score(t) for t in target])
        loss, _ = model.parse_losses(losses)
        wrapper.update_params(loss)

    return step, model


def timms(size, args):
    """A training step of timm's."""
    student = timm.create_model(f'deit_{size}_distilled_patch16_224', drop_path_rate=0.1)
    teacher = timm.create_model(args.teacher, num_classes=1000).eval()
    task = TokenDistillationTask(
        student.to(args.device),
        teacher.to(args.device),
        criterion=SoftTargetCrossEntropy(),
        distill_type='hard',
        task_loss_weight=0.5,
        device=torch.device(args.device),
        verbose=False,
    ).train()
    optimizer = create_optimizer_v2(student, 'adamw', lr=1e-3, weight_decay=0.05)
    if args.compile:
        task.compile()

    def step(images, target):
        with autocast(args):
            loss = task(images, target)['loss']
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def clock(function, *inputs):
    """Seconds of a call, with all that it starts on the device."""
    wait()
    start = time.perf_counter()
    function(*inputs)
    wait()
    return time.perf_counter() - start


def wait():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', nargs='+', default=['tiny', 'small'])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--precision', default='float32')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--teacher', default='regnety_002')
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--peak-tflops', type=float, help='of the device in that precision')
    args = parser.parse_args()
    print(
        f'torch {torch.__version__}, timm {timm.__version__}, '
        f'{args.device}, {torch.get_num_threads()} threads, '
        f'{args.precision}, batch {args.batch_size}, teacher '
        f'{args.teacher}, compiled: {args.compile}, median of '
        f'{args.rounds} rounds\n'
    )
    print(
        '| student | ours, ms | timm, ms | ratio | images/s | teacher | '
        'of the peak | memory |\n|---|---|---|---|---|---|---|---|'
    )
    for size in args.sizes:
        own, model = ours(size, args)
        peer = timms(size, args)
        images = torch.randn(args.batch_size, 3, 224, 224, device=args.device)
        target = torch.rand(args.batch_size, 1000, device=args.device).softmax(1)
        for step in (own, peer):
            for _ in range(2):
                step(images, target)

        def teacher(images):
            with autocast(args):
                model.teacher(images)

        times = dict(own=[], peer=[], teacher=[])
        for i in range(args.rounds):
            turns = [('own', own), ('peer', peer)]
            for name, step in turns[::-1] if i % 2 else turns:
                times[name].append(clock(step, images, target))
            times['teacher'].append(clock(teacher, images))
        memory = '-'
        if args.device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
            own(images, target)
            memory = f'{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB'
        ratio = statistics.median(a / b for a, b in zip(times['own'], times['peer']))
        seconds = {k: statistics.median(v) for k, v in times.items()}
        rate = args.batch_size / seconds['own']
        use = (
            '-'
            if args.peak_tflops is None
            else f'{100 * 6 * FLOPS[size] * rate / 1e12 / args.peak_tflops:.1f} %'
        )
        print(
            f'| {size} | {1e3 * seconds["own"]:.0f} | '
            f'{1e3 * seconds["peer"]:.0f} | {ratio:.2f} | {rate:.1f} | '
            f'{100 * seconds["teacher"] / seconds["own"]:.0f} % | {use} | '
            f'{memory} |'
        )


if __name__ == '__main__':
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        main()
