"""Detectors of torchvision: Faster R-CNN, Mask R-CNN, RetinaNet, FCOS, SSD."""
