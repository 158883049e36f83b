"""Classics that classify images. All read RGB images, float32 [n, 3, image_size, image_size], and give logits
[n, num_labels]."""

from torch import Tensor, nn

from pipelines.models.classics import Classic


class PerceptronForImageClassification(Classic):
    """A perceptron (Rosenblatt 1958): one linear layer on the pixels.

    It trains with the cross-entropy of all classes, which makes it multinomial logistic regression. Rosenblatt's rule
    corrects the weights after each wrong answer instead.
    """

    model_type = "perceptron"

    def __init__(self, num_labels: int = 10, image_size: int = 28, grayscale: bool = True) -> None:
        super().__init__()
        self.grayscale = grayscale
        self.trunk = nn.Flatten()
        self.head = nn.Linear(image_size**2 * (1 if grayscale else 3), num_labels)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if self.grayscale:
            pixel_values = pixel_values.mean(1, keepdim=True)
        logits: Tensor = self.head(self.trunk(pixel_values))
        return logits


class MLPForImageClassification(Classic):
    """A multilayer perceptron: the pixels as one vector, and hidden layers (Rumelhart, Hinton and Williams 1986)."""

    model_type = "mlp"

    def __init__(
        self,
        num_labels: int = 10,
        image_size: int = 28,
        grayscale: bool = True,
        hidden_size: int = 300,
        num_hidden_layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.grayscale = grayscale
        size = image_size**2 * (1 if grayscale else 3)
        layers: list[nn.Module] = [nn.Flatten()]
        for _ in range(num_hidden_layers):
            layers += [nn.Linear(size, hidden_size), nn.ReLU(), nn.Dropout(dropout)]
            size = hidden_size
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(size, num_labels)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if self.grayscale:
            pixel_values = pixel_values.mean(1, keepdim=True)
        logits: Tensor = self.head(self.trunk(pixel_values))
        return logits


class LeNetForImageClassification(Classic):
    """LeNet-5 (LeCun et al. 1998), with max pooling and ReLU unless `activation` is tanh.

    The original averages where this takes the maximum, connects each map of the second convolution to some maps of the
    first only, and compares the last 84 values with a drawn picture of each digit instead of computing scores.
    """

    model_type = "lenet"

    def __init__(
        self,
        num_labels: int = 10,
        image_size: int = 32,
        grayscale: bool = True,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.grayscale = grayscale
        if activation not in ("relu", "tanh"):
            raise ValueError(f"activation: got {activation!r}, must be relu or tanh")
        active = nn.ReLU if activation == "relu" else nn.Tanh
        side = ((image_size - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"image_size: got {image_size}, must be 16 or more")
        self.trunk = nn.Sequential(
            nn.Conv2d(1 if grayscale else 3, 6, 5),
            active(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            active(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * side**2, 120),
            active(),
            nn.Linear(120, 84),
            active(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(84, num_labels)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if self.grayscale:
            pixel_values = pixel_values.mean(1, keepdim=True)
        logits: Tensor = self.head(self.trunk(pixel_values))
        return logits


class AlexNetForImageClassification(Classic):
    """AlexNet (Krizhevsky, Sutskever and Hinton 2012), with the layers of Krizhevsky 2014 (one weird trick), as in
    torchvision.

    `width` multiplies the number of channels and hidden units. Below 63 pixels the first convolution has a stride of 1
    instead of 4.
    """

    model_type = "alexnet"

    def __init__(self, num_labels: int = 1000, image_size: int = 224, width: float = 1.0, dropout: float = 0.5) -> None:
        super().__init__()
        if image_size < 32:
            raise ValueError(f"image_size: got {image_size}, must be 32 or more")
        if not 0.01 <= width <= 8:
            raise ValueError(f"width: got {width}, must be 0.01 to 8")
        a, b, c, d, hidden = (max(1, round(size * width)) for size in (64, 192, 384, 256, 4096))
        self.trunk = nn.Sequential(
            nn.Conv2d(3, a, 11, stride=4 if image_size >= 63 else 1, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(a, b, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(b, c, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, d, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(d, d, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.AdaptiveAvgPool2d(6),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(d * 36, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(hidden, num_labels)

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(pixel_values))
        return logits


class VGGForImageClassification(Classic):
    """VGG (Simonyan and Zisserman 2014) of 11, 13, 16 or 19 layers, as in torchvision.

    `width` multiplies the number of channels and hidden units.
    """

    model_type = "vgg"

    def __init__(
        self,
        num_labels: int = 1000,
        image_size: int = 224,
        depth: int = 16,
        width: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if image_size < 32:
            raise ValueError(f"image_size: got {image_size}, must be 32 or more")
        if not 0.01 <= width <= 8:
            raise ValueError(f"width: got {width}, must be 0.01 to 8")
        stages = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
        if depth not in stages:
            raise ValueError(f"depth: got {depth}, must be 11, 13, 16 or 19")
        layers: list[nn.Module] = []
        before = 3
        for convolutions, size in zip(stages[depth], (64, 128, 256, 512, 512), strict=True):
            channels = max(1, round(size * width))
            for _ in range(convolutions):
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
                before = channels
            layers.append(nn.MaxPool2d(2))
        hidden = max(1, round(4096 * width))
        layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten()]
        layers += [nn.Linear(before * 49, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        layers += [nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(hidden, num_labels)
        for layer in self.modules():  # without these spreads, 16 layers do not begin to learn
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(pixel_values))
        return logits
