"""Which architectures convert? One small member of each family of timm and torchvision, with random weights.

    python benchmarks/architectures.py                  # all; hours on a processor, resumable
    python benchmarks/architectures.py --quick vit_tiny_patch16_224 tv:swin_t   # these, and only to the graph
    python benchmarks/architectures.py --defaults       # 47 of them under what is chosen by itself

Each runs in a process of its own, with one thread and a limit of time. Networks have random weights and the true
BatchNorm statistics of their inputs, noise: harder than trained ones, since nothing hides an error. A row says whether
it converted, or the cause; how far `snn.analog` is from the network, and above 1e-3 how far the network in float32 is
from itself in float64; how far the spikes are (relative error of the centred outputs); whether the network saved and
loaded computes the same bits; latency, seconds of one core, memory. Rows are written as they come to
benchmarks/results/architectures.jsonl, one a line; a name that stands there already is not run again. With --defaults,
16 noise images calibrate, 8 others test, and the file is architectures-defaults.jsonl.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

import transpike
from transpike.conversion import prepare
from transpike.conversion.trace import trace

RESULTS = Path(__file__).parent / "results"
LIMIT = 900
CLOSE = 1e-3
HIDDEN = 1e-3
DEFAULTS = {
    "default": transpike.CSS(),
    "one silence": transpike.CSS(silent=2, amplitude="layer"),
    "8 bits, not spiking": transpike.coding.Quantised(bits=8),
}
AT_64 = """
bat_resnext26ts:256 beit_base_patch16_224 botnet26t_256:256 caformer_s18 cait_xxs24_224 coat_lite_tiny
coatnet_pico_rw_224 convformer_s18 convit_tiny convmixer_768_32 convnext_atto convnextv2_atto crossvit_tiny_240:240
cs3darknet_s cspresnet50 darknet17 davit_tiny deit_tiny_patch16_224 deit_tiny_distilled_patch16_224
deit3_small_patch16_224 densenet121 dla34 dpn48b dm_nfnet_f0 eca_nfnet_l0 ecaresnet26t edgenext_xx_small
efficientformer_l1:224 efficientformerv2_s0 efficientnet_b0 efficientnet_b0_gn efficientnet_es
efficientnet_lite0 efficientvit_b0
efficientvit_m0:224 ese_vovnet19b_slim eva02_tiny_patch14_224:56 fasternet_t0 fastvit_t8 fbnetc_100 features:resnet18
focalnet_tiny_srf fpn:resnet18 gcvit_xxtiny:224 gernet_s ghostnet_050 ghostnetv2_100 ghostnetv3_050 gmlp_ti16_224
halonet26t:256 hardcorenas_a hgnet_tiny hgnetv2_b0 hiera_tiny_224:224 hrnet_w18_small inception_next_atto
inception_resnet_v2:96 inception_v3:96 inception_v4:96 lambda_resnet26t:256 lcnet_035 legacy_senet154 levit_128s:224
levit_conv_128s:224 mambaout_femto maxvit_pico_rw_256 mixer_s32_224 mixnet_s mnasnet_100 mnasnet_small
mobilenet_edgetpu_100 mobilenetv1_100 mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_blur_medium
mobilenetv4_conv_small_035 mobilenetv4_hybrid_medium mobileone_s0 mobilevit_xxs mobilevitv2_050 mvitv2_tiny
nasnetalarge:96 nest_tiny:224 nextvit_small nf_regnet_b0 nf_resnet26 pit_ti_224:224 pnasnet5large:96 poolformer_s12
poolformerv2_s12 pvt_v2_b0 rdnet_tiny regnetx_002 regnety_002 repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_14w_8s
resmlp_12_224 resnest14d resnet18 resnet18d resnet26 resnet26t resnet50 resnetblur18 resnetv2_18 resnetv2_50
resnetv2_50x1_bit resnext50_32x4d rexnet_100 seg:fcn_resnet50 seg:lraspp_mobilenet_v3_large selecsls42b semnasnet_050
sequencer2d_s:224 seresnet18 shvit_s1 skresnet18 starnet_s050 swiftformer_xs:224 swin_tiny_patch4_window7_224:56
swinv2_tiny_window8_256 swinv2_cr_tiny_224 tf_efficientnet_cc_b0_4e tf_efficientnet_lite0 tf_efficientnetv2_b0
tf_mobilenetv3_small_minimal_100 tiny_vit_5m_224 tinynet_e tnt_s_legacy_patch16_224:224 tresnet_m tv:alexnet
tv:convnext_tiny tv:googlenet tv:maxvit_t:224 tv:mobilenet_v2 tv:regnet_x_400mf tv:shufflenet_v2_x0_5 tv:squeezenet1_1
tv:swin_t tv:swin_v2_t tv:vgg11 tv:vit_b_32 twins_pcpvt_small twins_svt_small vgg11 video:r3d_18:32 video:s3d:224
visformer_tiny vit_base_patch16_rpn_224 vit_relpos_small_patch16_224 vit_tiny_patch16_224 vit_tiny_r_s16_p8_224
vitamin_small_224:64 volo_d1_224 vovnet39a xception41 xcit_nano_12_p16_224
"""

CONVOLUTIONAL = """
cspresnet50 darknet17 densenet121 dla34 efficientnet_es efficientnet_lite0 fbnetc_100 features:resnet18 fpn:resnet18
gernet_s hgnetv2_b0 hrnet_w18_small inception_v3 mnasnet_100 mobilenet_edgetpu_100 mobilenetv1_100 mobilenetv2_050
mobilenetv4_conv_blur_medium mobilenetv4_conv_small_035 mobileone_s0 nf_resnet26 regnetx_002 regnetx_004 repvgg_a0
resnet18 resnet18d resnet26 resnet26t resnet50 resnetblur18 resnetv2_18 resnetv2_50 resnext50_32x4d seg:fcn_resnet50
selecsls42b tf_efficientnet_lite0 tf_mobilenetv3_small_minimal_100 tv:alexnet tv:googlenet tv:mobilenet_v2
tv:regnet_x_400mf tv:shufflenet_v2_x0_5 tv:squeezenet1_1 tv:vgg11 video:r3d_18 vovnet39a xception41
"""


def names() -> dict[str, int]:
    """{name: size in pixels}."""
    found = {}
    for entry in AT_64.split():
        name, _, size = entry.rpartition(":")
        found.update({name: int(size)} if size.isdigit() else {entry: 64})
    return found


def build(name: str, size: int) -> tuple[nn.Module, Tensor]:
    """The network and noise images for it."""
    torch.manual_seed(0)
    kind, _, rest = name.rpartition(":")
    images = torch.randn(16, 3, size, size)
    if kind == "video":
        images = torch.randn(16, 3, 16 if rest == "s3d" else 8, size, size)
        return torchvision.models.get_model(rest, num_classes=10), images
    if kind in ("tv", "seg"):
        how = {"aux_logits": False} if rest == "googlenet" else {"weights_backbone": None} if kind == "seg" else {}
        model = getattr(torchvision.models if kind == "tv" else torchvision.models.segmentation, rest)(**how)
        if rest.startswith("vit"):
            model = torchvision.models.VisionTransformer(size, 32, 4, 4, 64, 128)
            nn.init.normal_(model.heads[-1].weight, std=0.02)
        return model, images
    if kind == "features":
        return timm.create_model(rest, features_only=True), images
    if kind == "fpn":
        backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(backbone_name=rest, weights=None)
        return backbone, images
    for how in ({"img_size": size, "num_classes": 10}, {"num_classes": 10}):
        try:
            model = timm.create_model(rest, **how)
            break
        except TypeError:
            continue
    for key, parameter in model.named_parameters():  # zeros, and nearly that, hide whole branches and outputs
        if parameter.abs().max() < HIDDEN and not key.endswith("bias"):
            one_axis = parameter.numel() == max(parameter.shape, default=1)
            nn.init.ones_(parameter) if one_axis else nn.init.normal_(parameter, std=0.02)
    return model, images


def with_statistics(model: nn.Module, images: Tensor) -> nn.Module:
    """BatchNorm's statistics are those of ``images``."""
    norms = [m for m in model.eval().modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        model(images)
    return model.eval()


def one(name: str, size: int, *, quick: bool, defaults: bool) -> dict[str, object]:
    """The row of one network."""
    started = time.process_time()
    model, images = build(name, size)
    model = with_statistics(model, images)
    if defaults:
        return chosen(model, images) | {"seconds": time.process_time() - started}
    try:
        if quick:
            graph = trace(model, images[:2])
            return {"result": "traced", "operations": len(graph.ops), "seconds": time.process_time() - started}
        snn = prepare(model, images[:4]).convert(transpike.CSS(steps=12, silent=2, percentile=100, amplitude="layer"))
        want, analog, got = (first(run, images[:4]) for run in (model, snn.analog, snn))
    except transpike.TranspikeError as error:
        return {"result": "refused", "cause": str(error), "seconds": time.process_time() - started}
    row: dict[str, Any] = {"result": "converted", "analog": error_of(analog, want, want)}
    if row["analog"] > CLOSE:
        exact = first(copy.deepcopy(model).double(), images[:4].double())
        row["float32"] = error_of(want, exact, exact)
    with tempfile.TemporaryDirectory() as folder:
        snn.save(f"{folder}/snn")
        again = transpike.load(f"{folder}/snn")
        row["loaded"] = all(
            torch.equal(first(run, images[:1]), first(twin, images[:1]))
            for run, twin in ((snn, again), (snn.analog, again.analog))
        )
    return row | {
        "error": error_of(got, want, want - want.mean(0, keepdim=True)),
        "latency": snn.latency,
        "neurons": len(snn.graph.neurons),
        "operations": len(snn.graph.ops),
        "seconds": time.process_time() - started,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def chosen(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Errors of what is chosen by itself, of one silence and one amplitude a layer, and of 8 bits, on other images."""
    prepared = prepare(model, images)
    fresh = torch.randn(images[:8].shape, generator=torch.Generator().manual_seed(1))
    want = first(model, fresh)
    row: dict[str, Any] = {"result": "converted"}
    for code, scheme in DEFAULTS.items():
        snn = prepared.convert(scheme)
        error = error_of(first(snn, fresh), want, want - want.mean(0, keepdim=True))
        row[code] = {"error": error, "latency": snn.latency}
    return row | {"error": row["default"]["error"]}


def first(network: Callable[[Tensor], object], images: Tensor) -> Tensor:
    """The first of a network's outputs."""
    with torch.no_grad():
        output: Tensor = torch.utils._pytree.tree_leaves(network(images))[0]
    return output


def error_of(got: Tensor, want: Tensor, scale: Tensor) -> float:
    return float((got - want).norm() / scale.norm().clamp_min(1e-12))


def run(name: str, size: int, *, quick: bool, defaults: bool, limit: float) -> dict[str, object]:
    """The row of one network, from a process of its own: a fork, so that libraries are read once."""
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)

    def answer() -> None:
        try:
            row = one(name, size, quick=quick, defaults=defaults)
        except Exception:
            row = {"result": "crashed", "cause": traceback.format_exc()[-600:]}
        writer.send(row)

    process = fork.Process(target=answer)
    process.start()
    writer.close()
    row: dict[str, object] = {"result": "timeout", "cause": f"more than {limit:g} s"}
    try:
        if reader.poll(limit):
            row = reader.recv()
    except EOFError:
        row = {"result": "crashed", "cause": "its process was killed"}
    process.kill()
    process.join()
    return {"name": name, "size": size} | row


def compared(rows: list[dict[str, Any]]) -> None:
    """Quartiles of the errors of both, and where what is chosen by itself is the worse."""
    for code in DEFAULTS:
        errors = torch.tensor([100 * row[code]["error"] for row in rows])
        least, median, most = errors.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        latency = statistics.median(row[code]["latency"] for row in rows)
        print(f"{code}: error {least:.2g}, {median:.2g}, {most:.2g} % (quartiles), median latency {latency:g}")
    for row in rows:
        if row["default"]["error"] > row["one silence"]["error"]:
            print(f"worse: {row['name']} {row['default']}, one silence {row['one silence']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", help="which; all if none")
    parser.add_argument("--quick", action="store_true", help="only trace and check the graph, without spikes")
    parser.add_argument("--defaults", action="store_true", help="what is chosen by itself, against one silence for all")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one network")
    parser.add_argument("--out", type=Path, help="benchmarks/results/architectures*.jsonl if not given")
    options = parser.parse_args()
    out = options.out or RESULTS / f"architectures{'-defaults' * options.defaults}.jsonl"
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    out.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    some = options.names or (CONVOLUTIONAL if options.defaults else "").split()
    wanted = {name: names().get(name, 64) for name in some} or names()
    for name, size in wanted.items():
        if all(row["name"] != name for row in rows):
            rows.append(run(name, size, quick=options.quick, defaults=options.defaults, limit=options.limit))
            with out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            cause = " ".join(str(rows[-1].get("cause", "")).splitlines()[:3])[:200]
            print(f"{name:40} {rows[-1]['result']:10} {rows[-1].get('error', ''):.6} {cause}", flush=True)
    results = [row["result"] for row in rows]
    print({result: results.count(result) for result in sorted(set(results))})
    if options.defaults:
        compared([row for row in rows if row["result"] == "converted"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
