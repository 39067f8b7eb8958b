"""The laws of steppers, as functions to be called on any of them."""

import torch


def pieces(stepper, state, sizes):
    """Run in pieces; return the logits of all steps, and the state."""
    logits = []
    for size in sizes:
        some, state = stepper.run(state, size)
        assert len(some) == size
        logits.append(some)
    return torch.cat(logits), state


def splits(n_steps):
    """Several ways to cut so many steps."""
    ways = [[n_steps], [1] * n_steps, [n_steps // 2, n_steps - n_steps // 2], [1, n_steps - 1], [n_steps - 1, 1]]
    return [[size for size in way if size] for way in ways]


def leave(stepper, x, n_steps, seed=0, *, size=None):
    """Let samples leave at random times, and the others change places; yield each piece's start, samples and logits.

    With pieces of one step the batch ends at one sample, and then at none.
    """
    generator = torch.Generator().manual_seed(seed)
    state = stepper.start(x)
    left = torch.arange(state.n_samples)
    age = 0
    while age < n_steps:
        k = min(size or int(torch.randint(1, 4, (), generator=generator)), n_steps - age)
        logits, state = stepper.run(state, k)
        yield age, left, logits
        age += k
        n_kept = (len(left) + 1) // 2 if age < n_steps - 2 else min(1, len(left))
        if age == n_steps - 1:
            n_kept = 0
        index = torch.randperm(len(left), generator=generator)[:n_kept]
        state, left = stepper.keep(state, index), left[index]


def dyadic(model, generator, scale=16):
    """Give a network weights that are small multiples of a power of two: their sums are exact in any order."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rsplit(".", 1)[-1] in ("weight", "bias"):
                parameter.copy_(torch.randint(-scale, scale + 1, parameter.shape, generator=generator) / scale)
    return model


def tensors_of(model):
    """What a module holds, by place, to see that a run leaves it as it was."""
    held = {}
    for name, module in model.named_modules():
        for place, value in {**vars(module), **module._buffers, **module._parameters}.items():
            if place.startswith("_") and place not in ("_memories", "_forward_hooks", "_forward_pre_hooks"):
                continue
            value = dict(value) if isinstance(value, dict) else value
            held[f"{name}.{place}"] = value
        held[f"{name}:parts"] = {key: id(part) for key, part in module._modules.items()}
    return held


def same(before, after):
    """Whether two of `tensors_of` hold the very same things."""
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(value, after[key]) for key, value in before.items())
    if isinstance(before, torch.Tensor):
        return before is after
    return before is after or before == after


def inputs_of(shape, inputs, seed=1, n_steps=7, n_samples=9):
    """Return the input of a stepper and the sequence it stands for; short binary fractions."""
    generator = torch.Generator().manual_seed(seed)
    if inputs == "static":
        x = torch.randint(-8, 9, (n_samples, *shape), generator=generator) / 8
        return x, x.expand(n_steps, *x.shape)
    x = torch.randint(-8, 9, (n_steps, n_samples, *shape), generator=generator) / 8
    return x, x


def check_laws(stepper, x, want, seeds=3):
    """Check that pieces are the whole run `want`, and that samples go on as if alone; exactly."""
    assert (want != want[:1]).any()  # something happens over time,
    assert (want != want[:, :1]).any()  # and not the same to all samples
    for sizes in splits(len(want)):
        assert torch.equal(pieces(stepper, stepper.start(x), sizes)[0], want)
    for seed in range(seeds):
        for age, left, logits in leave(stepper, x, len(want), seed, size=None if seed else 1):
            assert torch.equal(logits, want[age : age + len(logits), left])
    one = torch.tensor([3])
    state = stepper.run(stepper.start(x), 2)[1]
    assert torch.equal(stepper.run(stepper.keep(state, one), 3)[0], want[2:5, one])
