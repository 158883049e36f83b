"""YOLOX, YOLOv9 and DEIMv2, as modules of libreyolo."""
