"""Each public data set as a miniature tree: recognised, with 1 = fake, and with the official splits."""

import json

import pytest
from planted import label_split_source, plant, rows

from tfdetect.data.layouts import detect
from tfdetect.data.layouts.tree import LAYOUTS, nested_trees

# data set -> its files: path | label split source; a path alone is a file that is not data
TREES = {
    "faceforensics": """
        original_sequences/youtube/c23/videos/000.mp4 | 0 train youtube
        original_sequences/youtube/c23/videos/003.MP4 | 0 train youtube
        original_sequences/youtube/c23/videos/071.mp4 | 0 validation youtube
        manipulated_sequences/Deepfakes/c23/videos/000_003.mp4 | 1 train Deepfakes
        manipulated_sequences/Face2Face/c23/videos/000_003.mp4 | 1 train Face2Face
        manipulated_sequences/Deepfakes/c23/videos/071_054.mp4 | 1 validation Deepfakes
        manipulated_sequences/Deepfakes/masks/videos/000_003.mp4
        README.md
        FaceForensics.zip
    """,
    "dfd": """
        original_sequences/actors/c23/videos/01__walk.mp4 | 0 - actors
        original_sequences/actors/c23/videos/03__talk.mp4 | 0 - actors
        manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walk__ABCDEFGH.mp4 | 1 - DeepFakeDetection
    """,
    "celeb_df": """
        Celeb-real/id0_0000.mp4 | 0 test Celeb-real
        Celeb-real/id5_0000.mp4 | 0 train Celeb-real
        YouTube-real/00170.mp4 | 0 test YouTube-real
        YouTube-real/00171.mp4 | 0 train YouTube-real
        Celeb-synthesis/id0_id1_0000.mp4 | 1 test Celeb-synthesis
        Celeb-synthesis/id5_id6_0000.mp4 | 1 train Celeb-synthesis
    """,
    "dfdc": """
        dfdc_train_part_0/a.mp4 | 1 train DFDC
        dfdc_train_part_0/b.mp4 | 0 train DFDC
        dfdc_train_part_1/c.mp4 | 0 train DFDC
    """,
    "dfdc_preview": """
        method_A/1/a.mp4 | 1 train method_A
        method_B/3/b.mp4 | 1 test method_B
        original_videos/1/c.mp4 | 0 train original_videos
        method_A/1/unknown.mp4
    """,
    "df40": """
        blendface/ff/000_003/001.png | 1 - blendface
        simswap/ff/000_003/001.png | 1 - simswap
        simswap/cdf/id0_id1_0000/001.png | 1 - simswap
        heygen/real/x.mp4 | 0 - heygen
        heygen/fake/y.mp4 | 1 - heygen
    """,
    "forensynths": """
        train/progan/car/0_real/1.png | 0 train progan
        train/progan/car/1_fake/1.png | 1 train progan
        train/progan/train/0_real/1.png | 0 train progan
        test/progan/car/1_fake/1.png | 1 test progan
        test/biggan/0_real/a.png | 0 test biggan
        test/biggan/1_fake/b.png | 1 test biggan
        test/biggan.zip
    """,
    "universalfakedetect": """
        diffusion_datasets/imagenet/0_real/a.png | 0 - imagenet
        diffusion_datasets/laion/0_real/a.png | 0 - laion
        diffusion_datasets/ldm_200/1_fake/a.png | 1 - ldm_200
        diffusion_datasets/dalle/1_fake/a.png | 1 - dalle
        diffusion_datasets/guided/b.png | 1 - guided
    """,
    "genimage": """
        ADM/imagenet_ai_0508_adm/train/ai/1.PNG | 1 train ADM
        ADM/imagenet_ai_0508_adm/val/nature/n.JPEG | 0 validation ADM
        glide/train/ai/1.png | 1 train glide
        glide/train/nature/n.JPEG | 0 train glide
    """,
    "diffusionforensics": """
        images/train/lsun_bedroom/real/a.jpg | 0 train lsun_bedroom
        images/train/lsun_bedroom/adm/a.png | 1 train adm
        images/test/imagenet/adm/b.png | 1 test adm
        images/val/celebahq/real/c.jpg | 0 validation celebahq
        recons/train/lsun_bedroom/real/a.png
        dire/train/lsun_bedroom/adm/a.png
    """,
    "cifake": """
        train/REAL/0000.jpg | 0 train CIFAR-10
        train/FAKE/1000 (2).jpg | 1 train StableDiffusion-1.4
        test/REAL/0001 (10).jpg | 0 test CIFAR-10
        test/FAKE/9.jpg | 1 test StableDiffusion-1.4
    """,
    "artifact": """
        afhq/images/0.jpg | 0 - afhq
        big_gan/1.jpg | 1 - big_gan
        cycle_gan/a.jpg | 0 - cycle_gan
        cycle_gan/b.jpg | 1 - cycle_gan
        pro_gan/p.jpg | 1 - pro_gan
    """,
    "faces_140k": """
        real_vs_fake/real-vs-fake/train/real/1.jpg | 0 train FFHQ
        real_vs_fake/real-vs-fake/train/fake/1.jpg | 1 train StyleGAN
        real_vs_fake/real-vs-fake/valid/real/2.jpg | 0 validation FFHQ
        real_vs_fake/real-vs-fake/valid/fake/2.jpg | 1 validation StyleGAN
        real_vs_fake/real-vs-fake/test/real/3.jpg | 0 test FFHQ
        real_vs_fake/real-vs-fake/test/fake/3.jpg | 1 test StyleGAN
        valid.csv
        test.csv
    """,
    "deepfake_and_real": """
        Dataset/Train/Real/real_1.jpg | 0 train OpenForensics
        Dataset/Train/Real/real_2.jpg | 0 train OpenForensics
        Dataset/Train/Fake/fake_1.jpg | 1 train OpenForensics
        Dataset/Train/Fake/fake_2.jpg | 1 train OpenForensics
        Dataset/Validation/Real/real_1.jpg | 0 validation OpenForensics
        Dataset/Validation/Real/real_2.jpg | 0 validation OpenForensics
        Dataset/Validation/Fake/fake_1.jpg | 1 validation OpenForensics
        Dataset/Validation/Fake/fake_2.jpg | 1 validation OpenForensics
        Dataset/Test/Real/real_1.jpg | 0 test OpenForensics
        Dataset/Test/Real/real_2.jpg | 0 test OpenForensics
        Dataset/Test/Fake/fake_1.jpg | 1 test OpenForensics
        Dataset/Test/Fake/fake_2.jpg | 1 test OpenForensics
    """,
    "genvideo": """
        Real/v1.mp4 | 0 - Real
        Fake/Sora/s1.mp4 | 1 - Sora
        Fake/Crafter/v1/0.jpg | 1 - Crafter
        Fake/Crafter/v1/1.jpg | 1 - Crafter
        Fake/Crafter/v2/0.jpg | 1 - Crafter
    """,
    "community_forensics": """
        sd-turbo/real/1.png | 0 - sd-turbo
        sd-turbo/fake/1.png | 1 - sd-turbo
        kandinsky/fake/1.png | 1 - kandinsky
    """,
}

PARTS = {"a.mp4": {"label": "FAKE", "split": "train", "original": "b.mp4"}, "b.mp4": {"label": "REAL", "split": "train"}}
PREVIEW = {
    "method_A/1/a.mp4": {"label": "fake", "set": "train", "target_id": 1, "swapped_id": 2},
    "method_B/3/b.mp4": {"label": "fake", "set": "test", "target_id": 3, "swapped_id": 4},
    "original_videos/1/c.mp4": {"label": "real", "set": "train", "target_id": 1, "swapped_id": None},
}
TESTING = "1 Celeb-real/id0_0000.mp4\n1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"  # here 1 is real
HEAD = "filename,image_path,target,category\n"
LISTS = {
    "faceforensics": {"splits/train.json": '[["000", "003"]]', "splits/val.json": '[["071", "054"]]', "splits/test.json": "[]"},
    "celeb_df": {"List_of_testing_videos.txt": TESTING},
    "dfdc": {
        "dfdc_train_part_0/metadata.json": json.dumps(PARTS),
        "dfdc_train_part_1/metadata.json": json.dumps({"c.mp4": {"label": "REAL", "split": "train"}}),
    },
    "dfdc_preview": {"dataset.json": json.dumps(PREVIEW)},
    "artifact": {
        "afhq/metadata.csv": HEAD + "0.jpg,images/0.jpg,0,cat\n",
        "big_gan/metadata.csv": HEAD + "1.jpg,1.jpg,1,x\n",
        "cycle_gan/metadata.csv": HEAD + "a.jpg,a.jpg,0,x\nb.jpg,b.jpg,2,x\n",
        "pro_gan/metadata.csv": HEAD + "p.jpg,p.jpg,6,x\n",
    },
    "faces_140k": {"train.csv": "id,label,label_str,path\n1,1,real,train/real/1.jpg\n"},  # here 1 is real, too
}


def parse_tree(text, lists):
    """Return (files, {file: (label, split, source)}) of a tree above."""
    lines = [line.strip().split(" | ") for line in text.strip().splitlines()]
    columns = {name: text.split() for name, *rest in lines for text in rest}
    expected = {name: (int(label), split.strip("-"), source) for name, (label, split, source) in columns.items()}
    return [*(name for name, *_ in lines), *lists.items()], expected


SETS = {name: parse_tree(text, LISTS.get(name, {})) for name, text in TREES.items()}


@pytest.fixture(params=SETS)
def planted(request, tmp_path):
    """Return (name, root, expected rows) of each data set."""
    files, expected = SETS[request.param]
    plant(tmp_path, *files)
    return request.param, tmp_path, expected


def test_every_layout_has_its_tree():
    assert set(SETS) == set(LAYOUTS)


def test_a_set_is_recognised_with_labels_splits_and_sources(planted):
    name, root, expected = planted
    table = detect.read(root)
    assert table.attrs["layout"] == name and ("category" in table) == (name in ("forensynths", "artifact"))
    assert label_split_source(rows(root)) == expected
    assert label_split_source(rows(root, layout=name)) == expected, "the same if the layout is requested"


def test_no_other_layout_claims_a_set(planted):
    name, root, _ = planted
    claims = {layout.name for layout in LAYOUTS.values() if any(layout.recognise(tree) for tree in nested_trees(root))}
    assert claims == {name}


def test_a_set_may_be_inside_another_folder(planted, tmp_path_factory):
    name, root, expected = planted
    above = tmp_path_factory.mktemp("above")
    plant(above, "readme.txt", "archive.zip", "__MACOSX/._x.jpg")
    root.rename(above / "set")
    table = detect.read(above)
    assert table.attrs["layout"] == name and len(table) == len(expected)
    assert set(table["path"]) == {str(above / "set" / path) for path in expected}


@pytest.mark.parametrize(
    "name", [name for name in SETS if name not in ("dfdc", "dfdc_preview", "artifact")]
)  # the others have tables of file names
def test_any_letter_case_of_the_extension(tmp_path, name):
    files, expected = SETS[name]
    plant(tmp_path, *files)
    for path in expected:
        (tmp_path / path).rename((tmp_path / path).with_suffix((tmp_path / path).suffix.swapcase()))
    assert len(rows(tmp_path)) == len(expected)
