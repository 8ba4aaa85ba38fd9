"""The moving average is mmengine's, to the bit."""

import pytest
import torch
from conftest import distilled, make_runner
from mmengine.model import ExponentialMovingAverage
from trainings import resumed, same, training

from deit_plugin.engine import ForeachEMA

pytestmark = pytest.mark.usefixtures('quick')


class Model(torch.nn.Module):
    """With all that a state dict may hold: parameters of two types and buffers, of which one counts."""

    def __init__(self, dtype):
        super().__init__()
        self.linear = torch.nn.Linear(7, 5, dtype=dtype)
        self.norm = torch.nn.BatchNorm1d(5, dtype=dtype)
        self.scale = torch.nn.Parameter(torch.randn(3, dtype=torch.bfloat16))

    def change(self):
        for value in self.state_dict().values():
            if value.is_floating_point():
                value.normal_()
            else:
                value += 1


def states(cls, dtype, updates=7, **kwargs):
    torch.manual_seed(0)
    model = Model(dtype)
    average = cls(model, momentum=4e-5, **kwargs)
    for _ in range(updates):
        model.change()
        average.update_parameters(model)
    return average.state_dict()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('update_buffers', [False, True])
@pytest.mark.parametrize('interval', [1, 3])
def test_it_equals_mmengines(dtype, update_buffers, interval):
    kwargs = dict(dtype=dtype, update_buffers=update_buffers, interval=interval)
    given, expected = states(ForeachEMA, **kwargs), states(ExponentialMovingAverage, **kwargs)
    assert list(given) == list(expected) and given['steps'] == 7
    for name, value in expected.items():
        assert torch.equal(given[name], value), name


def test_it_equals_the_formula():
    torch.manual_seed(0)
    model = Model(torch.float64)
    average = ForeachEMA(model, momentum=0.25)
    expected = None
    for _ in range(4):
        model.change()
        weight = model.linear.weight.detach()
        expected = weight.clone() if expected is None else 0.75 * expected + 0.25 * weight
        average.update_parameters(model)
    torch.testing.assert_close(average.module.linear.weight.data, expected)


def test_a_model_without_buffers():
    average = ForeachEMA(torch.nn.Linear(2, 2), momentum=0.5)
    average.update_parameters(torch.nn.Linear(2, 2))
    assert average.steps == 1


def test_the_count_is_on_the_cpu_wherever_the_average_is():
    average = ForeachEMA(torch.nn.Linear(2, 2), device='meta')
    assert average.module.weight.is_meta and average.steps.device.type == 'cpu'


@pytest.mark.parametrize('first, then', [('ForeachEMA',) * 2, (None, 'ForeachEMA'), ('ForeachEMA', None)])
def test_either_class_resumes_what_the_other_saved(drawing_model, tmp_path, first, then):
    """And ends as a training with mmengine's from the beginning."""
    whole, begun, ended = (tmp_path / name for name in ('whole', 'begun', 'ended'))

    def kwargs(ema_type):
        hook = dict(type='EMAHook', momentum=0.1, **(dict(ema_type=ema_type) if ema_type else {}))
        return dict(custom_hooks=[hook], randomness=dict(seed=0))

    training(drawing_model, whole, **kwargs(None)).train()
    training(drawing_model, begun, **kwargs(first)).train()
    resumed(drawing_model, ended, begun / 'epoch_2.pth', **kwargs(then))
    assert same(whole / 'epoch_4.pth', ended / 'epoch_4.pth')


def test_the_average_is_what_is_evaluated(tmp_path):
    hook = dict(type='EMAHook', ema_type='ForeachEMA', momentum=0.5)
    runner = make_runner(distilled(teacher=None, mode='none'), tmp_path, scores=(1.0,), custom_hooks=[hook])
    runner.train()
    checkpoint = torch.load(tmp_path / 'epoch_1.pth')
    name = 'head.layers.head.weight'
    # The weights that are trained on are under the average's name.
    assert torch.equal(checkpoint['ema_state_dict'][f'module.{name}'], runner.model.state_dict()[name])
    assert not torch.equal(checkpoint['state_dict'][name], runner.model.state_dict()[name])
