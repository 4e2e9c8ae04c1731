"""Which detectors can be converted to ONNX, OpenVINO and LiteRT, and how closely the results agree with the SavedModel.

    python benchmarks/convert.py [--only cnn clip] [--json benchmarks/convert.json] [--page docs/export.md]

Needs the extras onnx, openvino and litert. Each detector of the suite is trained for one epoch on 20 real and 20 fake images or
videos of the embedded sample, without pretrained weights, in a process of its own, and exported with `export --format`. The
frames are larger than the network's, so the resizing is compared as well. A row has the largest difference of any output, or why
there is none. --page replaces the table in that page.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

FORMATS = ("onnx", "openvino", "litert")
SAMPLE = {"image": ["--count", "20", "--size", "96"], "video": ["--count", "20", "--size", "96", "--frames", "8"]}
TINY_CLIP = ("--detector.preset", "tiny", "--data.size", "64")
# Name in the table: kind of files, and the words after `train`.
DETECTORS = {
    "cnn": ("image", "cnn", "--data.size", "64"),
    "cnn, --data.fit shortest_side": ("image", "cnn", "--data.size", "64", "--data.fit", "shortest_side"),
    "cnn, --data.fit pad": ("image", "cnn", "--data.size", "64", "--data.fit", "pad"),
    "cnn, --data.fit crop": ("image", "cnn", "--data.size", "64", "--data.fit", "crop"),
    "cnn, --data.fit crop --data.crops 5": ("image", "cnn", "--data.size", "64", "--data.fit", "crop", "--data.crops", "5"),
    **{f"cnn_lstm, {kind}": ("video", "cnn_lstm", "--data.size", "64", "--data.frames", "6", "--detector.temporal", kind)
       for kind in ("lstm", "gru", "bidirectional", "convolution", "attention")},
    "residual": ("image", "residual", "--data.size", "64"),
    "squeezenet": ("image", "squeezenet", "--data.size", "64", "--detector.weights", "none"),
    "mesonet, meso4": ("image", "mesonet", "--data.size", "64"),
    "mesonet, mesoinception4": ("image", "mesonet", "--data.size", "64", "--detector.variant", "mesoinception4"),
    **{f"clip, {head}": ("image", "clip", *TINY_CLIP, "--detector.head", head)
       for head in ("linear", "mlp", "logistic", "svm", "nearest", "triplet_svm", "prompts")},
    "fusion": ("image", "fusion", "--data.size", "64", "--detector.sets", "tiny@penultimate+patches:1", "cosines", "residuals",
               "spectrum"),
    "backbone": ("image", "backbone", "--data.size", "64", "--detector.network", "tiny", "--detector.weights", "none"),
    **{f"feature_oneclass, {model}": ("image", "feature_oneclass", "--data.size", "64", "--detector.model", model)
       for model in ("subspace", "mahalanobis", "nearest", "mixture", "vae")},
    "oc_ae": ("image", "oc_ae", "--data.size", "64"),
    "oc_fakedect": ("image", "oc_fakedect", "--data.size", "64"),
    "resnet_vae": ("image", "resnet_vae", "--data.size", "64", "--detector.weights", "none"),
    "inception": ("image", "inception", "--data.size", "80", "--detector.weights", "none"),
    "resnet50, --detector.attribute source": ("image", "resnet50", "--data.size", "64", "--detector.weights", "none",
                                              "--detector.attribute", "source"),
}  # fmt: skip


def convert_one(kind: str, *words: str) -> dict[str, str]:
    """Train a detector, convert it to each format, and return what came out by format: a difference, or a reason."""
    from tfdetect import cli
    from tfdetect.api.export import Export, convert_run
    from tfdetect.workflow.agreement import ConversionError

    with tempfile.TemporaryDirectory() as folder:
        flags = ["--data.path", f"{folder}/set", "--train.epochs", "1", "--out", folder, "--name", "run", "--data.cache_dir",
                 f"{folder}/cache"]  # fmt: skip
        if cli.main(["sample", "--kind", kind, "--out", f"{folder}/set", *SAMPLE[kind]]) or cli.main(["train", *words, *flags]):
            raise SystemExit(f"{' '.join(words)} was not trained")
        found = {}
        for name in FORMATS:
            try:
                found[name] = f"{convert_run(Export(Path(folder, 'run'), name)).told['compared']['largest']:.0e}"
            except ConversionError as error:
                found[name] = str(error)
        return found


def measure(name: str) -> dict[str, str]:
    """Return the row of a detector, which a process of its own measures: a converter may end its process."""
    done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True)
    with contextlib.suppress(IndexError, json.JSONDecodeError):
        return json.loads(done.stdout.splitlines()[-1])
    return dict.fromkeys(FORMATS, f"ended with exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")


def table(rows: dict[str, dict[str, str]]) -> str:
    """Return the rows as a table in Markdown; reasons follow it as notes."""
    lines, notes = ["| detector | ONNX | OpenVINO | LiteRT |", "|---|---|---|---|"], []
    for name, found in rows.items():
        cells = []
        for form in FORMATS:
            if not (text := found[form])[0].isdigit():
                notes += [text] * (text not in notes)
                text = f"**no** ({notes.index(text) + 1})"
            cells.append(text)
        lines.append(f"| `{name.partition(',')[0]}`{name[name.find(','):] if ',' in name else ''} | {' | '.join(cells)} |")
    return "\n".join([*lines, *(f"\n({number}) {note}" for number, note in enumerate(notes, 1))])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of the names in the table")
    parser.add_argument("--json", type=Path, help="rows that are in it already are kept unless --only names them")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(convert_one(*DETECTORS[options.one])))
        return
    rows = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for name in DETECTORS:
        if name not in rows if not options.only else name.startswith(tuple(options.only)):
            rows[name] = measure(name)
            print(name, rows[name], flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")
    rows = {name: rows[name] for name in DETECTORS if name in rows}
    print(table(rows))
    if options.page:
        before, _, rest = options.page.read_text().partition("<!-- table -->\n")
        options.page.write_text(f"{before}<!-- table -->\n{table(rows)}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}")


if __name__ == "__main__":
    main()
