# What every run shares: hooks, logging, environment.
default_scope = 'mmdfkd'
runner_type = 'DistillRunner'
model_wrapper_cfg = dict(type='ReplicatedModel')

default_hooks = dict(
    # Losses and times are read from the device once for each line of the log.
    runtime_info=dict(type='IntervalRuntimeInfoHook'),
    timer=dict(type='IntervalTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    epoch_seed=dict(type='EpochSeedHook'),
    teacher=dict(type='TeacherHook'),
    gan=dict(type='GANHook'),
    selection=dict(type='SelectionHook'),
    synthesis=dict(type='SynthesisHook'),
    samples=dict(type='SampleHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sync_buffers=dict(type='SyncBuffersHook'),
    summary=dict(type='SummaryHook'),
    # Two, since an old one is deleted before the new one is written.
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    figures=dict(type='FigureHook'),
    progress=dict(type='ProgressHook'),
    speed=dict(type='SpeedHook'),  # switches, all off
)
log_processor = dict(window_size=1)  # one record is already the mean over an interval

env_cfg = dict(
    cudnn_benchmark=True,
    keep_memory=True,  # on a CPU; freed memory stays with the process, which is faster
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
