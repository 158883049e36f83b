"""Detectors of transformers: DETR, RT-DETR, D-FINE, RF-DETR and their kin."""
