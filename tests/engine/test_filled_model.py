import copy
import os
import os.path as osp
import re

import pytest
import torch
from conftest import build, make_runner

from deit_plugin.checkpoints.atomic import AtomicLocalBackend
from deit_plugin.engine import FiniteLossHook


def checkpoints(folder):
    return sorted(f for f in os.listdir(folder) if '.pth' in f)


def test_keeps_the_last_and_the_best(distilled_cfg, tmp_path, caplog):
    make_runner(distilled_cfg, tmp_path).train()
    assert checkpoints(tmp_path) == ['best_accuracy_top1_epoch_4.pth', 'epoch_4.pth']
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'epoch_4.pth')
    (log,) = tmp_path.glob('*/*.log')
    assert (
        'Training is done: best accuracy/top1 4.00, kept in '
        f'{tmp_path}/best_accuracy_top1_epoch_4.pth' in log.read_text()
    )


def test_several_best_metrics(distilled_cfg, tmp_path):
    hook = dict(
        type='AtomicCheckpointHook',
        save_best=['accuracy/top1', 'accuracy/top1 '],
        rule=['greater', 'less'],
    )

    evaluator = dict(type='Scripted', values=(1.0, 3.0, 2.0, 4.0), keys=('accuracy/top1', 'accuracy/top1 '))
    make_runner(distilled_cfg, tmp_path, val_evaluator=evaluator, default_hooks=dict(checkpoint=hook)).train()
    assert [f for f in checkpoints(tmp_path) if f.startswith('best')] == [
        'best_accuracy_top1 _epoch_1.pth',
        'best_accuracy_top1_epoch_4.pth',
    ]


WRITES = 27  # of three epochs, one of which is not the best


class Killed(BaseException):
    """A SIGKILL at one write to the disk: nothing after it is done."""


@pytest.mark.parametrize('write', range(1, WRITES + 2))
def test_a_kill_at_any_write_leaves_what_was_saved(distilled_cfg, tmp_path, monkeypatch, write):
    """At each call that changes a file, in turn."""
    count = 0

    def killer(original):

        def call(path, *args, **kwargs):
            nonlocal count
            if osp.dirname(str(path)) == str(tmp_path):
                count += 1
                if count >= write:  # a dead process writes nothing more
                    raise Killed
            return original(path, *args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ('fsync', 'replace', 'remove'):
            original = getattr(os, name)
            if name == 'fsync':
                patch.setattr(
                    os,
                    name,
                    lambda fd, k=killer(lambda p: None), o=original: (
                        k(osp.join(tmp_path, 'part')),
                        o(fd),
                    ),
                )
            else:
                patch.setattr(os, name, killer(original))
        try:
            make_runner(distilled_cfg, tmp_path, scores=(1.0, 3.0, 2.0)).train()
            done = True
        except Killed:
            done = False
    assert done == (write > WRITES)  # so the test covers all of them

    whole = [f for f in checkpoints(tmp_path) if f.endswith('.pth')]
    for name in whole:
        assert torch.load(tmp_path / name)['meta']['epoch'] >= 1
    pointer = tmp_path / 'last_checkpoint'
    if pointer.exists():
        last = pointer.read_text()
        assert osp.basename(last) in whole
        best = torch.load(last)['message_hub']['runtime_info'].get('best_ckpt')
        assert best is None or osp.basename(best) in whole
        runner = make_runner(distilled_cfg, tmp_path, scores=(5.0, 5.0, 5.0), resume=True)
        runner.train()
        assert runner.epoch == 3


def test_what_a_killed_write_left_is_removed(distilled_cfg, tmp_path):
    (tmp_path / 'epoch_9.pth.part').write_bytes(b'half')
    make_runner(distilled_cfg, tmp_path, scores=(1.0,)).train()
    assert not list(tmp_path.glob('*.part'))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    AtomicLocalBackend().put(b'old', path)

    def full(fd):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        AtomicLocalBackend().put(b'new', path)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.pth']


def poison(runner, iteration, key):
    """Make a part of the loss infinite at an iteration."""
    original = runner.model.loss

    def loss(*args, **kwargs):
        losses = original(*args, **kwargs)
        if runner.iter == iteration:
            losses[key] = losses[key] * float('inf')
        return losses

    runner.model.loss = loss


def test_a_loss_that_is_not_finite_stops_training(distilled_cfg, tmp_path):
    runner = make_runner(distilled_cfg, tmp_path)
    poison(runner, 3, 'loss_distill')
    with pytest.raises(
        FloatingPointError,
        match=r'iteration 4 \(epoch 2\).*loss inf.*loss_cls \d.*'
        r'loss_distill inf',
    ):
        runner.train()
    assert checkpoints(tmp_path) == ['best_accuracy_top1_epoch_1.pth', 'epoch_1.pth']
    for name in checkpoints(tmp_path):
        for value in torch.load(tmp_path / name)['state_dict'].values():
            assert torch.isfinite(value).all()


def test_weights_that_are_not_finite_are_not_saved(distilled_cfg, tmp_path):
    """As after a step in which another process had the infinite loss."""
    runner = make_runner(distilled_cfg, tmp_path)
    runner.model.backbone.cls_token.data.fill_(float('nan'))
    runner.model.init_weights = lambda: None
    (hook,) = (h for h in runner.hooks if type(h).__name__ == 'FiniteLossHook')
    hook.after_train_iter = lambda *args, **kwargs: None
    with pytest.raises(FloatingPointError, match='backbone.* is not finite'):
        runner.train()
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    'change, lacks',
    [
        (
            dict(
                backbone=dict(distilled=False),
                neck=None,
                head=dict(type='VisionTransformerClsHead', num_classes=5, in_channels=32),
                teacher=None,
            ),
            'backbone.dist_token.*head_dist',
        ),
        (
            dict(head=dict(num_classes=7, type='DeiTDualHead'), teacher=None),
            'head.layers.head.weight',
        ),
    ],
)
def test_a_checkpoint_that_does_not_fill_the_model(distilled_cfg, tmp_path, change, lacks):
    """mmengine only warns of what a checkpoint lacks."""
    other = copy.deepcopy(distilled_cfg)
    other['backbone'].update(change.get('backbone', {}))
    if 'neck' in change:
        other.update(neck=None, head=change['head'])
    other['head'].update(change['head'])
    other['teacher'] = None
    path = str(tmp_path / 'other.pth')
    torch.save(dict(state_dict=build(other).state_dict(), meta={}), path)

    def runner(**kwargs):
        return make_runner(
            distilled_cfg,
            tmp_path,
            scores=(1.0,),
            custom_hooks=[dict(type='FilledModelHook')],
            load_from=path,
            **kwargs,
        )

    loader = dict(
        dataset=dict(type='Noise'),
        batch_size=2,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    evaluate = dict(
        test_dataloader=loader, test_cfg=dict(), test_evaluator=dict(type='Scripted', values=[1.0])
    )
    with pytest.raises(ValueError, match=f'does not fill.*{lacks}'):
        runner(**evaluate).test()
    with pytest.raises(ValueError, match='does not fill'):
        runner(resume=True).train()
    tuned = runner()
    tuned.train()  # to fine-tune
    log = max(tmp_path.glob('*/*.log'), key=osp.getmtime).read_text()
    assert re.search(f'Not filled by the checkpoint, newly drawn.*{lacks}', log)
    torch.save(dict(state_dict=tuned.model.state_dict(), meta={}), path)
    runner(**evaluate).test()


def test_what_is_logged_is_fetched_at_once():
    """The other hooks then wait for no device."""
    outputs = dict(loss=torch.tensor(1.5, requires_grad=True), acc=torch.tensor([40.0]))
    FiniteLossHook().after_train_iter(None, 0, None, outputs)
    assert outputs == dict(loss=1.5, acc=40.0)
    assert not any(value.requires_grad for value in outputs.values())
