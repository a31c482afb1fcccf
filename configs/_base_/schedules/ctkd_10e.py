# adam_10e.py for both networks that CTKD trains.
_base_ = './adam_10e.py'

optim_wrapper = dict(scratch_teacher=_base_.optim_wrapper.student)
param_scheduler = dict(scratch_teacher=_base_.param_scheduler.student)
