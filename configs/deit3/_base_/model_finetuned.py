# Fine-tuned by cross-entropy with label smoothing.
_base_ = ['model.py']

model = dict(head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1)))
