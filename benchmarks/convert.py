"""Which detectors can be converted to ONNX, OpenVINO and LiteRT, and how closely the results agree with the SavedModel.

    python benchmarks/convert.py [--only cnn clip] [--json benchmarks/convert.json] [--page docs/export.md]

Needs the extras onnx, openvino and litert. Each detector, with its initial weights, and with its head trained where it
stores features, is exported with `export --format` and compared on 8 images or videos of the embedded sample, which are larger
than the network's frames, so that the resizing is compared as well. A row has the largest difference of any output, or why there
is none. --page replaces the table in that page.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

FORMATS = ("onnx", "openvino", "litert")
ROW = "row: "  # begins the line that a process prints for its row
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
       for head in ("linear", "svm", "nearest", "prompts")},
    "fusion": ("image", "fusion", "--data.size", "64", "--detector.sets", "tiny@penultimate+patches:1", "cosines", "residuals",
               "spectrum"),
    "backbone": ("image", "backbone", "--data.size", "64", "--detector.network", "tiny", "--detector.weights", "none"),
    **{f"feature_oneclass, {model}": ("image", "feature_oneclass", "--data.size", "64", "--detector.model", model)
       for model in ("subspace", "nearest", "mixture", "vae")},
    "oc_ae": ("image", "oc_ae", "--data.size", "64"),
    "oc_fakedect": ("image", "oc_fakedect", "--data.size", "64"),
    "resnet_vae": ("image", "resnet_vae", "--data.size", "64", "--detector.weights", "none"),
    "inception": ("image", "inception", "--data.size", "80", "--detector.weights", "none"),
    "resnet50, --detector.attribute source": ("image", "resnet50", "--data.size", "64", "--detector.weights", "none",
                                              "--detector.attribute", "source"),
}  # fmt: skip


def untrained(words: Sequence[str], kind: str, folder: Path) -> None:
    """Write a run whose network keeps its initial weights, with test files, a calibration and a SavedModel."""
    import keras

    from tfdetect import artifact as artifacts
    from tfdetect import config, files
    from tfdetect.api.export import export_run

    keras.utils.set_random_seed(0)
    artifact, run = artifacts.Artifact(folder / "run"), config.parse(list(words), "train")
    artifacts.reset_folder(artifact, run)
    frames = run.data.frames if run.detector.input_kind == "clip" else 1
    run.detector.build((frames, run.data.size, run.data.size, 3)).save(artifact.model)
    files.write_json(artifact.calibration, {"slope": 2.0, "intercept": 0.25, "threshold": 0.5})
    rows = [f"{path},{int(path.parent.name == 'fake')},test" for path in sorted((folder / kind).glob("*/*.*"))]
    artifact.manifest.write_text("\n".join(["path,label,split", *rows]) + "\n")
    export_run(artifact.folder)


def convert_one(kind: str, *words: str) -> dict[str, str]:
    """Make a run, convert it to each format, and return what came out by format: a difference, or a reason."""
    from tfdetect import cli, config
    from tfdetect.api.export import Export, convert_run
    from tfdetect.workflow.agreement import ConversionError

    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), {}
        flags = [*words, "--data.path", f"{folder / kind}", "--data.cache_dir", f"{folder / 'cache'}", "--data.workers", "1"]
        if cli.main(["sample", "--kind", kind, "--out", f"{folder / kind}", *SAMPLE[kind]]):
            raise SystemExit("there is no sample")
        if not config.parse(flags, "train").detector.caches_features:
            untrained(flags, kind, folder)
        elif cli.main(["train", *flags, "--train.epochs", "1", "--out", name, "--name", "run"]):
            raise SystemExit(f"{' '.join(words)} was not trained")
        for form in FORMATS:
            try:
                found[form] = f"{convert_run(Export(folder / 'run', form, count=8)).told['compared']['largest']:.0e}"
            except ConversionError as error:
                found[form] = str(error)
        return found


def measure(names: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of detectors, which a process of their own measures, since a converter may end its process."""
    command = [sys.executable, __file__, "--one", *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        left = list(names)
        for line in process.stdout:
            if line.startswith(ROW):
                yield left.pop(0), json.loads(line.removeprefix(ROW))
    yield from ((name, dict.fromkeys(FORMATS, f"ended with exit code {process.returncode}")) for name in left)


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
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        for name in options.one:
            print(f"{ROW}{json.dumps(convert_one(*DETECTORS[name]))}", flush=True)
        return
    rows = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    wanted = [name for name in DETECTORS if (name.startswith(tuple(options.only)) if options.only else name not in rows)]
    for _, names in groupby(wanted, lambda name: name.partition(",")[0]):
        for name, row in measure(list(names)):
            rows[name] = row
            print(name, row, flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")
    rows = {name: rows[name] for name in DETECTORS if name in rows}
    print(table(rows))
    if options.page:
        before, _, rest = options.page.read_text().partition("<!-- table -->\n")
        options.page.write_text(f"{before}<!-- table -->\n{table(rows)}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}")


if __name__ == "__main__":
    main()
