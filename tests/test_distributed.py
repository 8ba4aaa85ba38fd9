"""Two processes on the CPU, which start the gloo group themselves: mmengine's
launchers call CUDA."""

import copy
import functools
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from conftest import build, make_batch, make_runner, teacher_cfg
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from test_virtual_processes import close, run_of
from timm.utils import dispatch_clip_grad
from trainings import resumed, same, training

from deit_plugin.datasets import ImageNet1k


@pytest.fixture(scope='module')
def processes():
    """Two, which all tests share, since it takes them longest to import what they need."""
    with ProcessPoolExecutor(2, multiprocessing.get_context('spawn')) as pool:
        yield pool


def run(processes, job, folder, *args):
    """What a job gives in each of the processes."""
    jobs = [processes.submit(in_group, job, rank, folder, *args) for rank in range(2)]
    return [job.result() for job in jobs]


def in_group(job, rank, folder, *args):
    torch.set_num_threads(1)
    Config.pretty_text = ''
    os.environ['LOCAL_RANK'] = '0'
    group = dict(init_method=f'file://{folder}/group', timeout=timedelta(minutes=1))
    dist.init_process_group('gloo', rank=rank, world_size=2, **group)
    try:
        return job(rank, folder, *args)
    finally:  # else the other one waits
        dist.destroy_process_group()


def the_batch():
    torch.manual_seed(0)
    return make_batch(8)


def half(batch, rank):
    size = len(batch['data_samples']) // 2
    part = slice(rank * size, (rank + 1) * size)
    return {k: v[part] for k, v in batch.items()}


class NoStep:
    """An optimizer wrapper that only asks for the gradients."""

    def optim_context(self, model):
        return torch.enable_grad()

    def update_params(self, loss):
        loss.backward()


def gradients(model):
    return {n: p.grad for n, p in model.named_parameters()}


def one_step(rank, folder, cfg):
    batch = the_batch()
    torch.manual_seed(rank)  # DDP itself spreads the weights of rank 0
    model = build(cfg).train()
    model.teacher.build()
    model.teacher.model.load_state_dict(torch.load(f'{folder}/teacher.pth'))
    if rank == 0:
        model.load_state_dict(torch.load(f'{folder}/student.pth'))
    wrapped = MMDistributedDataParallel(model)
    assert wrapped.find_unused_parameters is False
    names = {n for n, _ in wrapped.named_parameters()}
    assert names <= {f'module.{n}' for n in torch.load(f'{folder}/student.pth')}  # no teacher
    for _ in range(2):  # an unused parameter is reported by the second step
        model.zero_grad()
        wrapped.train_step(half(batch, rank), NoStep())
    torch.save(gradients(model), f'{folder}/gradients_{rank}.pth')


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(processes, distilled_cfg, tmp_path):
    batch = the_batch()
    model = build(distilled_cfg).train()
    model.teacher.build()
    torch.save(model.state_dict(), tmp_path / 'student.pth')
    torch.save(model.teacher.model.state_dict(), tmp_path / 'teacher.pth')
    model.train_step(copy.deepcopy(batch), NoStep())
    run(processes, one_step, tmp_path, distilled_cfg)
    for rank in range(2):
        got = torch.load(tmp_path / f'gradients_{rank}.pth')
        for name, expected in gradients(model).items():
            torch.testing.assert_close(got[name], expected, atol=1e-6, rtol=1e-4, msg=name)


REPVIT = dict(model_name='repvit_m0_9', embed_dim=(8, 16, 24, 32), depth=(1, 1, 2, 1))
FASTVIT = dict(model_name='fastvit_sa12', embed_dims=(8, 16, 32, 32), layers=(1, 1, 1, 1))


def timm_student(options, distill_on):
    """Its norms see the images of their own process alone."""
    loss = dict(type='DistillationLoss', distill_on=distill_on)
    preprocessor = dict(mean=[120.0] * 3, std=[60.0] * 3)
    parts = dict(teacher=teacher_cfg(), loss=loss, data_preprocessor=preprocessor)
    return dict(type='DistilledTimmClassifier', num_classes=5, **options, **parts)


REPVIT_CFG = timm_student(REPVIT, 'dist')


@pytest.mark.slow
@pytest.mark.parametrize('options, distill_on', [(REPVIT, 'dist'), (FASTVIT, 'cls')])
def test_students_of_timm_give_the_mean_of_both_gradients(options, distill_on, processes, tmp_path):
    cfg, batch = timm_student(options, distill_on), the_batch()
    model = build(cfg).train()
    model.teacher.build()
    torch.save(model.state_dict(), tmp_path / 'student.pth')
    torch.save(model.teacher.model.state_dict(), tmp_path / 'teacher.pth')
    run(processes, one_step, tmp_path, cfg)
    for rank in range(2):
        model.train_step(half(batch, rank), NoStep())
    first, second = (torch.load(tmp_path / f'gradients_{rank}.pth') for rank in range(2))
    for name, total in gradients(model).items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], total / 2, atol=1e-6, rtol=1e-4, msg=name)


def synchronized(rank, folder, cfg):
    """How the norms of the student and of its teacher are after ``sync_bn``, and logits in evaluation."""
    plain = build(cfg).eval()
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
    options = dict(launcher='pytorch', sync_bn='torch', runner_type='mmpretrain.DeiTRunner')
    # Such norms train on a GPU alone, and torch would not wrap them here.
    with mock.patch.object(MMDistributedDataParallel, '_passing_sync_batchnorm_handle'):
        model = make_runner(cfg, folder, model_wrapper_cfg=wrapper, **options).model
    model.module.load_state_dict(plain.state_dict())
    model.module.teacher.build()
    images = torch.randn(2, 3, 32, 32)
    counts = []
    for part in (plain, model.module, model.module.teacher.model):
        kinds = [type(m) for m in part.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        counts.append((len(kinds), kinds.count(torch.nn.SyncBatchNorm)))
    equal = torch.equal(model.eval()(images), plain(images))
    with pytest.raises(ValueError, match='SyncBatchNorm expected input tensor to be on'):
        model.train()(images)
    return counts, equal


def test_norms_of_the_student_are_synchronized(processes, tmp_path):
    for counts, equal in run(processes, synchronized, tmp_path, REPVIT_CFG):
        (norms, before), (left, converted), (of_teacher, of_teacher_converted) = counts
        assert left == converted == norms > 20 and not before
        assert of_teacher > 5 and not of_teacher_converted
        assert equal


@contextmanager
def scaling_on_the_cpu():
    """An ``AmpOptimWrapper`` there, without autocast."""
    scaler = functools.partial(torch.amp.GradScaler, 'cpu')
    with (
        mock.patch.object(amp_optimizer_wrapper, 'is_cuda_available', lambda: True),
        mock.patch.object(amp_optimizer_wrapper, 'GradScaler', scaler),
        mock.patch('deit_plugin.engine.optimizers.get_device', lambda: 'cuda'),
        mock.patch.object(AmpOptimWrapper, 'optim_context', OptimWrapper.optim_context),
    ):
        yield


def loss_of(model, rank, i):
    generator = torch.Generator().manual_seed(2 * i + rank)
    logits = model(torch.randn(4, 3, 32, 32, generator=generator))
    return 30 * sum(each.square().mean() for each in logits)


CLIP = dict(type='agc', clip_factor=0.02, exclude_head=False)
SCALED = dict(type='AmpOptimWrapper', loss_scale=dict(init_scale=1024.0), accumulative_counts=2)


def clipped_steps(rank, folder):
    model = MMDistributedDataParallel(build(torch.load(folder / 'cfg.pth')).train())
    model.module.load_state_dict(torch.load(folder / 'student.pth'))
    cfg = dict(constructor='mmpretrain.GroupedOptimWrapperConstructor', clip_grad=CLIP, **SCALED)
    with scaling_on_the_cpu():
        wrapper = build_optim_wrapper(model, dict(cfg, optimizer=dict(type='SGD', lr=0.5)))
        for i in range(6):
            with wrapper.optim_context(model):
                loss = loss_of(model, rank, i)
            wrapper.update_params(loss)
    torch.save(model.module.state_dict(), folder / f'trained_{rank}.pth')


@pytest.mark.slow
def test_clipping_sees_the_gradients_of_all(processes, tmp_path):
    """Of two processes and two iterations, after they are unscaled."""
    cfg = dict(REPVIT_CFG, teacher=None)
    model = build(cfg).train()
    torch.save(cfg, tmp_path / 'cfg.pth')
    torch.save(model.state_dict(), tmp_path / 'student.pth')
    run(processes, clipped_steps, tmp_path)
    optimizer, clipped = torch.optim.SGD(model.parameters(), lr=0.5), 0
    for step in range(3):
        optimizer.zero_grad()
        for i in (2 * step, 2 * step + 1):
            for rank in range(2):
                (loss_of(model, rank, i) / 4).backward()
        before = [p.grad.clone() for p in model.parameters()]
        dispatch_clip_grad(model.parameters(), 0.02, mode='agc')
        clipped += sum(not torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), before))
        optimizer.step()
    assert clipped > 20
    first, second = (torch.load(tmp_path / f'trained_{rank}.pth') for rank in range(2))
    for name, expected in model.named_parameters():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected.data, atol=1e-6, rtol=1e-4, msg=name)


class Draw(Hook):
    """What an iteration draws first."""

    def __init__(self):
        self.drawn = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.drawn.append(torch.rand(1).item())


def train(rank, folder, cfg):
    runner = make_runner(
        cfg,
        folder,
        scores=(1.0, 2.0),
        launcher='pytorch',
        randomness=dict(seed=0),
        default_hooks=dict(
            seed=dict(type='SeedHook'),
            finite_loss=dict(type='FiniteLossHook'),
            checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=1, save_best='auto'),
        ),
        model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None),
    )
    draw = Draw()
    runner.register_hook(draw)
    runner.train()
    assert runner.distributed and runner.model.module.teacher.model is not None
    return draw.drawn


@pytest.mark.slow
def test_runner_under_the_pytorch_launcher(processes, distilled_cfg, tmp_path):
    drawn = run(processes, train, tmp_path, distilled_cfg)
    stored = torch.load(tmp_path / 'epoch_2.pth')
    student = build({**distilled_cfg, 'teacher': None}).state_dict()
    # All apart, or both would mix and drop alike.
    assert len(set(drawn[0] + drawn[1])) == 4
    assert set(stored['state_dict']) == set(student)
    assert stored['meta']['iter'] == 2  # four images, two at once, two ranks


def train_and_resume(rank, folder, cfg):
    kwargs = dict(
        launcher='pytorch',
        randomness=dict(seed=None, diff_rank_seed=True),
        sampler=dict(type='RepeatedAugmentSampler', repeat=True),
        batch_size=16,
        scores=(1.0,) * 2,
        model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None),
    )
    (folder / 'whole').mkdir(exist_ok=True)
    training(cfg, folder / 'whole', **kwargs).train()
    dist.barrier()
    resumed(cfg, folder / 'again', folder / 'whole' / 'epoch_1.pth', **kwargs)


@pytest.mark.slow
def test_gradients_of_two_processes_are_resumed(processes, drawing_model, tmp_path):
    """Three iterations an epoch, the last of them amid a step."""
    run(processes, train_and_resume, tmp_path, drawing_model)
    whole = tmp_path / 'whole'
    assert 'gradients' in torch.load(whole / 'epoch_1.pth')
    assert same(whole / 'epoch_2.pth', tmp_path / 'again' / 'epoch_2.pth')


def train_the_recipe(rank, folder, cfg):
    kwargs = dict(
        launcher='pytorch', model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)
    )
    run_of(cfg, folder / 'two', 4, **kwargs)
    run_of(cfg, folder / 'again', 2, folder / 'one' / 'epoch_2.pth', **kwargs)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(processes, drawing_model, tmp_path):
    """From the start, and resumed from the one's, with other batches."""
    expected = run_of(drawing_model, tmp_path / 'one')
    run(processes, train_the_recipe, tmp_path, drawing_model)
    for name, count in dict(two=1, again=2).items():
        found = torch.load(tmp_path / name / 'epoch_4.pth')
        assert found['meta']['accumulated'] == count
        close(found, expected)


def list_images(rank, folder):
    """What each process finds, and what it reads of the disk."""
    read, scandir = [], os.scandir
    os.scandir = lambda path: read.append(path) or scandir(path)
    try:
        dataset = ImageNet1k(data_root=folder, split='train', metainfo=dict(classes=['a', 'b']))
        return dataset.listing.tobytes(), dataset.folder_to_idx, len(read)
    except Exception as error:
        return repr(error), None, len(read)
    finally:
        os.scandir = scandir


def test_one_process_lists_the_images_for_all(processes, tmp_path):
    for name in ('a/1.jpg', 'a/2.jpg', 'b/3.jpg'):
        path = tmp_path / 'train' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    first, second = run(processes, list_images, tmp_path)
    assert first == (b'a/1.jpg\x000\x00a/2.jpg\x000\x00b/3.jpg\x001\x00', dict(a=0, b=1), 3)
    assert second == (*first[:2], 0)


@pytest.mark.parametrize('missing, message', [('train', 'ImageNet is not at'), ('train/b', 'has 1 folders')])
def test_what_the_first_process_misses_is_told_by_all(missing, message, processes, tmp_path):
    for name in ('train/a', missing):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / missing).rename(tmp_path / 'elsewhere')
    (first, *_), (second, *_) = run(processes, list_images, tmp_path)
    assert first == second and message in first
