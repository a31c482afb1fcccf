# CMI: the schedule of inversion methods, and an optimiser for the projection head.
_base_ = './bank_200e.py'

optim_wrapper = dict(head=dict(optimizer=dict(type='Adam', lr=1e-3)))
