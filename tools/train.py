# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Train anything a config describes: ``python tools/train.py CONFIG``."""
from mmengine.config import Config
from mmdfkd.engine import DistillRunner
import sys
cfg=Config.fromfile(sys.argv[1]); cfg.work_dir='/tmp/wd/'+sys.argv[1].split('/')[-1][:-3]
DistillRunner.from_cfg(cfg).train()
