"""The network (METHOD.md §2): ResNet bottom-up, top-down pathway with skip additions, one-logit head."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d

from lesionmap.backbone import read_backbone, refused
from lesionmap.errors import ModelError, SettingsError
from lesionmap.files import written_whole
from lesionmap.fusion import FUSIONS
from lesionmap.model_facts import load_facts
from lesionmap.tiling import FINEST_STRIDE

STAGE_CHANNELS = {
    "resnet18": (64, 128, 256, 512),
    "resnet34": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "resnet101": (256, 512, 1024, 2048),
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RARE_LESION_PRIOR = 0.1
COUNTER = "num_batches_tracked"  # of batch norm; files of old torchvision versions lack it


@dataclass(frozen=True)
class ModelSettings:
    """Which network: a torchvision `backbone`, its `norm` (``frozen``, ``batch``, ``group``), and the `fusion` of maps.

    Files of models from before there was a choice of fusion do not name it.
    """

    backbone: str
    norm: str
    fusion: str = "mean"


class TopDownStep(nn.Module):
    """P_i = C_i + conv3×3(conv1×1(up(P_{i+1}))) (claim 4).

    The 1×1 convolution comes before the upsampling: the two commute exactly, and it costs a quarter.

    Parameters
    ----------
    channels_above, channels : int
        Channels of P_{i+1} and of C_i.
    """

    def __init__(self, channels_above: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels_above, channels, kernel_size=1)
        self.smooth = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, above: Tensor, skip: Tensor) -> Tensor:
        """(N, channels_above, h, w) and (N, channels, 2h, 2w) → (N, channels, 2h, 2w)."""
        raised = functional.interpolate(self.reduce(above), size=skip.shape[-2:], mode="bilinear")
        merged: Tensor = skip + self.smooth(raised)
        return merged


class LesionFPN(nn.Module):
    """Feature-pyramid network that gives one lesion logit per pixel.

    Parameters
    ----------
    settings : ModelSettings

    Examples
    --------
    >>> LesionFPN(ModelSettings("resnet18", "batch"))(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)).shape
    torch.Size([1, 1, 64, 96])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        resnet = getattr(torchvision.models, settings.backbone)(weights=None, norm_layer=_norm_layer(settings.norm))
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.stages = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4])
        c2, c3, c4, c5 = STAGE_CHANNELS[settings.backbone]
        self.to_p4, self.to_p3, self.to_p2 = TopDownStep(c5, c4), TopDownStep(c4, c3), TopDownStep(c3, c2)
        self.head = nn.Conv2d(c2, 1, kernel_size=1)
        nn.init.normal_(self.head.weight, std=0.01)
        self.fusion = FUSIONS[settings.fusion]()
        # focal loss starts stably from the prior of a rare class (Lin et al., ICCV 2017, §4.1)
        self.head.bias = nn.Parameter(torch.tensor([RARE_LESION_PRIOR]).logit())
        self.set_scale()

    def set_scale(self) -> None:
        """Make the mean and standard deviation of images, which model files do not hold."""
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Lesion logits of RGB images.

        Parameters
        ----------
        images : (N, 3, H, W) uint8
            H and W multiples of 32.

        Returns
        -------
        (N, 1, H, W) float
        """
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        c1 = self.stem(x)  # (N, 64, H/4, W/4)
        c2 = self.stages[0](c1)  # (N, c2, H/4, W/4)
        c3 = self.stages[1](c2)  # (N, c3, H/8, W/8)
        c4 = self.stages[2](c3)  # (N, c4, H/16, W/16)
        p5 = self.stages[3](c4)  # (N, c5, H/32, W/32)
        p4 = self.to_p4(p5, c4)
        p3 = self.to_p3(p4, c3)
        p2 = self.to_p2(p3, c2)
        logits = self.head(p2)  # (N, 1, H/4, W/4)
        return functional.interpolate(logits, scale_factor=FINEST_STRIDE, mode="bilinear")


def _norm_layer(norm: str) -> Callable[[int], nn.Module]:
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen": FrozenBatchNorm2d,
        "batch": nn.BatchNorm2d,
        "group": lambda channels: nn.GroupNorm(32, channels),
    }
    return layers[norm]


def fetch_backbone(backbone: str, output: str | Path) -> None:
    """Download torchvision's ImageNet weights (IMAGENET1K_V1) and verify their checksum.

    Raises
    ------
    ModelError
        If they cannot be downloaded; the message says how to place the file by hand.
    """
    weights = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    checksum = weights.url.rsplit("-", 1)[1].removesuffix(".pth")
    try:
        with written_whole(output) as draft:
            torch.hub.download_url_to_file(weights.url, str(draft), hash_prefix=checksum)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            stage="fetch_backbone",
            finding=f"{weights.url} cannot be downloaded ({error})",
            remedy=f"download it on another machine, place it at {output} and run again",
        ) from error


def load_backbone(model: LesionFPN, path: str | Path) -> None:
    """Copy a torchvision ResNet state dict (without its classifier) into the bottom-up path.

    Raises
    ------
    ModelError
        If the file cannot be used (:func:`lesionmap.backbone.read_backbone`), or a tensor is missing or has another
        shape; the message names the first one.
    """
    found, own = read_backbone(path), model.state_dict()
    for key in (key for key in own if key.startswith(("stem.", "stages.")) and not key.endswith(COUNTER)):
        if key not in found or found[key].shape != own[key].shape:
            raise refused(
                f"{path}: layer {key} is {'missing' if key not in found else tuple(found[key].shape)}; "
                f"the backbone needs {tuple(own[key].shape)}",
                "give weights with the running statistics of batch norm, or set model.norm to group"
                if "running_" in key
                else "give the state dict of the torchvision backbone named in model.backbone",
            )
    model.load_state_dict(own | {key: value for key, value in found.items() if key in own})


def save_model(path: str | Path, model: LesionFPN, settings: ModelSettings, facts: dict[str, Any]) -> None:
    """Write weights and all that another facility needs to use them.

    Parameters
    ----------
    facts : dict
        JSON-able: stain reference, TileSpec, provenance, …
    """
    # one metadata key only: the order of several is random in the file
    metadata = {"lesionmap": json.dumps({"architecture": asdict(settings), **facts}, sort_keys=True)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(path) as draft:
        save_file(tensors, draft, metadata=metadata)


def load_model(path: str | Path) -> LesionFPN:
    """Rebuild the network of a model file, in evaluation mode."""
    with torch.device("meta"):  # no random weights that the file's would replace
        model = LesionFPN(ModelSettings(**load_facts(path)["architecture"]))
    model.load_state_dict(load_file(path), assign=True)
    model.set_scale()
    return model.eval()


def pick_device(name: str = "auto") -> torch.device:
    """``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is the first CUDA GPU if there is one, else the CPU.

    Raises
    ------
    SettingsError
        If there is no such GPU.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise SettingsError(
            stage="train",
            finding=f"train.device is {name}, but torch finds {count} CUDA devices on this machine",
            remedy="take train.device: auto or cpu, a number below that, or run where nvidia-smi lists that GPU",
        )
    return device


def mixed_precision(device: torch.device) -> torch.autocast:
    """bf16 where the device has matrix units for it (a GPU's, or a CPU's AMX), else fp32, which is then faster."""
    enabled = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
