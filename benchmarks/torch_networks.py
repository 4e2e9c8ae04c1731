"""The networks of some detectors in idiomatic PyTorch, for the benchmarks: NCHW, floats made on the device, torchvision where it
has the network and transformers for CLIP."""

from typing import Any

import torch
from torch import nn


def to_images(clips: torch.Tensor, memory_format: Any = torch.channels_last) -> torch.Tensor:
    """Return clips (batch, frames, height, width, 3) uint8 as images (batch x frames, 3, height, width) float in -1..1."""
    images = clips.flatten(0, 1).permute(0, 3, 1, 2)
    return (images.float() / 127.5 - 1).contiguous(memory_format=memory_format)


class Cnn(nn.Module):
    """The network of `cnn`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32), (32, 64), (64, 128)):
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        width = 128 * (size // 16) ** 2
        head = [nn.Flatten(), nn.Dropout(0.3), nn.Linear(width, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 1)]
        self.layers = nn.Sequential(*blocks, *head)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.layers(to_images(clips))[:, 0]


class CnnLstm(nn.Module):
    """The network of `cnn_lstm` at 64 x 64 pixels, or at 32 x 32."""

    def __init__(self, size: int = 64, memory_format: Any = torch.channels_last) -> None:
        super().__init__()
        self.memory_format = memory_format
        blocks: list[nn.Module] = []
        for inputs, outputs, kernel_size in ((3, 16, 3), (16, 32, 3), (32, 64, 5)):
            blocks += [nn.Conv2d(inputs, outputs, kernel_size), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1)]
        side = ((size - 2) // 2 - 2) // 2
        width = 64 * ((side - 4) // 2) ** 2
        self.frame = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(width, 256), nn.ReLU())
        self.lstm = nn.LSTM(256, 64, batch_first=True)
        self.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        features = self.frame(to_images(clips, self.memory_format)).unflatten(0, clips.shape[:2])
        return self.head(self.lstm(features)[0][:, -1])[:, 0]


class Scored(nn.Module):
    """A network of torchvision with one output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.network(to_images(clips))[:, 0]


class ClipFeatures(nn.Module):
    """The projected image features of transformers' CLIP."""

    def __init__(self, config: dict[str, Any], width: int) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        self.network = CLIPVisionModelWithProjection(CLIPVisionConfig(**config, projection_dim=width))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.network(pixel_values=to_images(clips)).image_embeds


class TransposedBlock(nn.Module):
    """A residual block whose second convolution is transposed; a stride of 2 doubles the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        extra = stride - 1
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=1, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(),
            nn.ConvTranspose2d(inputs, outputs, 3, stride, 1, extra, bias=False), nn.BatchNorm2d(outputs))  # fmt: skip
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 1, stride, 0, extra, bias=False), nn.BatchNorm2d(outputs))  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.shortcut(x) + self.body(x))


class ResNetVae(nn.Module):
    """The symmetric `resnet_vae`: torchvision's ResNet-18 and its mirror. Returns the loss of each image, (batch,)."""

    def __init__(self, size: int, latent: int = 256) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.side = size // 32
        self.encoder = resnet18(weights=None)
        self.encoder.fc = nn.Linear(512, 2 * latent)
        self.expand = nn.Linear(latent, 512 * self.side**2)
        blocks: list[nn.Module] = []
        for width, below in ((512, 256), (256, 128), (128, 64), (64, 64)):
            blocks += [TransposedBlock(width, width, 1), TransposedBlock(width, below, 1 if width == below else 2)]
        self.decoder = nn.Sequential(*blocks, nn.Upsample(scale_factor=2), nn.ConvTranspose2d(64, 3, 7, 2, 3, 1))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        images = to_images(clips)
        mean, log_variance = self.encoder(images).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        decoded = self.decoder(self.expand(z).unflatten(1, (512, self.side, self.side)))
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return ((decoded.float() - images) ** 2).flatten(1).sum(1) + divergence


def build(name: str, size: int, clip: tuple[dict[str, Any], int]) -> nn.Module:
    """Return the network of a detector. Raises ImportError where its library is not installed."""
    if name == "cnn":
        return Cnn(size)
    if name == "cnn_lstm":
        return CnnLstm(size)
    if name == "clip":
        return ClipFeatures(*clip)
    if name == "resnet_vae":
        return ResNetVae(size)
    from torchvision import models

    if name == "inception":
        return Scored(models.inception_v3(weights=None, aux_logits=False, num_classes=1, init_weights=False))
    return Scored(models.resnet50(weights=None, num_classes=1))
