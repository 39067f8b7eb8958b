"""Small ANNs of every kind that can be converted to spikes."""

import torch
from torch import nn
from torch.nn import functional as F

from snn.conversion import QCFS
from snn.models import resnet, vgg


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trained_like(model, seed=0):
    """Give weights and normalisations values as training would leave them, and evaluation mode."""
    generator = seeded(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, 0, (2 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return model.eval()


class Plain(nn.Module):
    """Modules and functions mixed, normalisation of the input, max pooling before and after ReLU, a view by shape."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5]).view(1, 2, 1, 1))
        self.conv1, self.norm1 = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2, self.act2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.5)
        self.fc1, self.norm3, self.fc2 = nn.Linear(32, 16), nn.BatchNorm1d(16), nn.Linear(16, 5)

    def forward(self, x):
        n, channels = x.shape[0], x.size(1)
        x = (x - self.mean) / 0.5
        x = F.relu(F.max_pool2d(self.norm1(self.conv1(x)), 2))
        x = self.pool(self.act2(self.norm2(self.conv2(x))))
        x = self.drop(x).view(n, 4 * 4 * channels)
        return self.fc2(torch.relu(self.norm3(self.fc1(x))))


class Residual(nn.Module):
    """Shortcuts of all kinds: a convolution, the identity after neurons, the image itself, and global means."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.stem, self.act0 = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)), activation()
        self.a1, self.act1 = nn.Conv2d(6, 6, 3, padding=1), activation()
        self.a2, self.act2 = self._end(6), activation()
        self.b1, self.act3 = nn.Conv2d(6, 8, 3, stride=2, padding=1), activation()
        self.b2 = self._end(8)
        self.short, self.act4 = nn.Conv2d(6, 8, 1, stride=2), activation()
        self.image, self.act5 = nn.Conv2d(8, 2, 1), activation()
        self.small, self.fc = nn.AvgPool2d(2), nn.Linear(2, 4)

    @staticmethod
    def _end(channels):
        return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        h = self.act0(self.stem(x))
        h = self.act2(self.a2(self.act1(self.a1(h))) + h)
        h = self.act4(torch.add(self.b2(self.act3(self.b1(h))), self.short(h)))
        h = self.act5(self.image(h) - 0.5 * self.small(x))
        return self.fc(h.mean((2, 3)))


class Dense(nn.Module):
    """Concatenation of channels with thresholds of their own, into grouped convolutions, pooling and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()
        self.conv2, self.act2 = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.conv3, self.act3 = nn.Conv2d(8, 4, 3, padding=1, groups=2), nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(48, 4)

    def forward(self, x):
        a = self.act1(self.conv1(x))
        b = self.act2(self.conv2(a))
        c = self.act3(self.conv3(torch.cat((a, b), 1)))
        return self.fc(self.pool(torch.cat([a, b, c], dim=1)).flatten(1))


class PreActivation(nn.Module):
    """A normalisation after a sum, which no layer can take in, spikes that are the output, and a layer called twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(2, 6, 3, padding=1), nn.ReLU()
        self.conv2, self.norm, self.act2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
        self.pool, self.fc, self.act3 = nn.AvgPool2d(8), nn.Linear(6, 6), nn.ReLU()

    def forward(self, x):
        h = self.act1(self.conv1(x))
        h = self.act2(self.norm(h + self.conv2(h)))
        h = self.fc(self.pool(h).squeeze(-1).squeeze(-1))
        return self.act3(self.fc(h) + 2.0) * 1.5


class OneActivation(nn.Module):
    """One ReLU that is called after every layer, in place, as torchvision's ResNets do."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.relu, self.pool, self.fc = nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 4)

    def forward(self, x):
        identity = self.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(identity))
        out += identity
        return self.fc(torch.flatten(self.pool(self.relu(out)), 1))


def quantised_vgg(**options):
    options = {"in_shape": (2, 8, 8), "width": 0.25, "classifier": (128,), **options}
    return vgg(5, 5, activation=lambda: QCFS(8, 2.0), generator=seeded(), **options)


# Name -> builder of a network on images (2, 8, 8).
ANNS = {
    "plain": Plain,
    "residual": Residual,
    "residual, QCFS": lambda: Residual(lambda: QCFS(8, 2.0)),
    "dense": Dense,
    "pre-activation": PreActivation,
    "one activation": OneActivation,
    "vgg": lambda: vgg(5, 5, in_shape=(2, 8, 8), width=0.25, classifier=(128,), pool="max", generator=seeded()),
    "vgg, QCFS": quantised_vgg,
    "resnet": lambda: resnet(12, 5, in_shape=(2, 8, 8), width=0.1, generator=seeded()),
    "resnet, QCFS": lambda: resnet(
        12, 5, in_shape=(2, 8, 8), width=0.1, activation=lambda: QCFS(8, 2.0), generator=seeded()
    ),
}


def build(name):
    """Return a network of `ANNS` and images for it. Constructors draw from the global generator; that is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = trained_like(ANNS[name]())
    return model, torch.rand(12, 2, 8, 8, generator=seeded(1))
