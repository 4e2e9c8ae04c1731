"""Public sets of generated images and videos, each by the tree that it ships in.

A layout is a function from its root to rows, with what it is known by above it. 1 is always fake, whatever the set's own
convention. Reals that ship with a generator carry its name: so the false alarms on its own reals are told from others'.
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
           "tvmonitor", "winter", "zebra"}  # fmt: skip  # of ForenSynths; one of them is called like a split
UNIVERSAL = {"guided", "ldm_100", "ldm_200", "ldm_200_cfg", "glide_100_10", "glide_100_27", "glide_50_27", "dalle"}
REAL_SETS = {"imagenet", "laion"}
DIFFUSION_SETS = ("lsun_bedroom", "imagenet", "celebahq")
GENVIDEO = {"sora", "morphstudio", "gen2", "hotshot", "lavie", "show_1", "moonvalley", "crafter", "modelscope", "wildscrape"}


def _artifact(tree: Tree) -> bool:
    headers = (tree.head(*parts, "metadata.csv").split("\n")[0].strip().split(",") for parts in tree.below(1))
    return any({"image_path", "target"} <= {*header} for header in headers)


@layout("SOURCE/metadata.csv with image_path,target", _artifact)
def artifact(root: Path) -> pd.DataFrame:
    """ArtiFact, by its tables alone: target 0 is real, every other number fake. https://arxiv.org/abs/2302.11970"""
    folders = [root] if (root / "metadata.csv").is_file() else [root / name for name in Tree(root).folders()]
    tables = [_metadata(folder / "metadata.csv") for folder in folders if (folder / "metadata.csv").is_file()]
    return pd.concat([to_table(()), *tables], ignore_index=True)


def _metadata(path: Path) -> pd.DataFrame:
    """The rows of one source. Where its paths start is seen by the first of them."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    if missing := {"image_path", "target"} - {*table}:
        raise UserError(f"{path} lacks the column(s) {', '.join(sorted(missing))}; expected image_path,target.")
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
    return pd.DataFrame({"path": paths, "label": (numbers != 0).astype("int64").to_numpy()[codes], "source": source,
                         "split": "", "group": ""})  # fmt: skip


# --- 0_real and 1_fake -----------------------------------------------------------------------------------------------


def _universal(tree: Tree) -> bool:
    names = {*tree.folders()}
    return bool(names & REAL_SETS and names & UNIVERSAL)


@layout("imagenet, laion, ldm_200, glide_100_10 with 0_real or 1_fake", _universal)
def universalfakedetect(root: Path) -> Iterator[Row]:
    """UniversalFakeDetect's diffusion sets: imagenet and laion are the reals of all. https://arxiv.org/abs/2302.10174"""
    for row in _zero_one(root):
        name = next((part for part in Path(row.path).relative_to(root).parts if part in UNIVERSAL | REAL_SETS), None)
        yield row if row.label is not None or name is None else row._replace(label=int(name in UNIVERSAL), source=name)


def _forensynths(tree: Tree) -> bool:
    if any(_universal(inner) for inner in nested_trees(tree.root)):  # its shape, a level further down
        return False
    return any({"0_real", "1_fake"} & {*tree.folders(*parts)} for parts in tree.below(3))


@layout("GENERATOR/0_real, GENERATOR/1_fake", _forensynths)
def forensynths(root: Path) -> Iterator[Row]:
    """ForenSynths of CNNDetection: train, val and test, some generators with a level of classes, which are the categories.
    https://arxiv.org/abs/1912.11035"""
    return _zero_one(root)


def _zero_one(root: Path) -> Iterator[Row]:
    """Label by the folder 0_real or 1_fake. Files that differ in nothing but it are one group: one may be made of the other."""
    tree = Tree(root)
    for parts, folder, names in list_media(root):
        at = next((at for at, part in enumerate(parts) if part in ("0_real", "1_fake")), None)
        if at is None:
            yield from (Row(os.path.join(folder, name), None, "") for name in names)
            continue
        generator, split, category = _generator(tree, parts[:at])
        for name in names:
            twin = "/".join((*parts[:at], *parts[at + 1 :], os.path.splitext(name)[0]))
            yield Row(os.path.join(folder, name), int(parts[at] == "1_fake"), generator, split, twin, category)


def _generator(tree: Tree, above: tuple[str, ...]) -> tuple[str, str, str]:
    """(generator, split, class) by the folders above the label: the last that names neither class nor split, the first that
    names a split, and a class below the generator. A folder `train` among classes is a class. Where the tree begins below
    them, its own path says them."""
    chain = (*("", *tree.root.absolute().parts)[-2:], *above)
    splits = [SPLIT_NAMES.get(part, "") for part in chain]
    for at in range(2, len(chain)):
        if CLASSES - {*SPLIT_NAMES} & {*tree.folders(*chain[2:at])}:
            splits[at] = ""
    at = next((at for at in range(len(chain) - 1, 0, -1) if chain[at] not in CLASSES and chain[at] not in SPLIT_NAMES), 1)
    category = next((name for name, split in zip(chain[at + 1 :], splits[at + 1 :], strict=True) if not split), "")
    return chain[at], next(filter(None, splits[min(at, 2) - 1 :]), ""), category


# --- train and val, ai and nature ------------------------------------------------------------------------------------


def _genimage(tree: Tree) -> bool:
    return any({"ai", "nature"} & {*tree.folders(*parts, split)} for parts in tree.below(2) for split in ("train", "val"))


@layout("GENERATOR/train/ai, GENERATOR/val/nature", _genimage)
def genimage(root: Path) -> Iterator[Row]:
    """GenImage, one generator or all, with or without the level that downloads add. https://arxiv.org/abs/2306.08571"""
    for parts, folder, names in list_media(root):
        pairs = [at for at, pair in enumerate(pairwise(parts)) if pair[0] in ("train", "val") and pair[1] in ("ai", "nature")]
        if not pairs:
            yield from (Row(os.path.join(folder, name), None, "") for name in names)
            continue
        split, kind = parts[pairs[0] : pairs[0] + 2]
        places = parts[: pairs[0]] or (root.absolute().name,)
        generator = next((part for part in places if not part.startswith("imagenet_")), None)
        generator = generator or re.sub(r"^imagenet_(ai_\d+_)?", "", places[0])
        yield from (Row(os.path.join(folder, name), int(kind == "ai"), generator, SPLIT_NAMES[split]) for name in names)


def _diffusion_sets(tree: Tree) -> bool:
    return any(tree.has(*above, split, name, "real") for above in ((), ("images",)) for split in ("train", "val", "test")
               for name in DIFFUSION_SETS)  # fmt: skip


@layout("images/train/lsun_bedroom/real", _diffusion_sets)
def diffusionforensics(root: Path) -> Iterator[Row]:
    """DiffusionForensics of DIRE: the images; their reconstructions are no data. https://arxiv.org/abs/2303.09295"""
    for parts, folder, names in list_media(root / "images" if (root / "images").is_dir() else root):
        known = len(parts) > 2 and parts[0] in SPLIT_NAMES
        for name in names:
            path = os.path.join(folder, name)
            if known:
                yield Row(path, int(parts[2] != "real"), parts[1 if parts[2] == "real" else 2], SPLIT_NAMES[parts[0]])
            else:
                yield Row(path, None, "")


# --- class folders with a known content ------------------------------------------------------------------------------


def _each(tree: Tree, splits: set[str], classes: set[str]) -> bool:
    return {*tree.folders()} == splits and all({*tree.folders(split)} == classes for split in splits)


def _split_class(root: Path, real: str, fake: str) -> Iterator[Row]:
    """split/class/file, in any letter case; the sources are known."""
    for parts, folder, names in list_media(root):
        split, kind = (*(part.lower() for part in parts), "", "")[:2]
        label = {"real": 0, "fake": 1}.get(kind) if split in SPLIT_NAMES else None
        yield from (Row(os.path.join(folder, name), label, fake if label else real, SPLIT_NAMES.get(split, "")) for name in names)


def _cifake(tree: Tree) -> bool:
    alike = any(re.fullmatch(r"\d{4}( \(\d+\))?\.jpg", name) for name in tree.files("test", "REAL"))
    return alike and _each(tree, {"train", "test"}, {"REAL", "FAKE"})


@layout("train/REAL, train/FAKE, test/REAL, test/FAKE with 0000 (2).jpg", _cifake)
def cifake(root: Path) -> Iterator[Row]:
    """CIFAKE: CIFAR-10, and the same classes by Stable Diffusion 1.4. https://arxiv.org/abs/2303.14126"""
    return _split_class(root, "CIFAR-10", "StableDiffusion-1.4")


def _faces_140k(tree: Tree) -> bool:
    return tree.name == "real-vs-fake" and _each(tree, {"train", "valid", "test"}, {"real", "fake"})


@layout("real_vs_fake/real-vs-fake/{train,valid,test}/{real,fake}", _faces_140k)
def faces_140k(root: Path) -> Iterator[Row]:
    """140k Real and Fake FaceSettings: Flickr faces (FFHQ) and StyleGAN. Its tables say 1 for real; the folders decide here."""
    return _split_class(root, "FFHQ", "StyleGAN")


def _deepfake_and_real(tree: Tree) -> bool:
    return tree.name == "Dataset" and _each(tree, {"Train", "Validation", "Test"}, {"Real", "Fake"})


@layout("Dataset/{Train,Validation,Test}/{Real,Fake}", _deepfake_and_real)
def deepfake_and_real(root: Path) -> Iterator[Row]:
    """The set called Deepfake and real images: faces cut out of OpenForensics."""
    return _split_class(root, "OpenForensics", "OpenForensics")


def _genvideo(tree: Tree) -> bool:
    return "Real" in tree.folders() and any(name.lower() in GENVIDEO for name in tree.folders("Fake"))


@layout("Real, Fake/Sora, Fake/ModelScope", _genvideo)
def genvideo(root: Path) -> Iterator[Row]:
    """GenVideo's validation: Fake/<generator>. Frames of one folder are one video. https://arxiv.org/abs/2405.19707"""
    for parts, folder, names in list_media(root):
        kind = parts[0].lower() if parts else ""
        label = {"real": 0, "fake": 1}.get(kind)
        source, top = (parts[1], 2) if label and len(parts) > 1 else (parts[0] if parts else "", 1)
        video = "/".join(parts) if len(parts) > top else ""
        for name in names:
            group = video if name.lower().endswith(IMAGE_EXTENSIONS) else ""
            yield Row(os.path.join(folder, name), label, source, "", group)


def _communities(tree: Tree) -> bool:
    inner = [{name.lower() for name in tree.folders(folder)} for folder in tree.folders()]
    whole = all(names and names <= {"real", "fake"} for names in inner) and any("fake" in names for names in inner)
    return len(inner) > 1 and whole and not {name.lower() for name in tree.folders()} & {*SPLIT_NAMES, "real", "fake"}


@layout("GENERATOR/real, GENERATOR/fake", _communities)
def community_forensics(root: Path) -> Iterator[Row]:
    """Community Forensics. As in class folders, files of one name are one group: they may be twins.
    https://arxiv.org/abs/2411.04125"""
    for parts, folder, names in list_media(root):
        label = {"real": 0, "fake": 1}.get(parts[1].lower()) if len(parts) > 1 else None
        for name in names:
            twin = "/".join((*parts[:1], *parts[2:], os.path.splitext(name)[0]))
            yield Row(os.path.join(folder, name), label, parts[0] if parts else "", "", twin)
