# iNaturalist 2019 has no class in mmpretrain. One folder for each of the 1,010
# categories, named alike in both splits:
#   data/inat2019/train/0000/*.jpg ... data/inat2019/val/1009/*.jpg
_base_ = ['inat18.py']

data_preprocessor = dict(num_classes=1010)
train_dataloader = dict(dataset=dict(data_root='data/inat2019'))
val_dataloader = dict(dataset=dict(data_root='data/inat2019'))
test_dataloader = val_dataloader
