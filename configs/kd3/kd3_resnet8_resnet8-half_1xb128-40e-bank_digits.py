# KD³ on the embedded benchmark from a bank of images that DeepInversion made out of resnet8:
#   python tools/synthesize.py --num 4800 --out data/banks/deepinversion_resnet8_digits \
#     configs/deepinversion/deepinversion_resnet8_resnet8-half_1xb96-20e_digits.py
#   python tools/train.py configs/kd3/kd3_resnet8_resnet8-half_1xb128-40e-bank_digits.py
_base_ = './kd3_resnet8_resnet8-half_1xb128-40e_digits.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImagePool', root='data/banks/deepinversion_resnet8_digits'),
)
