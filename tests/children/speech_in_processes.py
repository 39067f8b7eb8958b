"""Training a decoder of speech on several processes, each with its share of every batch.

As a script it trains in the process group that the environment describes, and rank 0 saves what came out:
python speech_in_processes.py STUDY OUT, where STUDY holds the arguments of `SpeechDecoder.fit`, pickled.
"""

import dataclasses
import pickle
import sys
from pathlib import Path

import torch
from fakes import speech

from neurodecode.meeg.speech import SpeechDecoder
from neuroloaders.runs import world

# No batch normalisation, which on CPUs is of each share by itself, and no draws that differ between processes.
CONFIG = dataclasses.replace(
    speech.CONFIG,
    network=dataclasses.replace(speech.NETWORK, batch_norm=False, dropout_radius=0.0),
    epochs=2,
    batch_size=49,
)


def train(loss, study):
    """Return the weights, the history and the temperature."""
    decoder = SpeechDecoder(dataclasses.replace(CONFIG, loss=loss)).fit(*study, device="cpu")
    rows = [{key: row[key] for key in ("train_loss", "valid_loss", "valid_top_1")} for row in decoder.history_.rows]
    return {"weights": dict(decoder.module_.state_dict()), "rows": rows, "temperature": decoder.temperature_}


def main(study, out):
    """Train with both losses; rank 0 writes."""
    torch.set_num_threads(1)
    study = pickle.loads(Path(study).read_bytes())
    found = {loss: train(loss, study) for loss in ("paper", "symmetric")}
    if world()[0] == 0:
        torch.save(found, out)
    # Together, and not at exit: a process whose peer has gone may be aborted while its threads end.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
