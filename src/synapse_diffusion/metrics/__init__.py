"""Scores and ideal observers: arrays in, figures out."""

from synapse_diffusion.metrics.alignment import align
from synapse_diffusion.metrics.classification import (
    Score,
    auc,
    classification_scores,
    confusion,
    from_confusion,
    permute_blocks,
    permute_units,
)
from synapse_diffusion.metrics.dynamics import (
    lda_log_probability,
    max_statistic_p,
    null_areas,
    null_ranks,
    ridge_scores,
    temporal_generalisation,
    time_resolved,
    time_resolved_ridge,
)
from synapse_diffusion.metrics.multiple import holm
from synapse_diffusion.metrics.observers import NoiseModel, Observer
from synapse_diffusion.metrics.questions import per_question, question_scores
from synapse_diffusion.metrics.retrieval import (
    bootstrap_interval,
    by_concept,
    calibrate,
    csls,
    fuse,
    hits,
    log_softmax,
    paired_difference,
    people_interval,
    ranks,
    retrieval_scores,
    sinkhorn,
)
from synapse_diffusion.metrics.similarity import (
    cross_validated_rdm,
    rdm,
    rsa,
    split_half_reliability,
)

__all__ = [
    "NoiseModel",
    "Observer",
    "Score",
    "align",
    "auc",
    "bootstrap_interval",
    "by_concept",
    "calibrate",
    "classification_scores",
    "confusion",
    "cross_validated_rdm",
    "csls",
    "from_confusion",
    "fuse",
    "hits",
    "holm",
    "lda_log_probability",
    "log_softmax",
    "max_statistic_p",
    "null_areas",
    "null_ranks",
    "paired_difference",
    "people_interval",
    "per_question",
    "permute_blocks",
    "permute_units",
    "question_scores",
    "ranks",
    "rdm",
    "retrieval_scores",
    "ridge_scores",
    "rsa",
    "sinkhorn",
    "split_half_reliability",
    "temporal_generalisation",
    "time_resolved",
    "time_resolved_ridge",
]
