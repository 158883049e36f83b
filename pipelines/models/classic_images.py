"""Classics that classify images. All read RGB images, float32 [n, 3, image_size, image_size], and give logits
[n, num_labels]."""

from torch import Tensor, nn

from pipelines.models.classics import Classic


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
    """LeNet-5 (LeCun et al. 1998), with max pooling and ReLU unless `activation` is tanh."""

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
