"""Layouts of public data sets of generated images and videos.

Each layout is a function from a root folder to rows, preceded by the function that recognises it. Label 1 always means
fake, whatever the convention of the data set. Reals that ship with a generator have its name as their source, so false
alarms can be reported per generator.
"""

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd

from tfdetect.data.layouts.tree import Row, Tree, layout, list_media, nested_trees, to_table
from tfdetect.data.manifest import SPLIT_NAMES
from tfdetect.data.media.sniff import IMAGE_EXTENSIONS
from tfdetect.errors import UserError

CLASSES = {"airplane", "apple", "bedroom", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "church", "cow",
           "diningtable", "dog", "horse", "motorbike", "orange", "person", "pottedplant", "sheep", "sofa", "summer", "train",
           "tvmonitor", "winter", "zebra"}  # fmt: skip  # ForenSynths; one of them has the name of a split
UNIVERSAL_FAKES = {"guided", "ldm_100", "ldm_200", "ldm_200_cfg", "glide_100_10", "glide_100_27", "glide_50_27", "dalle"}
REAL_SETS = {"imagenet", "laion"}
DIFFUSION_SETS = ("lsun_bedroom", "imagenet", "celebahq")
GENVIDEO_GENERATORS = {"sora", "morphstudio", "gen2", "hotshot", "lavie", "show_1", "moonvalley", "crafter", "modelscope",
                       "wildscrape"}  # fmt: skip


def _is_artifact(tree: Tree) -> bool:
    headers = (tree.head(*parts, "metadata.csv").split("\n")[0].strip().split(",") for parts in tree.below(1))
    return any({"image_path", "target"} <= {*header} for header in headers)


@layout("SOURCE/metadata.csv with image_path,target", _is_artifact)
def artifact(root: Path) -> pd.DataFrame:
    """Read ArtiFact by its tables: target 0 is real, every other number is fake. https://arxiv.org/abs/2302.11970"""
    folders = [root] if (root / "metadata.csv").is_file() else [root / name for name in Tree(root).folders()]
    tables = [_read_metadata(folder / "metadata.csv") for folder in folders if (folder / "metadata.csv").is_file()]
    return pd.concat([to_table(()), *tables], ignore_index=True).fillna({"category": ""})


def _read_metadata(path: Path) -> pd.DataFrame:
    """Return the rows of one source. The first path determines which folder the paths are relative to."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    if missing := {"image_path", "target"} - {*table}:
        raise UserError(f"{path} lacks the columns {', '.join(sorted(missing))}; expected image_path,target.")
    codes, values = pd.factorize(table["target"])
    numbers = pd.to_numeric(pd.Series(values.astype(str)), errors="coerce")
    if numbers.isna().any():
        row = int((codes == numbers.isna().to_numpy().argmax()).argmax())
        raise UserError(f"{path}, row {row + 1}: target is {table['target'][row]!r}, expected 0 for real or another number.")
    name = table["image_path"][0] if len(table) else ""
    folders = (path.parent, path.parent.parent, path.parent.parent.parent)
    base = next((folder for folder in folders if os.path.exists(folder / name)), path.parent)
    paths = [os.path.join(base, name) for name in table["image_path"]]
    source = path.parent.absolute().name
    shown = {"category": table["category"]} if "category" in table else {}
    return pd.DataFrame({"path": paths, "label": (numbers != 0).astype("int64").to_numpy()[codes], "source": source,
                         "split": "", "group": "", **shown})  # fmt: skip


# --- 0_real and 1_fake -----------------------------------------------------------------------------------------------


def _is_universalfakedetect(tree: Tree) -> bool:
    names = {*tree.folders()}
    return bool(names & REAL_SETS and names & UNIVERSAL_FAKES)


@layout("imagenet, laion, ldm_200, glide_100_10 with 0_real or 1_fake", _is_universalfakedetect)
def universalfakedetect(root: Path) -> Iterator[Row]:
    """Read the diffusion sets of UniversalFakeDetect; imagenet and laion are the reals. https://arxiv.org/abs/2302.10174"""
    for row in _zero_one(root):
        name = next((part for part in Path(row.path).relative_to(root).parts if part in UNIVERSAL_FAKES | REAL_SETS), None)
        yield row if row.label is not None or name is None else row._replace(label=int(name in UNIVERSAL_FAKES), source=name)


def _is_forensynths(tree: Tree) -> bool:
    if any(_is_universalfakedetect(inner) for inner in nested_trees(tree.root)):  # it has this shape one level further down
        return False
    return any({"0_real", "1_fake"} & {*tree.folders(*parts)} for parts in tree.below(3))


@layout("GENERATOR/0_real, GENERATOR/1_fake", _is_forensynths)
def forensynths(root: Path) -> Iterator[Row]:
    """Read ForenSynths (CNNDetection): train, val and test; for some generators a level of classes, which become categories.
    https://arxiv.org/abs/1912.11035"""
    return _zero_one(root)


def _zero_one(root: Path) -> Iterator[Row]:
    """Yield rows labelled by the folder 0_real or 1_fake. Files whose paths differ only in that folder form a group, because
    the fake may be based on the real."""
    tree = Tree(root)
    for parts, folder, names in list_media(root):
        at = next((at for at, part in enumerate(parts) if part in ("0_real", "1_fake")), None)
        if at is None:
            yield from (Row(os.path.join(folder, name), None, "") for name in names)
            continue
        generator, split, category = _parse_folders(tree, parts[:at])
        for name in names:
            twin = "/".join((*parts[:at], *parts[at + 1 :], os.path.splitext(name)[0]))
            yield Row(os.path.join(folder, name), int(parts[at] == "1_fake"), generator, split, twin, category)


def _parse_folders(tree: Tree, above: tuple[str, ...]) -> tuple[str, str, str]:
    """Return (generator, split, class) from the folders above the label folder.

    The generator is the last folder that names neither class nor split, the split the first that names one, and the class
    is below the generator. A folder `train` beside classes is a class. Folders above the root count if the root is inside
    the tree.
    """
    chain = (*("", *tree.root.absolute().parts)[-2:], *above)
    splits = [SPLIT_NAMES.get(part, "") for part in chain]
    for at in range(2, len(chain)):
        if CLASSES - {*SPLIT_NAMES} & {*tree.folders(*chain[2:at])}:
            splits[at] = ""
    at = next((at for at in range(len(chain) - 1, 0, -1) if chain[at] not in CLASSES and chain[at] not in SPLIT_NAMES), 1)
    category = next((name for name, split in zip(chain[at + 1 :], splits[at + 1 :], strict=True) if not split), "")
    return chain[at], next(filter(None, splits[min(at, 2) - 1 :]), ""), category


# --- train and val, ai and nature ------------------------------------------------------------------------------------


def _is_genimage(tree: Tree) -> bool:
    return any({"ai", "nature"} & {*tree.folders(*parts, split)} for parts in tree.below(2) for split in ("train", "val"))


@layout("GENERATOR/train/ai, GENERATOR/val/nature", _is_genimage)
def genimage(root: Path) -> Iterator[Row]:
    """Read GenImage, one generator or all, with or without the level that its archives add. https://arxiv.org/abs/2306.08571"""
    for parts, folder, names in list_media(root):
        pairs = [at for at, pair in enumerate(pairwise(parts)) if pair[0] in ("train", "val") and pair[1] in ("ai", "nature")]
        if not pairs:
            yield from (Row(os.path.join(folder, name), None, "") for name in names)
            continue
        split, kind = parts[pairs[0] : pairs[0] + 2]
        folders = parts[: pairs[0]] or (root.absolute().name,)
        generator = next((part for part in folders if not part.startswith("imagenet_")), None)
        generator = generator or re.sub(r"^imagenet_(ai_\d+_)?", "", folders[0])
        yield from (Row(os.path.join(folder, name), int(kind == "ai"), generator, SPLIT_NAMES[split]) for name in names)


def _is_diffusionforensics(tree: Tree) -> bool:
    return any(tree.has(*above, split, name, "real") for above in ((), ("images",)) for split in ("train", "val", "test")
               for name in DIFFUSION_SETS)  # fmt: skip


@layout("images/train/lsun_bedroom/real", _is_diffusionforensics)
def diffusionforensics(root: Path) -> Iterator[Row]:
    """Read the images of DiffusionForensics (DIRE) without their reconstructions. https://arxiv.org/abs/2303.09295"""
    for parts, folder, names in list_media(root / "images" if (root / "images").is_dir() else root):
        known = len(parts) > 2 and parts[0] in SPLIT_NAMES
        for name in names:
            path = os.path.join(folder, name)
            if known:
                yield Row(path, int(parts[2] != "real"), parts[1 if parts[2] == "real" else 2], SPLIT_NAMES[parts[0]])
            else:
                yield Row(path, None, "")


# --- class folders of known sources ----------------------------------------------------------------------------------


def _has_only(tree: Tree, splits: set[str], classes: set[str]) -> bool:
    return {*tree.folders()} == splits and all({*tree.folders(split)} == classes for split in splits)


def _split_and_class(root: Path, real: str, fake: str) -> Iterator[Row]:
    """Yield rows of split/class/file, in any letter case, with the given sources."""
    for parts, folder, names in list_media(root):
        split, kind = (*(part.lower() for part in parts), "", "")[:2]
        label = {"real": 0, "fake": 1}.get(kind) if split in SPLIT_NAMES else None
        yield from (Row(os.path.join(folder, name), label, fake if label else real, SPLIT_NAMES.get(split, "")) for name in names)


def _is_cifake(tree: Tree) -> bool:
    has_names = any(re.fullmatch(r"\d{4}( \(\d+\))?\.jpg", name) for name in tree.files("test", "REAL"))
    return has_names and _has_only(tree, {"train", "test"}, {"REAL", "FAKE"})


@layout("train/REAL, train/FAKE, test/REAL, test/FAKE with 0000 (2).jpg", _is_cifake)
def cifake(root: Path) -> Iterator[Row]:
    """Read CIFAKE: CIFAR-10, and the same classes generated by Stable Diffusion 1.4. https://arxiv.org/abs/2303.14126"""
    return _split_and_class(root, "CIFAR-10", "StableDiffusion-1.4")


def _is_faces_140k(tree: Tree) -> bool:
    return tree.name == "real-vs-fake" and _has_only(tree, {"train", "valid", "test"}, {"real", "fake"})


@layout("real_vs_fake/real-vs-fake/{train,valid,test}/{real,fake}", _is_faces_140k)
def faces_140k(root: Path) -> Iterator[Row]:
    """Read 140k Real and Fake Faces: Flickr faces (FFHQ) and StyleGAN. Labels come from the folders; in its tables 1 is real."""
    return _split_and_class(root, "FFHQ", "StyleGAN")


def _is_deepfake_and_real(tree: Tree) -> bool:
    return tree.name == "Dataset" and _has_only(tree, {"Train", "Validation", "Test"}, {"Real", "Fake"})


@layout("Dataset/{Train,Validation,Test}/{Real,Fake}", _is_deepfake_and_real)
def deepfake_and_real(root: Path) -> Iterator[Row]:
    """Read the data set "Deepfake and real images": faces cropped from OpenForensics."""
    return _split_and_class(root, "OpenForensics", "OpenForensics")


def _is_genvideo(tree: Tree) -> bool:
    return "Real" in tree.folders() and any(name.lower() in GENVIDEO_GENERATORS for name in tree.folders("Fake"))


@layout("Real, Fake/Sora, Fake/ModelScope", _is_genvideo)
def genvideo(root: Path) -> Iterator[Row]:
    """Read the validation set of GenVideo; the frames of one folder are one video. https://arxiv.org/abs/2405.19707"""
    for parts, folder, names in list_media(root):
        kind = parts[0].lower() if parts else ""
        label = {"real": 0, "fake": 1}.get(kind)
        source, top = (parts[1], 2) if label and len(parts) > 1 else (parts[0] if parts else "", 1)
        video = "/".join(parts) if len(parts) > top else ""
        for name in names:
            group = video if name.lower().endswith(IMAGE_EXTENSIONS) else ""
            yield Row(os.path.join(folder, name), label, source, "", group)


def _is_community_forensics(tree: Tree) -> bool:
    inner = [{name.lower() for name in tree.folders(folder)} for folder in tree.folders()]
    has_classes = all(names and names <= {"real", "fake"} for names in inner) and any("fake" in names for names in inner)
    return len(inner) > 1 and has_classes and not {name.lower() for name in tree.folders()} & {*SPLIT_NAMES, "real", "fake"}


@layout("GENERATOR/real, GENERATOR/fake", _is_community_forensics)
def community_forensics(root: Path) -> Iterator[Row]:
    """Read Community Forensics. As in class folders, files of one name form a group, because one may be based on the other.
    https://arxiv.org/abs/2411.04125"""
    for parts, folder, names in list_media(root):
        label = {"real": 0, "fake": 1}.get(parts[1].lower()) if len(parts) > 1 else None
        for name in names:
            twin = "/".join((*parts[:1], *parts[2:], os.path.splitext(name)[0]))
            yield Row(os.path.join(folder, name), label, parts[0] if parts else "", "", twin)
