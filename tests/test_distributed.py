"""Two processes on the CPU, which start the gloo group themselves: mmengine's
launchers call CUDA."""

import copy

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import build, make_batch, make_runner
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel


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


def start(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/group', rank=rank, world_size=2)


def one_step(rank, folder, cfg):
    start(rank, folder)
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
    assert names == {f'module.{n}' for n in torch.load(f'{folder}/student.pth')}
    for _ in range(2):  # an unused parameter is reported by the second step
        model.zero_grad()
        wrapped.train_step(half(batch, rank), NoStep())
    torch.save(gradients(model), f'{folder}/gradients_{rank}.pth')
    dist.destroy_process_group()


def test_two_processes_give_the_gradients_of_one(distilled_cfg, tmp_path):
    batch = the_batch()
    model = build(distilled_cfg).train()
    model.teacher.build()
    torch.save(model.state_dict(), tmp_path / 'student.pth')
    torch.save(model.teacher.model.state_dict(), tmp_path / 'teacher.pth')
    model.train_step(copy.deepcopy(batch), NoStep())
    mp.spawn(one_step, (tmp_path, distilled_cfg), nprocs=2)
    for rank in range(2):
        got = torch.load(tmp_path / f'gradients_{rank}.pth')
        for name, expected in gradients(model).items():
            torch.testing.assert_close(got[name], expected, atol=1e-6, rtol=1e-4, msg=name)


class Draw(Hook):
    """What an iteration draws first."""

    def __init__(self):
        self.drawn = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.drawn.append(torch.rand(1).item())


def train(rank, folder, cfg):
    start(rank, folder)
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
    torch.save(draw.drawn, f'{folder}/drawn_{rank}.pth')
    assert runner.distributed and runner.model.module.teacher.model is not None
    dist.destroy_process_group()


def test_runner_under_the_pytorch_launcher(distilled_cfg, tmp_path, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    mp.spawn(train, (tmp_path, distilled_cfg), nprocs=2)
    stored = torch.load(tmp_path / 'epoch_2.pth')
    student = build({**distilled_cfg, 'teacher': None}).state_dict()
    drawn = [torch.load(tmp_path / f'drawn_{rank}.pth') for rank in range(2)]
    # All apart, or both would mix and drop alike.
    assert len(set(drawn[0] + drawn[1])) == 4
    assert set(stored['state_dict']) == set(student)
    assert stored['meta']['iter'] == 2  # four images, two at once, two ranks
