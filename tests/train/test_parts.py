import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from transpike.data import EpochSampler
from transpike.train.batches import Passes, share
from transpike.train.losses import readout, temporal_efficient_loss
from transpike.train.mix import mix


@given(count=st.integers(1, 40), batch=st.integers(1, 9), world=st.integers(1, 5), by_index=st.booleans())
def test_each_process_takes_batches_of_its_own(count, batch, world, by_index):
    loader = DataLoader(TensorDataset(torch.arange(count)), batch_size=batch)
    loader = loader if by_index else list(loader)
    whole = [part.tolist() for (part,) in loader]
    shares = [share(loader, rank, world) for rank in range(world)]
    told = [[part.tolist() for (part,) in mine] for mine in shares]
    assert told == [whole[rank::world] for rank in range(world)]
    assert [len(mine) for mine in shares] == [len(mine) for mine in told]
    even = [list(share(loader, rank, world, even=True)) for rank in range(world)]
    assert {len(mine) for mine in even} == {len(whole) // world}


def test_a_loader_that_shares_itself_is_left_alone():
    data = TensorDataset(torch.arange(8))
    loader = DataLoader(data, sampler=DistributedSampler(data, num_replicas=2, rank=0))
    assert share(loader, 0, 2, even=True) is loader
    ours = DataLoader(data, sampler=EpochSampler(8))
    assert share(ours, 0, 2) is ours


@given(count=st.integers(1, 20), batch=st.integers(1, 5), world=st.integers(1, 5), drop=st.booleans())
def test_what_torch_repeats_for_even_shares_counts_once(count, batch, world, drop):
    data = TensorDataset(torch.arange(count))
    seen = []
    for rank in range(world):
        sampler = DistributedSampler(data, num_replicas=world, rank=rank, shuffle=False, drop_last=drop)
        mine = share(DataLoader(data, sampler=sampler, batch_size=batch), rank, world)
        batches = [part.tolist() for (part,) in mine]
        assert len(mine) == len(batches)
        seen += [index for part in batches for index in part]
    assert sorted(seen) == list(range(count // world * world if drop else count))


def test_a_pass_depends_on_seed_and_epoch_alone():
    loader = DataLoader(TensorDataset(torch.arange(50)), batch_size=10, shuffle=True)
    epoch = 0
    passes = Passes(loader, seed=1, epoch=lambda: epoch)

    def order():
        return [int(x) for (batch,) in passes for x in batch]

    first = order()
    torch.manual_seed(123)
    assert order() == first
    epoch = 1
    assert order() != first
    assert sorted(order()) == list(range(50))


def test_a_pass_goes_on_where_it_stopped_whatever_its_steps_drew():
    def drawing(x):
        return torch.stack([x, torch.rand(())])

    data = [torch.tensor(float(number)) for number in range(12)]
    loader = DataLoader(
        data, batch_size=2, shuffle=True, collate_fn=lambda batch: torch.stack([drawing(x) for x in batch])
    )

    def run(done):
        told = []
        for batch in Passes(loader, seed=1, epoch=lambda: 2, done=lambda: done):
            told.append((batch.tolist(), torch.rand(3).tolist()))
        return told

    assert run(4) == run(0)[4:]


def test_processes_draw_the_same_order_and_then_differ():
    loader = DataLoader(TensorDataset(torch.arange(50)), batch_size=10, shuffle=True)
    orders, numbers = [], []
    for rank in range(2):
        orders.append([batch[0].tolist() for batch in Passes(loader, seed=0, epoch=lambda: 0, rank=rank)])
        numbers.append(float(torch.rand(())))
    assert orders[0] == orders[1]
    assert numbers[0] != numbers[1]


@given(st.integers(0, 2**31), st.sampled_from([(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)]))
def test_the_target_of_a_mixture_is_what_the_image_is_made_of(seed, alphas):
    torch.manual_seed(seed)
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 7, 5)
    mixed, mixture = mix(images, mixup=alphas[0], cutmix=alphas[1])
    target = mixture.target(torch.arange(4), 4)
    # Image i is constant i, so its mean is the expected label.
    torch.testing.assert_close(mixed.mean((1, 2, 3)), target @ torch.arange(4.0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(target.sum(1), torch.ones(4))


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0)])
def test_frames_of_a_recording_mix_alike(alphas):
    images = torch.rand(5, 2, 6, 7)
    frames = torch.stack([images, 2 * images])
    torch.manual_seed(1)
    expected, one = mix(images, mixup=alphas[0], cutmix=alphas[1])
    torch.manual_seed(1)
    mixed, other = mix(frames, mixup=alphas[0], cutmix=alphas[1], dim=1)
    torch.testing.assert_close(mixed, torch.stack([expected, 2 * expected]))
    assert one.share == other.share


def test_cutmix_pastes_and_mixup_blends():
    torch.manual_seed(2)
    images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    pasted, _ = mix(images, cutmix=1.0)
    assert set(pasted.unique().tolist()) <= {0.0, 1.0}
    blended, mixture = mix(images, mixup=1.0)
    assert blended[1].unique().numel() == 1
    assert blended[1].mean().item() == pytest.approx(mixture.share if mixture.partner[1] == 0 else 1.0)


def test_tet_is_the_mean_over_steps_of_cross_entropies():
    torch.manual_seed(0)
    outputs, labels = torch.randn(3, 5, 4), torch.tensor([0, 1, 2, 3, 0])
    terms = temporal_efficient_loss(outputs, labels, lamb=0.2, phi=0.5)
    each = torch.stack([F.cross_entropy(step, labels) for step in outputs]).mean()
    assert terms["cross_entropy"].item() == pytest.approx(0.8 * each.item())
    assert terms["regulariser"].item() == pytest.approx(0.2 * ((outputs - 0.5) ** 2).mean().item())
    soft = temporal_efficient_loss(outputs, F.one_hot(labels, 4).float(), lamb=0.2, phi=0.5)
    assert soft["cross_entropy"].item() == pytest.approx(terms["cross_entropy"].item())


def test_readout_is_the_mean_over_time_in_float32():
    outputs = torch.randn(3, 2, 4, dtype=torch.bfloat16)
    torch.testing.assert_close(readout(outputs), outputs.float().mean(0))
    assert readout(outputs[0]).dtype == torch.float32
