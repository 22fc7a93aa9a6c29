"""Density maps: which layers, and where in the frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rrm_extract.config import JobConfig
from rrm_extract.errors import LayerError
from rrm_extract.graph import Op, Program, fold_batch_norm, trace
from rrm_extract.jobs import make_recipe
from rrm_extract.models import Letterbox, Preprocess, load_model
from rrm_extract.report.show.density import DensityMaps, painted_layers, pixel_density
from rrm_extract.report.show.heat import View, heat_colours, paint
from rrm_extract.report.show.network import PaintedNetwork
from rrm_extract.rrm import RecurrentNetwork
from tests.report import mixing
from tests.rrm.videos import moving_frames
from tests.tiny import MODEL


def network() -> Program:
    """Two blocks with batch-norms; sides are halved twice, so cells cover whole pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential()
        module.add_module(
            "one",
            nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
            ),
        )
        module.add_module(
            "two", nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        )
        module.add_module("three", nn.Conv2d(8, 8, 1))
        module.add_module("flat", nn.Flatten())
        module.add_module("fc", nn.Linear(8 * 8 * 8, 5))
    return fold_batch_norm(trace(module.eval()))


def maps(program: Program, name: str | None) -> tuple[DensityMaps, RecurrentNetwork]:
    recurrent = RecurrentNetwork(program, threshold=0.05)
    recurrent.step(torch.zeros(3, 32, 32))
    costs = dict(zip([op.name for op in program.linear_ops], recurrent.stats(), strict=True))
    macs = {op: costs[op].macs for op in painted_layers(program, name)}
    density = DensityMaps(macs, (32, 32))
    recurrent.reset()
    recurrent.observe(density.see)
    return density, recurrent


def test_names_of_layers_and_modules() -> None:
    program = network()
    first, second, third, last = (op.name for op in program.linear_ops)
    assert painted_layers(program, None) == (first, second, third, last)
    assert painted_layers(program, "one.0") == painted_layers(program, "one") == (first,)
    assert painted_layers(program, first) == (first,)
    assert painted_layers(program, "three") == (third,)
    assert painted_layers(program, "fc") == (last,)


@pytest.mark.parametrize("name", ["flat", "on", "two.1", "nothing"])
def test_a_layer_without_deltas(name: str) -> None:
    with pytest.raises(LayerError, match=f"layer '{name}' has no deltas.*such as "):
        painted_layers(network(), name)


def test_a_layer_without_pixels() -> None:
    density, recurrent = maps(network(), "fc")
    recurrent.run(moving_frames(2, 32))
    with pytest.raises(LayerError, match="fc reads numbers without a place"):
        density.take()


def test_one_layer_is_shown_cell_by_cell() -> None:
    density, recurrent = maps(network(), "two")
    recurrent.run(moving_frames(2, 32))
    assert density.take().shape == (2, 16, 16)


def test_the_mean_of_the_map_is_the_share_of_work() -> None:
    program = network()
    density, recurrent = maps(program, None)
    _, seen = recurrent.run(moving_frames(5, 32))
    found = density.take()
    assert found.shape == (5, 32, 32)
    assert found.dtype == np.float32
    macs = np.array([cost.macs for cost in recurrent.stats()][:3], float)
    shares = np.where(
        seen.key_frame.numpy()[:, None], 1, seen.density_delta.numpy()[:, :3]
    )  # the fully-connected layer has no pixels
    assert found.mean((1, 2)) == pytest.approx(shares @ macs / macs.sum(), rel=1e-5)
    assert (found[0] == 1).all()
    assert 0 < found[1:].mean() < 0.9
    _, seen = recurrent.run(moving_frames(5, 32)[4:])  # the same frame again
    assert density.take().max() == seen.work.max() == 0


def test_frames_that_are_taken_one_after_the_other() -> None:
    program = trace(mixing.network())
    together, run = maps(program, None)
    apart, step = maps(program, None)
    frames = moving_frames(5, 32)
    run.run(frames)
    each = []
    for frame in frames:
        step.run(frame[None])
        each.append(apart.take())
    found = together.take()
    assert found.shape == (5, 32, 32)
    assert np.array_equal(found, np.concatenate(each))
    assert len({float(density.mean()) for density in found}) == 5
    assert (found[0] == 1).all()
    with pytest.raises(LayerError, match="reads numbers without a place"):
        together.take()  # all frames were taken


def test_an_interrupted_run_leaves_nothing_to_paint() -> None:
    config = JobConfig(model=MODEL, engine="torch", threshold=0.2)
    recipe = make_recipe(load_model(MODEL), config)
    frames = moving_frames(3, 32)
    painted = PaintedNetwork(recipe, None, (32, 32))
    see = painted._maps.see

    def interrupted(op: Op, deltas: Tensor, dense: Tensor) -> None:
        see(op, deltas, dense)
        raise KeyboardInterrupt

    painted._network.observe(interrupted)  # type: ignore[union-attr]
    with pytest.raises(KeyboardInterrupt):
        painted.run(frames)
    painted._network.observe(see)  # type: ignore[union-attr]
    painted.reset()
    (_, again), _ = painted.run(frames[1:])
    (_, expected), _ = PaintedNetwork(recipe, None, (32, 32)).run(frames[1:])
    assert np.array_equal(again, expected)


def test_maps_of_several_sizes_stay_on_their_device() -> None:
    program = network()
    first, second = program.linear_ops[:2]
    density = DensityMaps({first.name: 2, second.name: 1}, (32, 32))
    density.see(first, torch.ones(2, 1, 3, 32, 32, device="meta"), torch.tensor([True, False]))
    density.see(second, torch.ones(2, 1, 4, 16, 16, device="meta"), torch.tensor([True, False]))
    # A device without numbers: nothing but the copy of the sum is refused.
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        density.take()


def test_channels_last() -> None:
    program = fold_batch_norm(trace(nn.Linear(4, 2)))
    deltas = torch.zeros(1, 1, 2, 3, 4)
    deltas[0, 0, 1, 2, :3] = 1
    found = pixel_density(program.linear_ops[0], deltas)
    assert found is not None
    assert found.tolist() == [[[0, 0, 0], [0, 0, 0.75]]]
    assert pixel_density(program.linear_ops[0], torch.ones(1, 1, 7, 4)) is None


def test_lanes_are_averaged() -> None:
    program = fold_batch_norm(trace(nn.Conv2d(2, 2, 1)))
    deltas = torch.zeros(1, 2, 2, 1, 1)
    deltas[0, 1, 0] = 1
    found = pixel_density(program.linear_ops[0], deltas)
    assert found is not None
    assert found.tolist() == [[[0.25]]]


def test_a_crop_paints_what_it_sees() -> None:
    transform = Preprocess(resize=8, crop=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
    view = View.of(transform, (8, 8), height=16, width=32)
    assert (view.left, view.top, view.right, view.bottom) == (8, 0, 24, 16)
    assert view.is_part_of(16, 32)
    density = np.zeros((4, 4), np.float32)
    density[1, 3] = 1
    spread = view.spread(density, 16, 32)
    assert spread.shape == (16, 32)
    rows, columns = np.nonzero(spread)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 7, 20, 23)
    assert (spread > 0).sum() == 16


def test_a_letterbox_sees_more_than_the_frame() -> None:
    transform = Letterbox(size=(32, 32))
    view = View.of(transform, (32, 32), height=16, width=32)
    assert (view.left, view.right) == (0, 32)
    assert (view.top, view.bottom) == (-8, 24)
    assert not view.is_part_of(16, 32)
    density = np.zeros((4, 4), np.float32)
    density[1] = 0.5  # rows 8 to 16 of the input are rows 0 to 8 of the frame
    spread = view.spread(density, 16, 32)
    assert (spread[:8] == 0.5).all()
    assert not spread[8:].any()


def test_nothing_changed_is_not_painted() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    density = np.zeros((6, 5), np.float32)
    assert np.array_equal(paint(image, density), image)
    density[2, 3] = 1e-4
    density[4, 1] = 1
    changed = (paint(image, density) != image).any(-1)
    assert set(zip(*np.nonzero(changed), strict=True)) == {(2, 3), (4, 1)}


def test_more_is_painted_more() -> None:
    grey = np.full((1, 50, 3), 128, np.uint8)
    painted = paint(grey, np.linspace(0, 1, 50, dtype=np.float32)[None]).astype(int)
    far = np.abs(painted - 128).sum(-1)[0]
    assert far[0] == 0 < far[1]
    assert far[-1] > 100
    assert len(np.unique(heat_colours(np.linspace(0, 1, 4, dtype=np.float32)), axis=0)) == 4
