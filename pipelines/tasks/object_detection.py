"""Object detection: boxes with classes in an image.

Models of transformers (DETR, RT-DETR, D-FINE, YOLOS), of torchvision (Faster R-CNN, SSD, RetinaNet, FCOS) and of
libreyolo (YOLOX, YOLOv9, DEIMv2).
"""

from pipelines.detection.base import DetectionOptions, DetectionTask
from pipelines.task import HubSpec


class Options(DetectionOptions):
    pass


class ObjectDetection(DetectionTask):
    name = "object-detection"
    hub = HubSpec("object-detection", "transformers", ("ForObjectDetection",))
    Options = Options
