"""export: re-export the SavedModel of a run, or convert the run to ONNX, OpenVINO or LiteRT."""

import sys
from collections.abc import Sequence

from tfdetect import config, files
from tfdetect.api.export import Converted, Export, convert_run, export_run
from tfdetect.workflow import hub
from tfdetect.workflow.agreement import TOLERANCE, ConversionError
from tfdetect.workflow.console import console


def main(argv: Sequence[str]) -> int:
    """Parse the flags, and export or convert; 1 if the run cannot be converted."""
    args = config.parse_flags(Export, argv, "export")
    if args.push_to_hub:
        return hub.run(args.run, args.push_to_hub, args.yes, args.private)
    if args.format == "saved_model":
        return export(args)
    try:
        report(convert_run(args))
    except ConversionError as error:
        print(f"tfdetect export: {files.printable(str(error))}", file=sys.stderr)
        return 1
    return 0


def export(args: Export) -> int:
    """Re-export the SavedModel, and print its signatures."""
    folder, signatures = export_run(args.run, args.trust)
    from tfdetect.serving.export import SERVING_NOTES

    console.print(f"SavedModel  {folder}, described in {folder.parent / SERVING_NOTES}")
    for name, description in signatures.items():
        console.print(f"  {name}: {description}")
    return 0


def report(result: Converted) -> None:
    """Print where a converted detector is, how it compares with the SavedModel, and what int8 costs."""
    from tfdetect.serving.convert_notes import describe_cost

    told = result.told
    compared, size = told["compared"], files.format_bytes(result.size)
    console.print(f"Converted  {result.folder / told['file']} ({size}); README.md beside it says how to call it")
    before = " before quantization" if told["quantized"] else ""
    differences = ", ".join(f"{name} {value:.1g}" for name, value in compared["differences"].items() if value)
    console.print(f"Compared   with the SavedModel on {files.plural(compared['files'], 'file')}{before}; allowed {TOLERANCE:g}, "
                  f"largest differences: {differences or 'none'}")  # fmt: skip
    if told["quantized"]:
        console.print(f"Quantized  {describe_cost(told['quantized'], told['file'])}")
