"""A stack of denoising autoencoders that classifies images. It reads RGB images, float32
[n, 3, image_size, image_size], and gives logits [n, num_labels]."""

import torch
from torch import Tensor, nn

from pipelines.models.classics import Classic


class DenoisingLayer(nn.Module):
    """One layer, and its decoder: the same weights transposed, and a bias (Vincent et al. 2008)."""

    def __init__(self, inputs: int, outputs: int, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.decoder_bias = nn.Parameter(torch.zeros(inputs))
        self.active = nn.ReLU() if activation == "relu" else nn.Sigmoid()
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, inputs: Tensor, original: Tensor | None = None) -> Tensor:
        """The codes [n, outputs]; with `original` [n, inputs], the mean squared error of each reconstruction, [n]."""
        codes: Tensor = self.active(self.linear(inputs))
        if original is None:
            return codes
        decoded = nn.functional.linear(codes, self.linear.weight.T, self.decoder_bias)
        return (decoded.float() - original.float()).square().mean(1)


class AutoencoderForImageClassification(Classic):
    """A stacked denoising autoencoder (Hinton and Salakhutdinov 2006, Vincent et al. 2008) with a classifier on top.

    `corruption` is the share of each layer's inputs that is set to 0 while this layer learns to reconstruct them.
    """

    model_type = "autoencoder"

    def __init__(
        self,
        num_labels: int = 10,
        image_size: int = 28,
        grayscale: bool = True,
        hidden_size: int = 500,
        num_hidden_layers: int = 3,
        activation: str = "sigmoid",
        corruption: float = 0.25,
    ) -> None:
        super().__init__()
        if activation not in ("relu", "sigmoid"):
            raise ValueError(f"activation: got {activation!r}, must be relu or sigmoid")
        if num_hidden_layers < 1:
            raise ValueError(f"num_hidden_layers: got {num_hidden_layers}, must be 1 or more")
        if not 0 <= corruption < 1:
            raise ValueError(f"corruption: got {corruption}, must be 0 or more, and less than 1")
        self.grayscale, self.corruption = grayscale, corruption
        sizes = [image_size**2 * (1 if grayscale else 3)] + [hidden_size] * num_hidden_layers
        self.trunk = nn.Sequential()
        for number in range(num_hidden_layers):
            self.trunk.append(DenoisingLayer(sizes[number], sizes[number + 1], activation))
        self.head = nn.Linear(hidden_size, num_labels)

    def forward(self, pixel_values: Tensor, pretraining: float | None = None) -> Tensor:
        """Logits. `pretraining`, from 0 to less than 1, gives reconstruction errors [n] of one layer instead: the first
        layer's at 0, the last one's towards 1."""
        if self.grayscale:
            pixel_values = pixel_values.mean(1, keepdim=True)
        inputs = pixel_values.flatten(1)
        if pretraining is None:
            logits: Tensor = self.head(self.trunk(inputs))
            return logits
        number = min(int(pretraining * len(self.trunk)), len(self.trunk) - 1)
        with torch.no_grad():  # the layers below do not change
            inputs = self.trunk[:number](inputs)
        kept = torch.rand_like(inputs) >= self.corruption
        errors: Tensor = self.trunk[number](inputs * kept, inputs)
        return errors
