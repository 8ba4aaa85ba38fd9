"""The training step with a live teacher beside the replay of its labels.

    python tests/benchmarks/teacher_labels.py

The paper's teacher, RegNetY-16GF (15.9 GFLOPs an image), with random weights;
steps as in `step.py`. Live and replayed steps take turns; the figures are
medians. The losses of both are compared. Below, the loss of soft distillation
by the first k of 1000 classes beside that by all, for drawn logits.
"""

import argparse
import statistics

import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from step import autocast, clock, ours

from deit_plugin.draws import Iteration, set_iteration
from deit_plugin.models import DistillationLoss
from deit_plugin.models.teacher_labels import TeacherLabels
from deit_plugin.teacher_cache.answers import Answers


def first_classes():
    """The share of the soft loss that the first k classes keep."""
    generator = torch.Generator().manual_seed(0)
    target = torch.zeros(256, dtype=torch.int64)
    print('\n| teacher, tau | k = 1 | 5 | 10 | 50 | 1000 |\n|---|---|---|---|---|---|')
    for name, spread in (('sure (its logits spread by 4)', 4.0), ('unsure (by 1)', 1.0)):
        teacher = spread * torch.randn(256, 1000, generator=generator)
        student = torch.randn(256, 1000, generator=generator)
        for tau in (1.0, 3.0):
            loss = DistillationLoss(mode='soft', tau=tau, distill_on='cls', alpha=1.0)
            whole = loss(student, target, teacher)['loss_distill']
            shares = []
            for k in (1, 5, 10, 50, 1000):
                probs, classes = (teacher / tau).softmax(1).topk(k, 1)
                part = loss(student, target, (classes, probs.half().float()))
                shares.append(f'{100 * part["loss_distill"] / whole:.1f} %')
            print(f'| {name}, {tau:g} | {" | ".join(shares)} |')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', nargs='+', default=['tiny', 'small'])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--precision', default='float32')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--teacher', default='regnety_160')
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    args.compile = False
    print(
        f'torch {torch.__version__}, {args.device}, '
        f'{torch.get_num_threads()} threads, {args.precision}, batch '
        f'{args.batch_size}, teacher {args.teacher}, median of '
        f'{args.rounds} rounds\n'
    )
    print('| student | live, ms | replayed, ms | live / replayed | same loss |\n|---|---|---|---|---|')
    for size in args.sizes:
        step, model = ours(size, args)
        images = torch.randn(args.batch_size, 3, 224, 224, device=args.device)
        target = torch.rand(args.batch_size, 1000, device=args.device).softmax(1)
        shape = 1, 1, args.batch_size
        labels, answers = TeacherLabels(model.teacher, 'labels'), Answers(0, range(1), shape)
        labels.answers = answers
        iteration = Iteration(0, 0, range(1), args.batch_size)
        set_iteration(iteration)
        labels(images)
        labels.answers = Answers(0, range(1), shape, answers.gathered(1000))

        def loss():
            set_iteration(iteration)  # drop path
            with torch.no_grad(), autocast(args):
                return model.loss(images, [DataSample().set_gt_score(t) for t in target])

        times, losses = dict(live=[], replayed=[]), {}
        for i in range(args.rounds + 1):
            for name, recorded in (('live', None), ('replayed', labels)):
                model.teacher_labels = recorded
                if i == 0:  # of the same weights, and to warm up
                    losses[name] = loss()
                else:
                    times[name].append(clock(step, images, target))
        set_iteration(None)
        same = all(torch.equal(losses['live'][k], losses['replayed'][k]) for k in losses['live'])
        live, replayed = (statistics.median(t) for t in times.values())
        ratio = statistics.median(a / b for a, b in zip(times['live'], times['replayed']))
        print(
            f'| {size} | {1e3 * live:.0f} | {1e3 * replayed:.0f} | {ratio:.1f} | {"yes" if same else "NO"} |'
        )
    first_classes()


if __name__ == '__main__':
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        main()
