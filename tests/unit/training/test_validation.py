"""The figures of validation; those of a whole run are in test_loop.py."""

from dataclasses import replace

import pytest
import torch
from lesionmap.network.model import LesionFPN
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.training.dataset import RegionDataset, RegionLoader
from lesionmap.training.validation import validate
from narrow_resnet import NARROW
from textbook import naive_fused_loss
from training_parts import passes, region, settings, store, tensors

SHARES = {0.5: 0.0, 0.25: -1.0986123, 0.75: 1.0986123, 0.0: -20.0, 1.0: 20.0}
CPU = torch.device("cpu")


def network(seed):
    torch.manual_seed(seed)
    model = LesionFPN(replace(NARROW, fusion="learned")).eval()
    torch.nn.init.normal_(model.head.weight, std=0.3)
    return model.double()


def naive_loss(seed, a, parts):
    """The mean over all judged pixels, of a network with a given weight."""
    model, total, n_pixels = network(seed), 0, 0
    model.fusion.a.fill_(a)
    for part in parts:
        judged = replace(tensors(part), low_mask=torch.from_numpy(part.judged_mask)[None, None])
        count = int((part.judged_mask != 255).sum())
        total += count * naive_fused_loss(model, judged, settings(), "learned").item()
        n_pixels += count
    return total / n_pixels


@torch.no_grad()
def test_a_learned_fusion_is_the_best_of_five_on_validation_slides(tmp_path, full_precision):
    parts = [region(0, 9), region(1, 4)]
    loader = RegionLoader(RegionDataset([store(tmp_path / "v.h5", *parts)]), CPU, with_tile_masks=False)
    winners = set()
    for seed in range(12):
        model = network(seed)
        with ThreadPool(2) as pool:
            row = validate(loader, passes(model, pool), settings())
        losses = {share: naive_loss(seed, a, parts) for share, a in SHARES.items()}
        best = min(losses, key=losses.__getitem__)
        assert row["val_fused_tile_weight"] == pytest.approx(best, abs=1e-6)
        assert row["val_fused_loss"] == pytest.approx(losses[best], rel=1e-6)
        assert torch.sigmoid(model.fusion.a).item() == pytest.approx(best, abs=1e-6)
        assert row["val_fused_loss"] <= row["val_low_loss"] * (1 + 1e-6)
        winners.add(best)
    assert len(winners) > 1
