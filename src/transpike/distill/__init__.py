"""Distillation: losses that serve in anyone's loop, methods that the trainer takes, taps for features.

A method is a module made of stages, pairs of taps, and called once a batch:

    method(student_logits, teacher_logits, student_features, teacher_features, target) -> {name: weighted scalar}

with logits [T, N, classes] or [N, classes] of the student and [N, classes] of the teacher; features by tap, the
student's [T, N, C, H, W] or [N, C, H, W] and the teacher's [N, C', H', W']; class indices [N] or probabilities
[N, classes]. One that brings maps of both networks to one form also says what it compares, `pairs(student_features,
teacher_features) -> {stage: (student maps, teacher maps)}`, which `transpike analyze` looks at.
"""

from transpike.distill.bispectrum import BiSpectrumDistillation, SRDDistillation, SSDDistillation
from transpike.distill.bsd import (
    SpectralResidual,
    SpectralResidualDistillation,
    SpectralSemanticDistillation,
    spectral_residual,
    spectral_semantic,
)
from transpike.distill.decoupled import DISTDistillation, DKDDistillation
from transpike.distill.features import BKDSNNDistillation, KDSNNDistillation, LaSNNDistillation, SAKDDistillation
from transpike.distill.hints import ATDistillation, FitNetDistillation, OFDDistillation
from transpike.distill.logits import LogitsDistillation, TKSDistillation, TLDDistillation, knowledge_distillation
from transpike.distill.map_losses import (
    band_loss,
    focal_frequency_loss,
    gaussian_frequency_loss,
    info_nce,
    pooled_info_nce,
)
from transpike.distill.matching import default_taps, match_taps, pair_taps
from transpike.distill.method import Method
from transpike.distill.methods import METHODS, check_method, create_method, method_needs
from transpike.distill.ofa import OFADistillation
from transpike.distill.refinement import DualStreamRefinement, WaveletRefinement
from transpike.distill.relations import CCDistillation, CRDDistillation, RKDDistillation
from transpike.distill.review import ReviewKDDistillation
from transpike.distill.sfkd import SFKDDistillation, SpatialFrequencyDistillation
from transpike.distill.taps import Stage, Tap, Taps, find_taps

__all__ = [
    "METHODS",
    "ATDistillation",
    "BKDSNNDistillation",
    "BiSpectrumDistillation",
    "CCDistillation",
    "CRDDistillation",
    "DISTDistillation",
    "DKDDistillation",
    "DualStreamRefinement",
    "FitNetDistillation",
    "KDSNNDistillation",
    "LaSNNDistillation",
    "LogitsDistillation",
    "Method",
    "OFADistillation",
    "OFDDistillation",
    "RKDDistillation",
    "ReviewKDDistillation",
    "SAKDDistillation",
    "SFKDDistillation",
    "SRDDistillation",
    "SSDDistillation",
    "SpatialFrequencyDistillation",
    "SpectralResidual",
    "SpectralResidualDistillation",
    "SpectralSemanticDistillation",
    "Stage",
    "TKSDistillation",
    "TLDDistillation",
    "Tap",
    "Taps",
    "WaveletRefinement",
    "band_loss",
    "check_method",
    "create_method",
    "default_taps",
    "find_taps",
    "focal_frequency_loss",
    "gaussian_frequency_loss",
    "info_nce",
    "knowledge_distillation",
    "match_taps",
    "method_needs",
    "pair_taps",
    "pooled_info_nce",
    "spectral_residual",
    "spectral_semantic",
]
