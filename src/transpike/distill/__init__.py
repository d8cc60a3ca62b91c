"""Distillation: losses for any training loop, methods for our trainer, and taps that record features.

A method is a module. It is created from stages (pairs of taps) and called once for each batch:

    method(student_logits, teacher_logits, student_features, teacher_features, target) -> {name: weighted scalar}

The student's logits are [T, N, classes] or [N, classes], the teacher's [N, classes]. Features are mappings by tap: the
student's [T, N, C, H, W] or [N, C, H, W], the teacher's [N, C', H', W']. The target is class indices [N] or
probabilities [N, classes]. A method that brings the maps of both networks to one form also has `pairs(student_features,
teacher_features) -> {stage: (student maps, teacher maps)}`, the maps that it compares. `transpike analyze` uses it.
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
