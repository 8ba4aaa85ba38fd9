# The paper's teacher: RegNetY-16GF, 84M parameters, top-1 82.9. timm's
# `regnety_160.deit_in1k` is the same file.
teacher = dict(
    type='TimmClassifier',
    model_name='regnety_160',
    num_classes=1000,
    checkpoint='https://dl.fbaipublicfiles.com/deit/regnety_160-a5fe301d.pth',
)
