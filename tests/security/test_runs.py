"""What a training does to files: its own ones, whole, and one training a folder."""

import errno
import gc
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import build, distilled, make_runner
from filelock import FileLock
from PIL import Image
from trainings import training, unique_name

from deit_plugin.checkpoints import atomic
from deit_plugin.checkpoints.downloads import published_hash
from deit_plugin.checkpoints.strict import load_strict
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


def edit(path, **info):
    checkpoint = torch.load(path)
    checkpoint['message_hub']['runtime_info'].update(info)
    torch.save(checkpoint, path)


def test_files_of_others_in_the_own_folder_stay(tmp_path):
    """A checkpoint that is resumed names them, but no training in the folder wrote them."""
    run(tmp_path / 'a')
    work = tmp_path / 'b'
    work.mkdir()
    others = [work / name for name in ('best_of_mine.pth', 'epoch_7.pth', 'epoch_8.pth', 'mine.part')]
    for path in others:
        path.write_bytes(b'mine')
    last = tmp_path / 'a' / 'epoch_2.pth'
    edit(last, best_ckpt=str(others[0]), keep_ckpt_ids=[7, 8], last_ckpt=str(others[1]))
    run(work, (3.0, 4.0, 5.0), load_from=str(last), resume=True)
    assert all(path.read_bytes() == b'mine' for path in others)
    assert set(checkpoints(work)) == {
        'best_accuracy_top1_epoch_3.pth',
        'epoch_3.pth',
        *(path.name for path in others if path.suffix == '.pth'),
    }


def test_what_is_published_is_the_own_and_is_named_by_its_hash(tmp_path):
    run(tmp_path / 'a')
    hook = dict(
        type='AtomicCheckpointHook', max_keep_ckpts=1, save_best='auto', published_keys=['state_dict', 'meta']
    )
    before = set(os.listdir(tmp_path / 'a'))
    last = str(tmp_path / 'a' / 'epoch_2.pth')
    hooks = dict(default_hooks=dict(checkpoint=hook))
    run(tmp_path / 'b', (1.0, 2.0, 2.0), load_from=last, resume=True, **hooks)
    assert set(os.listdir(tmp_path / 'a')) == before  # the best is still there
    (published,) = (tmp_path / 'b').glob('epoch_3-*.pth')
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert published_hash(str(published)) == digest[:8]
    assert torch.load(published).keys() == {'state_dict', 'meta'}
    load_strict(build(distilled(teacher=None)), str(published))


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
        (tmp_path / '.training.json').write_text('{"configs": {"mine.py": "of the first"}}')
        (tmp_path / 'mine.py').write_text('of the second')  # as mmengine writes it before any hook
        with pytest.raises(RuntimeError, match='Another training runs in .*--work-dir'):
            run(tmp_path)
        assert checkpoints(tmp_path) == []
        with pytest.raises(RuntimeError, match='Another training'):
            work_folder.WorkFolder(str(tmp_path)).lock(str(tmp_path / 'mine.py'))
        assert (tmp_path / 'mine.py').read_text() == 'of the first'
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


def is_held(folder):
    """Whether another process would be refused."""
    code = (
        'import sys, filelock\n'
        f'try: filelock.FileLock({str(folder / ".training.lock")!r}, timeout=0).acquire()\n'
        'except filelock.Timeout: sys.exit(3)'
    )
    return subprocess.run([sys.executable, '-c', code]).returncode == 3


def test_a_training_that_failed_may_start_again(tmp_path):
    """In the same process, as in a notebook, and in another one as soon as nothing holds its runner."""
    with pytest.raises(IndexError) as caught:
        run(tmp_path, val_evaluator=dict(type='Scripted', values=[]))
    assert is_held(tmp_path)
    run(tmp_path)
    assert is_held(tmp_path)  # the second gave back its own hold alone
    del caught
    gc.collect()
    assert not is_held(tmp_path)


def test_the_config_that_a_refused_training_wrote_over_is_put_back(tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text('the first')
    held = work_folder.WorkFolder(str(tmp_path)).lock(str(config))
    assert '"mine.py": "the first"' in (tmp_path / '.training.json').read_text()
    held.release()


def test_a_damaged_list_is_an_empty_one(tmp_path):
    folder = work_folder.WorkFolder(str(tmp_path))
    for text in ('', '{', '[1]', '{"checkpoints": 3}', '{"checkpoints": [["epoch_1.pth"]]}'):
        (tmp_path / '.training.json').write_text(text)
        assert not folder.wrote('epoch_1.pth')
    folder.add('epoch_1.pth', 'epoch_2.pth')
    folder.forget('epoch_2.pth')
    assert folder.wrote('epoch_1.pth') and not folder.wrote('epoch_2.pth')


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
    with pytest.raises(ValueError, match='no iteration.*a batch of 64 is more than the 20 images'):
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
