"""`tiny`: a random CLIP that is the same every time, for tests and for trying out. It knows nothing of pictures or words."""

import numpy as np

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # those of OpenAI's CLIP
SIZE, PROJECTION, LENGTH = 32, 16, 77
MERGES = ["t h", "th e</w>", "i n", "a n", "e r", "o n</w>", "p h", "ph o", "f a", "r e"]


def backbone():
    """A keras-hub CLIP for pictures of 32 x 32, of two layers, with weights drawn with seed 0."""
    import keras_hub

    shared = {"hidden_dim": 32, "num_layers": 2, "num_heads": 2, "intermediate_dim": 64}
    net = keras_hub.models.CLIPBackbone(
        keras_hub.models.CLIPVisionEncoder(patch_size=8, image_shape=(SIZE, SIZE, 3), name="vision", **shared),
        keras_hub.models.CLIPTextEncoder(
            vocabulary_size=len(vocabulary()), embedding_dim=32, max_sequence_length=LENGTH, name="text", **shared),
        projection_dim=PROJECTION,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    for weight in net.weights:
        if weight.name in ("kernel", "embeddings", "position_embeddings", "class_embedding"):
            weight.assign(draw.normal(0, 0.1, weight.shape))
    place_ids(net)
    return net


def place_ids(net):
    """Number the places of the picture's patches, which keras-hub fills with zeros and leaves to the weights' file."""
    embedding = net.vision_encoder.embedding
    embedding.position_ids.assign(np.arange(embedding.num_positions)[None])


def vocabulary():
    """{token: id}: every byte as CLIP writes it, alone and at the end of a word; what `MERGES` makes; the two ends."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [chr(byte) for byte in visible] + [chr(256 + place) for place in range(256 - len(visible))]
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*characters, *(character + "</w>" for character in characters), *merged, "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}


def tokenizer():
    """keras-hub's tokenizer of CLIP with this vocabulary."""
    import keras_hub

    return keras_hub.models.CLIPTokenizer(vocabulary=vocabulary(), merges=MERGES)
