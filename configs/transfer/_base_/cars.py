# Stanford Cars: data/stanford_cars/ with car_ims/ and cars_annos.mat.
_base_ = ['../../_base_/imagenet_224.py']

data_preprocessor = dict(num_classes=196, erasing=0.0)
train_dataloader = dict(
    batch_size=96, dataset=dict(type='StanfordCars', data_root='data/stanford_cars', split='train')
)
val_dataloader = dict(
    batch_size=96, dataset=dict(type='StanfordCars', data_root='data/stanford_cars', split='test')
)
test_dataloader = val_dataloader
