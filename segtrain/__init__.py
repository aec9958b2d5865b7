"""segtrain: config-driven training and benchmarking of image segmentation."""

__version__ = "0.1.0"
