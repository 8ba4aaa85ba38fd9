# What every training of this package runs with.
_base_ = ['mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['deit_plugin'], allow_failed_imports=False)
runner_type = 'mmpretrain.DeiTRunner'

default_hooks = dict(
    setup=dict(type='SetupHook'),
    seed=dict(type='SeedHook'),
    teacher_labels=dict(type='TeacherLabelsHook'),
    checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3, save_best='auto'),
    finite_loss=dict(type='FiniteLossHook'),
    history=dict(type='HistoryHook'),
    filled_model=dict(type='FilledModelHook'),
    curves=dict(type='CurvesHook'),
)

# Replaced, since mmengine marks what is inherited from mmpretrain's base (`_scope_`), and mmpretrain's
# browse_dataset hands all of it to the visualizer.
visualizer = dict(_delete_=True, type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])

# For --auto-scale-lr, which GlobalBatchHook makes needless.
auto_scale_lr = dict(enable=False)

# Every draw follows from the seed, the epoch or iteration, and the place in it, on each GPU another
# (SeedHook): a run that is resumed repeats it.
randomness = dict(seed=0)

# In the log, the mean of the last ten iterations, as for the losses.
log_processor = dict(
    custom_cfg=[
        dict(data_src=name, method_name='mean', window_size=10)
        for name in ('cls_acc', 'dist_acc', 'teacher_acc', 'teacher_agreement')
    ]
)
