"""What a run wrote, as frozen dataclasses: `read`, `write`, a version.

Two files of a run's folder are described here: ``run.json`` (`Run`), and ``results.json``, which is one of `Conversion`,
`Training`, `Evaluation` and `Analysis`. Reading names whatever is unknown, missing or of the wrong type, by file and path.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transpike.errors import DataError
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
from transpike.results.conversion import Ann, Calibration, Conversion, Layer, Row
from transpike.results.encoding import Encoding, Operations, Part, Rebuilt
from transpike.results.records import Mistake, from_json, to_json
from transpike.results.run import Hardware, Run
from transpike.results.stages import Bands, Energies, Features, Left, Picture, Similarity, Spectrum
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

