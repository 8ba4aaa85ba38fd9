"""docs/ecosystem.md: what watches a training, repeats it, or judges it."""

import json
import pickle
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.evaluation import ConfusionMatrix
from mmpretrain.registry import DATASETS, RUNNERS
from running import NO_WORKERS, SHORT_DEMO, commands, example, make_demo, python, run, write
from trainings import unique_name

DIGITS = 'configs/deit_digits_distilled.py'


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp('demo'))


@pytest.fixture(autouse=True)
def there(demo, monkeypatch):
    monkeypatch.chdir(demo)


def scalars(folder):
    (path,) = Path(folder).rglob('scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def train(name, code):
    run(
        ['mim', 'train', 'mmpretrain', write(f'{name}.py', code)],
        *SHORT_DEMO,
        'default_hooks.logger.interval=1',
    )
    return scalars(f'work_dirs/{name}')


@pytest.mark.tool('tensorboard')
def test_tensorboard_has_what_is_logged():
    """It has all that the log has."""
    reading = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    code = example(
        'TensorBoard and Weights & Biases',
        alone="    dict(type='WandbVisBackend', init_kwargs=dict(project='deit', mode='offline')),\n -> ",
    )
    logged = train('tensorboard', code)
    (path,) = Path('work_dirs/tensorboard').rglob('events.out.tfevents.*')
    events = reading.EventAccumulator(str(path)).Reload()
    for name in ('loss_cls', 'loss_distill', 'cls_acc', 'dist_acc', 'teacher_agreement', 'lr'):
        expected = [line[name] for line in logged if name in line]
        assert [event.value for event in events.Scalars(name)] == pytest.approx(expected)
        assert len(expected) == 3
    (accuracy,) = events.Scalars('accuracy/top1')
    assert accuracy.value == pytest.approx(logged[-1]['accuracy/top1'])


@pytest.mark.tool('wandb', 'offline')
def test_wandb_keeps_what_is_logged(monkeypatch):
    """Without network or account all that is logged is kept, as JSON, to be sent later."""
    wandb = pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    code = example('TensorBoard and Weights & Biases', alone="    dict(type='TensorboardVisBackend'),\n -> ")
    logged = train('wandb', code)
    wandb.teardown()  # its process writes the file
    (path,) = Path('work_dirs/wandb').rglob('run-*.wandb')
    kept = path.read_bytes()
    for name in ('loss_cls', 'loss_distill', 'teacher_agreement', 'accuracy/top1'):
        values = [line[name] for line in logged if name in line]
        assert name.encode() in kept and all(json.dumps(value).encode() in kept for value in values)


@pytest.fixture
def quick_folds(monkeypatch):
    """The folds of a second would share their log: mmengine names it by the time."""
    from_cfg = Runner.from_cfg.__func__

    def named(cls, cfg):
        cfg.experiment_name = unique_name()
        return from_cfg(cls, cfg)

    monkeypatch.setattr(Runner, 'from_cfg', classmethod(named))


def held_out(fold):
    """Which images a fold validated on, by the config that it left."""
    (path,) = Path('kfold', f'fold{fold}').glob('*.py')
    data = DATASETS.build(Config.fromfile(path).val_dataloader.dataset)
    assert data.test_mode and len(data) == 96
    return set(data._ori_indices)


@pytest.mark.tool('mmpretrain', 'k-fold')
@pytest.mark.usefixtures('quick_folds')
def test_folds_and_grid_are_trained_and_compared():
    """Each image is held out once, each setting is tried, and the block finds the best of them."""
    folds, *grid = commands(example('k-fold and grid search', language='bash'))
    assert folds[-4:] == ['--num-splits', '5', '--work-dir', 'kfold']
    few = ['--num-splits', '2', '--work-dir', 'kfold', '--seed', '1']
    run([*folds[:-4], *few], *SHORT_DEMO, *NO_WORKERS)
    for command in grid:
        run(command, *SHORT_DEMO)
    seen = python(example('k-fold and grid search'))
    indices = [held_out(fold) for fold in range(2)]
    assert not indices[0] & indices[1] and indices[0] | indices[1] == set(range(192))
    assert seen['folds'] == [scalars(f'kfold/fold{i}')[-1]['accuracy/top1'] for i in (0, 1)]
    assert len(grid) == len(seen['grid']) == 4
    for name, best in seen['grid'].items():
        _, lr, _, rate = name.split()
        (path,) = Path('grid', name).glob('*.py')
        cfg = Config.fromfile(path)
        assert cfg.optim_wrapper.optimizer.lr == float(lr)
        assert cfg.model.backbone.drop_path_rate == float(rate)
        assert best == scalars(Path('grid', name))[-1]['accuracy/top1']


@pytest.mark.tool('optuna')
def test_optuna_hears_the_accuracy():
    """It learns from each training what its accuracy was."""
    optuna = pytest.importorskip('optuna')
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = dict(option.split('=') for option in (*SHORT_DEMO, *NO_WORKERS))
    short = '\n'.join(f"    cfg.merge_from_dict({{'{name}': {value}}})" for name, value in options.items())
    code = example(
        'k-fold and grid search',
        1,
        few='n_trials=10 -> n_trials=2',
        short=f'    runner = RUNNERS -> {short}\n    runner = RUNNERS',
        unique=f"f'trial {{trial.number}}' -> f'{unique_name()} {{trial.number}}'",
    )
    study = python(code)['study']
    for trial in study.trials:
        assert trial.value == pytest.approx(scalars(f'optuna/{trial.number}')[-1]['accuracy/top1'])
        assert 1e-4 <= trial.params['lr'] <= 1e-2
    assert study.best_value == max(trial.value for trial in study.trials)


@pytest.mark.tool('mmpretrain', 'confusion matrix')
def test_the_confusion_matrix_fits_the_accuracy():
    """Its diagonal is the accuracy that `evaluate` measures."""
    matrix, evaluate = commands(
        example('Confusion matrix', language='bash', last='epoch_30.pth -> epoch_4.pth')
    )
    run(matrix, *NO_WORKERS)
    counts = pickle.loads(Path('confusion.pkl').read_bytes())
    assert counts.sum(1).tolist() == labels() and Path('confusion.png').stat().st_size > 10000
    weights = evaluate.index('--weights') + 1
    evaluate[weights] += '/epoch_4.pth'
    run([*evaluate, '--workers', '0', '--json', 'confusion.json'])
    (result,) = json.loads(Path('confusion.json').read_text())
    assert 100 * counts.trace().item() / 360 == pytest.approx(result['measured']['top1'], abs=1e-3)
    assert '<html' in Path('confusion.html').read_text()


def labels():
    return [len(list(Path('data/digits/val', str(digit)).iterdir())) for digit in range(10)]


@pytest.mark.tool('mmpretrain', 'confusion matrix')
def test_the_confusion_matrix_is_a_metric(monkeypatch):
    """Beside the accuracy, of the same predictions."""
    cfg = Config.fromfile(write('confusion.py', example('Confusion matrix')))
    cfg.merge_from_dict({name: eval(value) for name, value in (option.split('=') for option in NO_WORKERS)})
    cfg.update(work_dir='confusion', experiment_name=unique_name())
    metrics = RUNNERS.build(cfg).test()
    counts = metrics['confusion_matrix/result']
    assert counts.sum() == 360
    assert 100 * counts.trace().item() / 360 == pytest.approx(metrics['accuracy/top1'], abs=1e-3)
    assert ConfusionMatrix.plot(counts) is not None
