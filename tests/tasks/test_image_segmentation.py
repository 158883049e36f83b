"""Image segmentation: the contract, with a tiny SegFormer."""
