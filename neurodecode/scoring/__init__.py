"""Scores of decoders of any modality: ranks, identification, intervals, permutation tests, noise ceilings."""

from neurodecode.scoring.ceiling import NoiseCeiling, ceiling_from_ncsnr, noise_ceiling, split_half_ceiling
from neurodecode.scoring.intervals import Interval, bootstrap_interval, hierarchical_interval
from neurodecode.scoring.n_way import Identification, n_way, win_share
from neurodecode.scoring.permutation import PermutationTest, binomial_p, identification_test, permutation_test
from neurodecode.scoring.r2 import TargetScores, score_targets
from neurodecode.scoring.retrieval import Retrieval, rank, retrieve, top_k
from neurodecode.scoring.similarity import SIMILARITIES, similarity_matrix

__all__ = [
    "SIMILARITIES",
    "Identification",
    "Interval",
    "NoiseCeiling",
    "PermutationTest",
    "Retrieval",
    "TargetScores",
    "binomial_p",
    "bootstrap_interval",
    "ceiling_from_ncsnr",
    "hierarchical_interval",
    "identification_test",
    "n_way",
    "noise_ceiling",
    "permutation_test",
    "rank",
    "retrieve",
    "score_targets",
    "similarity_matrix",
    "split_half_ceiling",
    "top_k",
    "win_share",
]
