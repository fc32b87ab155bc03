"""METHOD.md §3–4 written a second time, naively and in one graph."""

import torch
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d

FUSED = {
    "mean": lambda model, t1, t2: (t1 + t2) / 2,
    "max": lambda model, t1, t2: torch.where(t1 > t2, t1, t2),
    "learned": lambda model, t1, t2: t2 + (t1 - t2) / (1 + torch.exp(-model.fusion.a)),
}


def naive_network(model, images):
    """METHOD.md §2 as it is written: each norm after its convolution, upsampling first, then both convolutions."""
    x = (images - model.mean) / model.std
    x = functional.max_pool2d(functional.relu(convolved(model.stem[0], model.stem[1], x)), 3, stride=2, padding=1)
    skips = []
    for stage in model.stages:
        for block in stage:
            x = naive_block(block, x)
        skips.append(x)
    c2, c3, c4, p = skips
    for step, skip in ((model.to_p4, c4), (model.to_p3, c3), (model.to_p2, c2)):
        up = functional.interpolate(p, scale_factor=2, mode="bilinear")
        p = skip + step.smooth(step.reduce(up))
    return functional.interpolate(model.head(p), scale_factor=4, mode="bilinear")


def naive_block(block, x):
    """A residual block of torchvision's ResNet."""
    kept = x if block.downsample is None else convolved(*block.downsample, x)
    numbers = [number for number in (1, 2, 3) if hasattr(block, f"conv{number}")]
    for number in numbers:
        x = convolved(getattr(block, f"conv{number}"), getattr(block, f"bn{number}"), x)
        x = x if number == numbers[-1] else functional.relu(x)
    return functional.relu(x + kept)


def convolved(conv, norm, x):
    x = functional.conv2d(x, conv.weight, None, conv.stride, conv.padding)
    return FrozenBatchNorm2d.forward(norm, x) if isinstance(norm, FrozenBatchNorm2d) else norm(x)


def naive_focal_loss(probability, mask, options):
    """Claim 5, written out; the mean over the pixels that are not 255."""
    xi, gamma = options.focal_alpha, options.focal_gamma
    loss = torch.where(
        mask == 1,
        -xi * (1 - probability) ** gamma * torch.log(probability),
        -(1 - xi) * probability**gamma * torch.log(1 - probability),
    )
    return loss[mask != 255].mean()


def naive_fused_loss(model, part, options, fusion, t1=None):
    """Steps 2 and 3 in one graph; T1 of the tiles, (n, 1, s, s) probabilities, unless it is given."""
    t1 = torch.sigmoid(model(part.tiles)) if t1 is None and len(part.tiles) else t1
    t2 = torch.sigmoid(model(part.low))[0, 0]
    fused = t2.clone()
    for index, (row, column) in enumerate(part.row_col):
        small = t1[index, 0].reshape(8, 4, 8, 4).mean(dim=(1, 3))
        view = (slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
        fused[view] = FUSED[fusion](model, small, t2[view])
    return naive_focal_loss(fused, part.low_mask[0, 0], options)


def assert_same_gradients(expected, ours):
    for (name, a), b in zip(expected.named_parameters(), ours.parameters(), strict=True):
        if a.grad is None:
            assert b.grad is None or not b.grad.any(), name
        else:
            assert (a.grad - b.grad).norm() <= 1e-10 * a.grad.norm(), name


def naive_training(model, groups, options, schedule, epochs):
    """METHOD.md §4, all regions in their order, with Adam (Kingma & Ba, algorithm 1) written out.

    Each update is on the mean loss of a group of regions; the method's groups have one.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    m, v, n_updates = [0.0] * len(weights), [0.0] * len(weights), [0] * len(weights)

    def update(losses, rate):
        gradients = torch.autograd.grad(sum(losses) / len(losses), weights, allow_unused=True)
        rate *= min(1, (max(n_updates) + 1) / options.warmup_updates)
        for i, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            if gradient is None:
                continue
            n_updates[i] += 1
            m[i] = 0.9 * m[i] + 0.1 * gradient
            v[i] = 0.999 * v[i] + 0.001 * gradient**2
            step = m[i] / (1 - 0.9 ** n_updates[i]) / (torch.sqrt(v[i] / (1 - 0.999 ** n_updates[i])) + 1e-8)
            weight.data -= rate * step

    for epoch in range(epochs):
        rate = options.learning_rate / (1 + options.decay_rate * epoch)
        for parts in groups:
            update([naive_focal_loss(torch.sigmoid(model(part.low)), part.low_mask, options) for part in parts], rate)
            t1s = [None] * len(parts)
            if schedule == "sequential" and any(len(part.tiles) for part in parts):
                maps = [(torch.sigmoid(model(part.tiles)), part.tile_masks) for part in parts if len(part.tiles)]
                ready = iter([t1.detach() for t1, _ in maps])
                t1s = [next(ready) if len(part.tiles) else None for part in parts]
                update([naive_focal_loss(t1, mask, options) for t1, mask in maps], rate)
            pairs = zip(parts, t1s, strict=True)
            update([naive_fused_loss(model, part, options, "learned", t1) for part, t1 in pairs], rate)
