"""What a training does to files: its own ones, whole, and one training a folder."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import distilled, make_runner
from filelock import FileLock
from PIL import Image
from trainings import training, unique_name

from deit_plugin.checkpoints import atomic
from deit_plugin.datasets import ImageFolder
from deit_plugin.engine import work_folder

pytestmark = pytest.mark.usefixtures('quick')


def run(folder, scores=(1.0, 3.0), **kwargs):
    folder.mkdir(exist_ok=True)
    cfg = distilled(teacher=None, mode='none')
    runner = make_runner(cfg, folder, scores, experiment_name=unique_name(), **kwargs)
    runner.train()
    return runner


def checkpoints(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def test_the_best_of_another_run_stays(tmp_path):
    run(tmp_path / 'a')
    assert checkpoints(tmp_path / 'a') == ['best_accuracy_top1_epoch_2.pth', 'epoch_2.pth']
    last = str(tmp_path / 'a' / 'epoch_2.pth')
    runner = run(tmp_path / 'b', (3.0, 4.0, 5.0), load_from=last, resume=True)
    assert checkpoints(tmp_path / 'a') == ['best_accuracy_top1_epoch_2.pth', 'epoch_2.pth']
    assert checkpoints(tmp_path / 'b') == ['best_accuracy_top1_epoch_3.pth', 'epoch_3.pth']
    assert runner.message_hub.get_info('best_score') == 4.0


def test_a_worse_continuation_elsewhere_keeps_the_old_best(tmp_path):
    run(tmp_path / 'a')
    last = str(tmp_path / 'a' / 'epoch_2.pth')
    runner = run(tmp_path / 'b', (1.0, 2.0, 2.0), load_from=last, resume=True)
    assert checkpoints(tmp_path / 'a') == ['best_accuracy_top1_epoch_2.pth', 'epoch_2.pth']
    assert checkpoints(tmp_path / 'b') == ['epoch_3.pth']
    assert runner.message_hub.get_info('best_ckpt').startswith(str(tmp_path / 'a'))


def test_a_folder_that_was_moved_goes_on(tmp_path):
    run(tmp_path / 'old')
    shutil.move(tmp_path / 'old', tmp_path / 'new')
    run(tmp_path / 'new', (3.0, 4.0), resume=True, train_cfg=dict(by_epoch=True, max_epochs=3))
    assert checkpoints(tmp_path / 'new') == [
        'best_accuracy_top1_epoch_3.pth',
        'epoch_3.pth',
    ]


def test_links_lead_nowhere(tmp_path):
    """A link in the folder, by the name of a best checkpoint, to a file elsewhere."""
    (tmp_path / 'precious.pth').write_bytes(b'precious')
    work = tmp_path / 'work'
    run(work)
    checkpoint = torch.load(work / 'epoch_2.pth')
    link = work / 'best_of_others.pth'
    link.symlink_to(tmp_path / 'precious.pth')
    checkpoint['message_hub']['runtime_info']['best_ckpt'] = str(link)
    torch.save(checkpoint, work / 'epoch_2.pth')
    run(work, (3.0, 4.0), resume=True, train_cfg=dict(by_epoch=True, max_epochs=3))
    assert (tmp_path / 'precious.pth').read_bytes() == b'precious' and link.is_symlink()


def test_a_second_training_in_a_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(work_folder, 'PATIENCE', 0.1)
    code = (
        'import sys, time, filelock\n'
        f'lock = filelock.FileLock({str(tmp_path / ".training.lock")!r})\n'
        'lock.acquire(); print("held", flush=True); time.sleep(60)'
    )
    other = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == 'held\n'
    try:
        with pytest.raises(RuntimeError, match='Another training runs in .*--work-dir'):
            run(tmp_path)
        assert checkpoints(tmp_path) == []
    finally:
        other.kill()
        other.wait()
    run(tmp_path)  # a killed one holds nothing


def test_workers_of_a_killed_training_are_waited_for(tmp_path):
    """They hold its lock until they see that their parent is gone."""
    lock = FileLock(tmp_path / '.training.lock', thread_local=False)
    lock.acquire()
    threading.Timer(0.5, lock.release).start()
    start = time.monotonic()
    run(tmp_path)
    assert time.monotonic() - start > 0.4


def test_a_training_that_failed_may_start_again_in_the_same_process(tmp_path):
    with pytest.raises(IndexError):
        run(tmp_path, val_evaluator=dict(type='Scripted', values=[]))
    run(tmp_path)


def test_two_writers_of_one_file(tmp_path):
    path, wrong = tmp_path / 'a', []
    contents = [bytes([i]) * 100_000 for i in range(3)]
    atomic.write_whole(path, contents[0])

    def write(content):
        for _ in range(60):
            try:
                atomic.write_whole(path, content)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.read_bytes() not in contents:
            wrong.append('partial')
    assert not wrong and os.listdir(tmp_path) == ['a']


def test_a_full_disk_names_the_file_and_the_way_out(tmp_path, monkeypatch):
    atomic.write_whole(tmp_path / 'a.pth', b'old')

    def full(handle):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'No room for .* MB are free.*Make room.*--resume.*a\.pth') as caught:
        atomic.write_whole(tmp_path / 'a.pth', b'new')
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / 'a.pth').read_bytes() == b'old' and os.listdir(tmp_path) == ['a.pth']


def test_a_training_without_an_iteration_does_not_start(drawing_model, tmp_path):
    """It would say that it is done."""
    runner = training(drawing_model, tmp_path / 'run', batch_size=64)
    runner = training(
        drawing_model,
        tmp_path / 'run',
        train_dataloader=dict(runner.cfg.train_dataloader, batch_size=64, drop_last=True),
    )
    with pytest.raises(ValueError, match='no iteration.*has 20 images, a batch 64.*batch_size'):
        runner.train()


def fail(results):
    raise KeyError('mine')


def test_a_broken_image_in_evaluation_is_named(tmp_path):
    (tmp_path / 'cat').mkdir()
    Image.new('RGB', (20, 20), 'red').save(tmp_path / 'cat' / 'a.png')
    (tmp_path / 'cat' / 'b.png').write_bytes((tmp_path / 'cat' / 'a.png').read_bytes()[:40])
    pipeline = [
        dict(type='LoadImageFromFile', imdecode_backend='pillow'),
        dict(type='Resize', scale=8),
        dict(type='PackInputs'),
    ]
    images = ImageFolder(data_root=str(tmp_path), pipeline=pipeline, test_mode=True)
    images[0]
    with pytest.raises(OSError, match=r"The image '.*cat/b\.png' is broken: "):
        images[1]
    (tmp_path / 'cat' / 'b.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'b\.png'):
        images[1]
    # An error of a transform is not blamed on the image.
    images = ImageFolder(data_root=str(tmp_path), pipeline=[fail], test_mode=True)
    with pytest.raises(KeyError, match='mine'):
        images[0]


def test_a_new_best_between_two_saves_is_recorded(tmp_path):
    hook = dict(type='AtomicCheckpointHook', interval=2, save_last=False, save_best='auto')
    run(tmp_path, (1.0, 5.0), default_hooks=dict(checkpoint=hook))
    run(
        tmp_path,
        (5.0, 9.0),
        resume=True,
        default_hooks=dict(checkpoint=hook),
        train_cfg=dict(by_epoch=True, max_epochs=3),
    )
    last = torch.load((tmp_path / 'last_checkpoint').read_text())
    info = last['message_hub']['runtime_info']
    assert info['best_score'] == 9.0
    assert info['best_ckpt'] == str(tmp_path / 'best_accuracy_top1_epoch_3.pth')
    assert [name for name in checkpoints(tmp_path) if name.startswith('best')] == [
        'best_accuracy_top1_epoch_3.pth'
    ]
