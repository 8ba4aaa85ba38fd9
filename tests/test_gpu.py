"""What only a CUDA device shows."""

import argparse
import time

import pytest
import torch
from conftest import ROOT, build, make_batch, make_runner, step
from mmengine.hooks import Hook
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import DefaultScope

from deit_plugin.engine import ForeachEMA


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_training_under_amp(distilled_cfg, tmp_path, dtype):
    wrapper = dict(type='AmpOptimWrapper', dtype=dtype, optimizer=dict(type='AdamW'))
    runner = make_runner(distilled_cfg, tmp_path, scores=(1.0, 2.0), optim_wrapper=wrapper)
    answers = []
    model = runner.model
    model.teacher.build()
    model.teacher.model.register_forward_hook(lambda m, args, out: answers.append(out))
    runner.train()
    assert {a.dtype for a in answers} == {getattr(torch, dtype)}
    assert {a.device.type for a in answers} == {'cuda'}


@pytest.mark.gpu
def test_teacher_follows_the_student(distilled_cfg):
    distilled_cfg['teacher']['data_preprocessor']['mean'] = [0.0] * 3
    model = build(distilled_cfg).train()
    on_cpu = step(model, make_batch())
    on_gpu = step(model.cuda(), make_batch())
    for name, value in on_gpu.items():
        assert value.is_cuda
        torch.testing.assert_close(value.cpu(), on_cpu[name], atol=1e-2, rtol=1e-2)


class Strict(Hook):
    """Lets nothing wait for the device in an iteration, and measures how long the host takes for one."""

    priority = 0  # first of all

    def __init__(self, iteration, sleep=0):
        self.iteration, self.sleep, self.took = iteration, sleep, None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            torch.cuda.synchronize()
            torch.cuda._sleep(self.sleep)  # cycles for which the device is busy
            self.start = time.perf_counter()
            torch.cuda.set_sync_debug_mode('error')


class Lenient(Hook):
    priority = 100  # last of all

    def __init__(self, strict):
        self.strict = strict

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        torch.cuda.set_sync_debug_mode('default')
        if runner.iter == self.strict.iteration:
            self.strict.took = time.perf_counter() - self.strict.start
            torch.cuda.synchronize()
            self.strict.device_took = time.perf_counter() - self.strict.start


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32'])
def test_the_host_waits_in_no_iteration(drawing_model, tmp_path, quick, dtype):
    """With all that the recipe draws, the losses of which one is checked, and a moving average."""
    kind = dict(type='OptimWrapper') if dtype == 'float32' else dict(type='AmpOptimWrapper', dtype=dtype)
    strict = Strict(iteration=4, sleep=2_000_000_000)
    runner = make_runner(
        drawing_model,
        tmp_path,
        scores=(1.0,),
        train_dataloader=dict(
            dataset=dict(type='Noise', size=64),
            batch_size=8,
            pin_memory=True,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='labels_collate'),
        ),
        optim_wrapper=dict(
            **kind, constructor='GroupedOptimWrapperConstructor', optimizer=dict(type='AdamW')
        ),
        custom_hooks=[dict(type='EMAHook', ema_type='ForeachEMA')],
    )
    runner.register_hook(strict)
    runner.register_hook(Lenient(strict))
    try:
        runner.train()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert strict.took < strict.device_took / 2


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_moving_average_is_mmengines(dtype):
    model = torch.nn.Sequential(torch.nn.Linear(99, 77), torch.nn.BatchNorm1d(77)).to('cuda', dtype)
    averages = [cls(model, momentum=4e-5) for cls in (ExponentialMovingAverage, ForeachEMA)]
    for _ in range(5):
        for value in model.parameters():
            value.data.normal_()
        for average in averages:
            average.update_parameters(model)
    for expected, given in zip(averages[0].state_dict().values(), averages[1].state_dict().values()):
        torch.testing.assert_close(given, expected, rtol=1e-6, atol=1e-9)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tests' / 'benchmarks')
    import gpu

    args = argparse.Namespace(
        **dict(device='cpu', precision='bfloat16', teacher='resnet10t', compile=False, rehearse=True),
        **dict(batch_size=4, rounds=1, steps=1, peak_tflops=100.0),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield gpu, args


def test_the_benchmark_is_rehearsed(benchmark):
    gpu, args = benchmark
    cells = gpu.row_in_time('base_384', args, time.monotonic() + 60)
    assert len(cells) == len(gpu.COLUMNS) - 3  # size, compiled, batch
    assert cells[-2:] == ['-', '-'] and all(float(cell) > 0 for cell in cells[:12])


def test_the_benchmark_goes_on_after_a_failure_and_when_time_is_over(benchmark):
    gpu, args = benchmark
    assert gpu.row_in_time('tiny', args, time.monotonic()) == ['left out: the time is over']
    (cell,) = gpu.row_in_time('tiny', args, time.monotonic() + 0.01)
    assert cell == 'TimeoutError: the time was over'
    args.teacher = 'no_such_teacher'
    (cell,) = gpu.row_in_time('tiny', args, time.monotonic() + 60)
    assert 'no_such_teacher' in cell


def test_the_share_of_the_peak(benchmark):
    """8,003 images/s of a ViT-S of 4.6 G multiply-adds are 22 % of an H100, as its anchor has it."""
    gpu, args = benchmark
    args.peak_tflops = gpu.PEAKS['H100']
    assert gpu.share(args, 8003, 4.6e9) == '22.3 %'
    assert gpu.share(args, 1000, 4.6e9, None) == '-'
