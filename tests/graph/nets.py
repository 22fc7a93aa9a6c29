"""Small networks, each with one thing that is easy to get wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SharedInPlace(nn.Module):
    """One in-place activation used three times, and an in-place residual add."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(x)))
        out += x
        return self.relu(out)


class PreActivation(nn.Module):
    """The in-place activation changes the tensor that the shortcut reads afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out = self.conv(F.relu(x, inplace=True))
        out = out.mul_(0.5)
        return out + x


class BatchNormFirst(nn.Module):
    """Batch-norm before the convolution, and a concatenation, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.bn(x)))], 1)


class SqueezeExcite(nn.Module):
    """Depthwise and dilated convolutions, and a multiply by a pooled gate."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 5, stride=2, padding=4, dilation=2, groups=4)
        self.expand = nn.Conv2d(3, 4, 1)
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.expand(x))
        scale = torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return x * scale


class ChannelShuffle(nn.Module):
    """Grouped convolution, chunk and channel shuffle, with sizes read from the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.conv(x).chunk(2, dim=1)
        x = torch.cat((left, self.grouped(right)), dim=1)
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width)
        return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width)


class Classifier(nn.Module):
    """Adaptive pooling, dropout, two fully-connected layers, weights used as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding="same", padding_mode="circular")
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.hidden = nn.Sequential(nn.Linear(16, 10), nn.ReLU(), nn.Dropout())
        self.weight = nn.Parameter(torch.randn(7, 10))
        self.bias = nn.Parameter(torch.randn(7))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(self.pool(F.relu(self.conv(x))), 1)
        return F.linear(self.hidden(x), self.weight, self.bias)


class LearnedTable(nn.Module):
    """A layer that reads a buffer, not the frames; it says the same for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("table", torch.randn(1, 5))
        self.mlp = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.mlp(self.table)[:, :, None, None]


class RowsOfTokens(nn.Module):
    """A fully-connected layer that reads several rows of each frame, where frames are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        return self.linear(tokens.reshape(-1, 8)).reshape(x.shape[0], -1)


class RowsInFront(RowsOfTokens):
    """The same with frames as the second dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).flatten(2).permute(2, 0, 1)).permute(1, 2, 0)


ALL = (
    SharedInPlace,
    PreActivation,
    BatchNormFirst,
    SqueezeExcite,
    ChannelShuffle,
    Classifier,
    LearnedTable,
)


def randomised(net: nn.Module) -> nn.Module:
    """The network in evaluation mode, with batch-norm statistics that matter."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return net.eval()
