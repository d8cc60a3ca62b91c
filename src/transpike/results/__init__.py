"""The files of a run as frozen dataclasses: `read`, `write`, a version.

Two files of a run's folder are described here: ``run.json`` (`Run`), and ``results.json``, which is a `Conversion`, a
`Training`, an `Evaluation`, an `Analysis` or `Findings`. Errors of reading name every field that is unknown, missing or
of the wrong type, by file and path.
"""

from transpike.results.analysis import (
    Analysis,
    Filter,
    HeatMap,
    LogitCurve,
    LogitRow,
    Logits,
    Network,
    Neuron,
    Saliency,
    Shown,
    SpikeSpectrum,
)
from transpike.results.conversion import Ann, Calibration, Conversion, Early, Layer, Pictured, Row, Spikes, Try
from transpike.results.encoding import Encoding, Operations, Part, Rebuilt
from transpike.results.finetuning import Finetuning, Schedule, Timed
from transpike.results.folder import VERSION, Finished, Result, as_json, read, read_result, read_run, write
from transpike.results.limits import Limits
from transpike.results.provenance import provenance
from transpike.results.run import Hardware, Run
from transpike.results.runs import RunFolder, copy_results, located, resumable, resume_run, start_run
from transpike.results.stages import Bands, Energies, Features, Left, Picture, Similarity, Spectrum
from transpike.results.study import Arm, Findings, Mean, MeanAt, Outcome
from transpike.results.training import (
    AtSteps,
    Distillation,
    Epoch,
    Evaluation,
    FiringLayer,
    Spiking,
    Stage,
    Training,
)

__all__ = [
    "VERSION",
    "Analysis",
    "Ann",
    "Arm",
    "AtSteps",
    "Bands",
    "Calibration",
    "Conversion",
    "Distillation",
    "Early",
    "Encoding",
    "Energies",
    "Epoch",
    "Evaluation",
    "Features",
    "Filter",
    "Findings",
    "Finetuning",
    "Finished",
    "FiringLayer",
    "Hardware",
    "HeatMap",
    "Layer",
    "Left",
    "Limits",
    "LogitCurve",
    "LogitRow",
    "Logits",
    "Mean",
    "MeanAt",
    "Network",
    "Neuron",
    "Operations",
    "Outcome",
    "Part",
    "Picture",
    "Pictured",
    "Rebuilt",
    "Result",
    "Row",
    "Run",
    "RunFolder",
    "Saliency",
    "Schedule",
    "Shown",
    "Similarity",
    "Spectrum",
    "SpikeSpectrum",
    "Spikes",
    "Spiking",
    "Stage",
    "Timed",
    "Training",
    "Try",
    "as_json",
    "copy_results",
    "located",
    "provenance",
    "read",
    "read_result",
    "read_run",
    "resumable",
    "resume_run",
    "start_run",
    "write",
]
