"""The contrastive loss over several processes, each with its share of a batch.

As a script it runs every case in the process group that the environment describes, and rank 0 saves what came out:
python clip_loss_in_processes.py OUT
"""

import sys

import torch
from torch import nn

from neurodecode.meeg import ClipLoss, candidate_norms
from neuroloaders.runs import world

N_FEATURES = (3, 4)
TABLE = torch.randn(9, *N_FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = torch.randn(8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
STIMULI = torch.tensor([0, 1, 2, 3, 1, 5, 0, 7])  # 0 and 1 twice, on two processes
EXTRA = torch.tensor([8, 3])
# Rows of each of two processes: even, and uneven as in a last batch.
SHARES = {"even": (4, 4), "uneven": (5, 3)}
# name -> (options of the loss, candidates are looked up, there are more of them than estimates, known norms)
CASES = {
    "paper": ({"form": "paper"}, True, False, False),
    "paper, tensors": ({"form": "paper"}, False, False, False),
    "paper, more candidates, norms": ({"form": "paper"}, True, True, True),
    "paper, tensors, more candidates, norms": ({"form": "paper"}, False, True, True),
    "paper, unmasked": ({"form": "paper", "mask_duplicates": False}, True, False, False),
    "symmetric": ({"form": "symmetric"}, True, False, False),
    "symmetric, tensors, more candidates": ({"form": "symmetric"}, False, True, False),
    "alone": ({"form": "paper", "gather": False}, True, False, False),
}


class Net(nn.Module):
    """A linear decoder, a linear map of the features where these are trained too, and the loss."""

    def __init__(self, options):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.decoder = nn.Parameter(torch.randn(6, 12, generator=generator, dtype=torch.float64))
        self.features = nn.Parameter(torch.randn(12, generator=generator, dtype=torch.float64))
        self.loss = ClipLoss(**options).double()

    def forward(self, x, stimuli, looked_up, with_norms):
        estimates = (x @ self.decoder).unflatten(1, N_FEATURES)
        if looked_up:
            norms = candidate_norms(TABLE)
            lookup = TABLE.index_select
            return self.loss(
                estimates, lambda i: lookup(0, i), stimuli, norms=(lambda i: norms[i]) if with_norms else None
            )
        candidates = TABLE[stimuli] * self.features.view(N_FEATURES)
        return self.loss(estimates, candidates, stimuli, norms=candidate_norms(candidates) if with_norms else None)


def run_case(name, first, last):
    """Return loss and gradients of the rows first..last; extra candidates come with the first row and the last."""
    options, looked_up, extra, norms = CASES[name]
    net = Net(options)
    stimuli = STIMULI[first:last]
    if extra:
        own = [EXTRA[:1]] if first == 0 else []
        own += [EXTRA[1:]] if last == len(X) else []
        stimuli = torch.cat([stimuli, *own])
    loss = net(X[first:last], stimuli, looked_up, norms)
    loss.backward()
    return {"loss": loss.detach(), "gradients": {n: p.grad for n, p in net.named_parameters() if p.grad is not None}}


def main(out):
    """Run everything; rank 0 writes what all ranks found."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = world()[0]
    found = {}
    for share, sizes in SHARES.items():
        first = sum(sizes[:rank])
        found[share] = {name: run_case(name, first, first + sizes[rank]) for name in CASES}
    everything = [None] * world()[2]
    torch.distributed.all_gather_object(everything, found)
    if rank == 0:
        torch.save(everything, out)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
