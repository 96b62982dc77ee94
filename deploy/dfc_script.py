"""Compile the bundle in this folder with Hailo's Dataflow Compiler 3.x. Stands alone: needs numpy and the compiler only.

For the Pythons of all its releases, 3.8 to 3.12.

python compile.py --check            the files are whole; model.tflite gives the expected outputs (needs LiteRT)
python compile.py                    parse, optimise, quantise, compile; a .har is kept after each stage
python compile.py --allow-downgrade  go on when the compiler lowers its optimisation or the width of weights
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import traceback
from importlib import metadata
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
STOPPED = "compile.py: stopped: "
DOWNGRADES = re.compile(
    r"reducing optimization level|assigning 4.?bit weight|(?:calibration|calib).*(?:less|fewer) than", re.I
)


class Refused(Exception):
    """One sentence for the person who runs this."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--allow-downgrade", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        bundle = json.loads((HERE / "bundle.json").read_text())
        check_files(bundle)
        if options.check:
            say(f"{len(bundle['files'])} files are whole")
            check_outputs(bundle)
        elif options.child:
            compile_bundle(bundle)
        else:
            watch(bundle, options.allow_downgrade)
    except Refused as refusal:
        sys.exit(f"{STOPPED}{refusal}")
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)


def check_files(bundle):
    for name, digest in bundle["files"].items():
        path = HERE / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise Refused(f"{name}: missing or changed since the bundle was made; copy the bundle again")


def check_outputs(bundle):
    """The cut model on normalised crops against the outputs that the original gave."""
    try:
        from ai_edge_litert import interpreter as lite
    except ImportError:
        try:
            from tensorflow import lite  # the compiler brings it
        except ImportError as error:
            raise Refused(f"--check needs LiteRT ({error}); pip install ai-edge-litert, or leave it out") from error
    interpreter = lite.Interpreter(str(HERE / "model.tflite"))
    runner = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
    entry = next(iter(runner.get_input_details()))
    crops, expected = read_expected(bundle)
    rows = [runner(**{entry: normalised(bundle, crops[i : i + 1])}) for i in range(len(crops))]
    for head, values in expected.items():
        worst = float(max(np.abs(row[head][0] - value).max() for row, value in zip(rows, values)))
        if worst > bundle["limits"]["native_difference"]:
            raise Refused(f"{head}: model.tflite differs from the original by {worst:.2g}")
        say(f"{head}: {len(values)} crops give the expected outputs, largest difference {worst:.1e}")


def watch(bundle, allow_downgrade):
    """Compile in a child whose whole output is kept in log.txt and read for silent downgrades as it comes."""
    command = [sys.executable, str(HERE / "compile.py"), "--child"]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    downgrades, last = [], ""
    (HERE / "result.json").unlink(missing_ok=True)
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with (HERE / "log.txt").open("w") as log, subprocess.Popen(command, cwd=HERE, **piped) as child:
        try:
            for line in child.stdout:
                log.write(line)
                sys.stdout.write(line)
                if DOWNGRADES.search(line):
                    downgrades.append(line.strip())
                    if not allow_downgrade:
                        raise Refused(
                            f"the compiler downgraded silently: {line.strip()!r}; --allow-downgrade lets it pass"
                        )
                last = line.strip()
        except BaseException:
            child.kill()
            raise
    if child.returncode:  # known once the block is left: Popen waits there
        if last.startswith(STOPPED):
            sys.exit(child.returncode)  # it has said why
        raise Refused(f"the compiler ended with code {child.returncode}, see log.txt")
    part = HERE / "result.part.json"
    result = {**json.loads(part.read_text()), "downgrades": downgrades}
    part.write_text(json.dumps(result, indent=2) + "\n")
    part.replace(HERE / "result.json")


def compile_bundle(bundle):
    # TensorFlow's TF32 (Ampere GPUs and later) alone makes 0.003 of difference: hence this, and a limit of 0.05; wrong
    # normalisation makes 2.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    try:
        from hailo_sdk_client import ClientRunner, InferenceContext
    except ImportError as error:
        raise Refused(
            f"the Dataflow Compiler is not here ({error}); install its wheel from hailo.ai on x86-64"
        ) from error
    gates = {}
    crops, expected = read_expected(bundle)
    calibration = np.load(HERE / "calibration.npy")
    runner = ClientRunner(hw_arch=bundle["arch"])

    stage("parse", lambda: runner.translate_tf_model(str(HERE / "model.tflite"), bundle["net_name"]))
    runner.save_har(str(HERE / "1_parsed.har"))
    native = infer(runner, InferenceContext.SDK_NATIVE, normalised(bundle, crops))
    order = match_heads(native, expected, bundle["limits"]["native_difference"])
    runner.load_model_script((HERE / "model.alls").read_text())
    stage("optimise in full precision", lambda: runner.optimize_full_precision(calib_data=calibration))
    optimised = infer(runner, InferenceContext.SDK_FP_OPTIMIZED, crops)
    gates["fp_optimized"] = gate(bundle, "agreement", optimised, order, expected)
    runner.save_har(str(HERE / "2_optimised.har"))

    stage("quantise", lambda: runner.optimize(calibration))
    runner.save_har(str(HERE / "3_quantised.har"))
    quantised = infer(runner, InferenceContext.SDK_QUANTIZED, crops)
    gates["quantized"] = gate(bundle, "quantised_agreement", quantised, order, expected)

    hef = stage("compile", runner.compile)
    runner.save_har(str(HERE / "4_compiled.har"))
    write_result(bundle, runner, hef, order, gates)


def stage(name, work):
    say(f"{name} ...")
    try:
        return work()
    except Exception as error:
        traceback.print_exc()
        raise Refused(f"{name} failed: {type(error).__name__}: {' '.join(str(error).split())}") from error


def read_expected(bundle):
    content = np.load(HERE / "expected.npz")
    return content["crops"], {head["name"]: content[head["name"]] for head in bundle["heads"]}


def normalised(bundle, crops):
    return (crops.astype(np.float32) * np.float32(bundle["scale"]) + np.float32(bundle["offset"])).astype(np.float32)


def infer(runner, context, crops):
    """Outputs of the emulated network as a list of (N, C), in the compiler's order."""
    with runner.infer_context(context) as session:
        outputs = runner.infer(session, crops)
    outputs = list(outputs.values()) if isinstance(outputs, dict) else outputs
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    return [np.asarray(output).reshape(len(crops), -1) for output in outputs]


def match_heads(outputs, expected, limit):
    """Which output belongs to which head, by its values: names and order do not survive the parser."""
    order = {}
    for head, values in expected.items():
        fits = [np.abs(o - values).max() if o.shape == values.shape else np.inf for o in outputs]
        best = int(np.argmin(fits))
        if not fits[best] <= limit:
            raise Refused(
                f"parse: no output agrees with head {head} (nearest differs by {fits[best]:.3g}); wrong normalization?"
            )
        order[head] = best
    if len(set(order.values())) != len(order):
        raise Refused(f"parse: two heads match the same output: {order}")
    say(f"native emulation agrees with the original; outputs by head: {order}")
    return order


def gate(bundle, name, outputs, order, expected):
    """How often the emulated network decides as the original; Refused below the limit of that name."""
    limit, even = bundle["limits"][name], 0.5 if bundle["emits"] == "probabilities" else 0
    figures = {}
    for head, values in expected.items():
        ours = outputs[order[head]]
        decide = (lambda v: v[:, 0] > even) if values.shape[1] == 1 else (lambda v: v.argmax(1))
        agreement = float(np.mean(decide(ours) == decide(values)))
        figures[head] = {
            "agreement": agreement,
            "mean_difference": float(np.abs(ours - values).mean()),
            "n": len(values),
        }
        say(f"{head}: agreement {agreement:.1%} over {len(values)} crops, limit {limit:.0%}")
        if agreement < limit:
            raise Refused(
                f"{head}: the emulated network agrees on {agreement:.1%} of {len(values)} crops, expected {limit:.0%}"
            )
    return figures


def write_result(bundle, runner, hef, order, gates):
    names = runner.get_hn_dict()["net_params"]["output_layers_order"]
    path = HERE / f"{bundle['net_name']}_{bundle['arch']}.hef"
    part = path.with_suffix(".hef.part")
    with part.open("wb") as file:
        file.write(hef)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    result = {
        "hef": path.name,
        "sha256": hashlib.sha256(hef).hexdigest(),
        "bytes": len(hef),
        "arch": bundle["arch"],
        "compiler": version("hailo_dataflow_compiler", "hailo-dataflow-compiler"),
        "runtime": version("hailort"),
        "outputs": {head: names[index] for head, index in order.items()},
        "gates": gates,
    }
    (HERE / "result.part.json").write_text(json.dumps(result, indent=2) + "\n")
    say(f"wrote {path.name}, {len(hef):,} bytes")


def version(*names):
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def say(text):
    sys.stdout.write(f"compile.py: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
