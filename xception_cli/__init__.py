"""Fine-tune an ImageNet-pretrained Xception on a folder of photos."""

__version__ = "0.1.0"
