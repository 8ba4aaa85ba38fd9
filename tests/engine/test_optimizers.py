"""Groups of parameters against mmengine's, one for each parameter."""

import copy

import pytest
import torch
from conftest import build, config
from mmengine.optim import build_optim_wrapper

pytestmark = pytest.mark.usefixtures('quick')
ADAMW = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
RULES = config('deit_base').optim_wrapper.paramwise_cfg.to_dict()
SGD = dict(type='SGD', lr=1e-3, weight_decay=0.05, momentum=0.9)


@pytest.fixture
def model(distilled_cfg):
    return build(distilled_cfg)


def wrap(
    model,
    constructor='mmpretrain.GroupedOptimWrapperConstructor',
    optimizer=ADAMW,
    paramwise=RULES,
    **options,
):
    """An optimizer of the recipe, if nothing else is said."""
    return build_optim_wrapper(
        model,
        dict(constructor=constructor, optimizer=dict(optimizer, **options), paramwise_cfg=paramwise),
    )


def mmengines(model, **options):
    return wrap(model, 'DefaultOptimWrapperConstructor', **options)


def rules(model, wrapper, keys=('lr', 'weight_decay')):
    """The options of each parameter that is optimized, by its name."""
    names = {p: n for n, p in model.named_parameters()}
    return {
        names[p]: tuple(group[key] for key in keys)
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }


def steps(model, wrapper, first=0, last=5):
    """Weights after some steps, whose gradients are always the same."""
    for i in range(first, last):
        generator = torch.Generator().manual_seed(i)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        wrapper.step()
    return [p.detach().clone() for p in model.parameters()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b))


def test_two_groups_with_mmengines_rules(model):
    wrapper, expected = wrap(model), mmengines(model)
    assert rules(model, wrapper) == rules(model, expected)
    groups = [w.optimizer.param_groups for w in (wrapper, expected)]
    assert [g['weight_decay'] for g in groups[0]] == [0, 0.05]
    assert len(groups[1]) == len(list(model.parameters()))
    decayed = [n for n, (_, decay) in rules(model, wrapper).items() if decay]
    order = [n for n, _ in model.named_parameters()]
    assert decayed == [n for n in order if n in decayed]
    assert 'backbone.dist_token' in decayed


def test_a_group_for_each_set_of_options(model):
    paramwise = dict(
        bias_lr_mult=2.0,
        norm_decay_mult=0.0,
        custom_keys={
            'head': dict(lr_mult=0.1),
            'layers.1': dict(betas=(0.8, 0.9)),
            'layers.2': dict(decay_mult=1.0),
        },
    )
    model.backbone.patch_embed.requires_grad_(False)
    wrapper = wrap(model, paramwise=paramwise)
    keys = 'lr', 'weight_decay', 'betas'
    got = rules(model, wrapper, keys)
    assert got == rules(model, mmengines(model, paramwise=paramwise), keys)
    assert len(got) == len(list(model.parameters())) - 2
    assert len(wrapper.optimizer.param_groups) == len(set(got.values())) == 5


def test_no_rules(model):
    wrapper = wrap(model, paramwise={})
    (group,) = wrapper.optimizer.param_groups
    assert len(group['params']) == len(list(model.parameters()))
    assert group['fused']


@pytest.mark.parametrize('optimizer', [ADAMW, dict(ADAMW, type='Adam'), SGD])
@pytest.mark.parametrize('options', [dict(foreach=False), dict(foreach=True), dict(fused=False), dict()])
def test_steps_equal_mmengines(model, optimizer, options):
    other = copy.deepcopy(model)
    grouped = wrap(model, optimizer=optimizer, **options)
    got = steps(model, grouped)
    expected = steps(other, mmengines(other, optimizer=optimizer, foreach=False))
    if options in (dict(foreach=False), dict(fused=False)):
        assert equal(got, expected)
    for x, y in zip(got, expected):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8)
    for group in grouped.optimizer.param_groups:
        assert bool(group['fused']) == (options == dict())
        assert group['foreach'] == options.get('foreach')


@pytest.mark.parametrize(
    'optimizer, fused',
    [
        (dict(ADAMW, type=torch.optim.AdamW), True),
        (dict(type='RMSprop', lr=1e-3, weight_decay=0.05), None),
        (dict(type='mmpretrain.Lamb', lr=1e-3, weight_decay=0.05), None),
        (dict(SGD, differentiable=True), None),
    ],
)
def test_fused_where_torch_can(model, optimizer, fused):
    for group in wrap(model, optimizer=optimizer).optimizer.param_groups:
        assert group.get('fused') == fused


def test_not_fused_on_other_devices(model):
    with torch.device('meta'):
        model = torch.nn.Linear(2, 2)
    assert wrap(model).optimizer.param_groups[0]['fused'] is None


@pytest.mark.parametrize('optimizer', [ADAMW, SGD])
def test_resumes_its_own_checkpoint(model, optimizer):
    whole = copy.deepcopy(model)
    expected = steps(whole, wrap(whole, optimizer=optimizer))
    wrapper = wrap(model, optimizer=optimizer)
    steps(model, wrapper, last=2)
    state = copy.deepcopy(wrapper.state_dict())
    wrapper = wrap(model, optimizer=optimizer)
    wrapper.load_state_dict(state)
    assert equal(steps(model, wrapper, first=2), expected)


def test_refuses_the_groups_of_mmengine(model):
    grouped, single = wrap(model), mmengines(model)
    for one, other in [(grouped, single), (single, grouped)]:
        with pytest.raises(ValueError, match='different number of parameter'):
            one.load_state_dict(copy.deepcopy(other.state_dict()))
