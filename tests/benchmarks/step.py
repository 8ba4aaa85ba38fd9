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
# Multiply-adds of an image in a forward pass, as `complexity.py` counts them.
FLOPS = dict(tiny=1.265e9, small=4.633e9, base=17.674e9, base_384=55.645e9)
TEACHER_FLOPS = dict(regnety_160=15.96e9)  # at 224, from timm's results


def side_of(size):
    """Height and width of the images."""
    return 384 if size.endswith('_384') else 224


def autocast(args):
    return torch.autocast(
        args.device, dtype=getattr(torch, args.precision), enabled=args.precision != 'float32'
    )


def model_of_ours(size, args, **backbone):
    """Our model in training, and its config; further arguments of the backbone."""
    arch, *fine_tuned = size.split('_')
    cfg = Config.fromfile(osp.join(CONFIGS, '_'.join(['deit', arch, 'distilled', *fine_tuned]) + '.py'))
    cfg.model.teacher = dict(type='TimmClassifier', model_name=args.teacher, num_classes=1000)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    cfg.model.backbone.update(backbone)
    if isinstance(cfg.model.backbone.arch, dict):
        cfg.model.head.in_channels = cfg.model.backbone.arch['embed_dims']
    cfg.optim_wrapper.type = 'OptimWrapper'
    for key in ('dtype', 'loss_scale'):
        cfg.optim_wrapper.pop(key)
    model = MODELS.build(cfg.model).to(args.device).train()
    if args.compile:
        model.backbone.compile()
        model.teacher.compile_kwargs = {}
    return model, cfg


def loss_of_ours(model, args, images, target):
    with autocast(args):
        losses = model.loss(images, [DataSample().set_gt_score(t) for t in target])
    return model.parse_losses(losses)[0]


def ours(size, args, **backbone):
    """A training step of ours, and the model."""
    model, cfg = model_of_ours(size, args, **backbone)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    def step(images, target):
        wrapper.update_params(loss_of_ours(model, args, images, target))

    return step, model


def task_of_timms(size, args, **student):
    """timm's task in training, of the same size."""
    side = side_of(size)
    student = {'img_size': side, 'drop_path_rate': 0.1 if side == 224 else 0.0, **student}
    name = f'deit_{size.split("_")[0]}_distilled_patch16_224'
    task = TokenDistillationTask(
        timm.create_model(name, **student).to(args.device),
        timm.create_model(args.teacher, num_classes=1000).eval().to(args.device),
        criterion=SoftTargetCrossEntropy(),
        distill_type='hard',
        task_loss_weight=0.5,
        device=torch.device(args.device),
        verbose=False,
    ).train()
    if args.compile:
        task.compile()
    return task


def loss_of_timms(task, args, images, target):
    with autocast(args):
        return task(images, target)['loss']


def timms(size, args, **student):
    """A training step of timm's."""
    task = task_of_timms(size, args, **student)
    optimizer = create_optimizer_v2(task.trainable_module, 'adamw', lr=1e-3, weight_decay=0.05)

    def step(images, target):
        loss_of_timms(task, args, images, target).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def batch_of(args, side):
    """Normalised images and mixed labels."""
    images = torch.randn(args.batch_size, 3, side, side, device=args.device)
    return images, torch.rand(args.batch_size, 1000, device=args.device).softmax(1)


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
        images, target = batch_of(args, side_of(size))
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
