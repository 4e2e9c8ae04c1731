"""`tiny`: a small CLIP with fixed random weights, for tests and for trying out. It has not been trained."""

from typing import Any

import numpy as np

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP, of RGB in 0..1
SIZE, PROJECTION_SIZE, TEXT_LENGTH = 32, 16, 77
MERGES = ["t h", "th e</w>", "i n", "a n", "e r", "o n</w>", "p h", "ph o", "f a", "r e"]


def build_backbone() -> Any:
    """Return a keras-hub CLIP for images of 32 x 32 pixels, with two layers and weights drawn with seed 0."""
    import keras_hub

    sizes = {"hidden_dim": 32, "num_layers": 2, "num_heads": 2, "intermediate_dim": 64}
    network = keras_hub.models.CLIPBackbone(
        keras_hub.models.CLIPVisionEncoder(patch_size=8, image_shape=(SIZE, SIZE, 3), name="vision", **sizes),
        keras_hub.models.CLIPTextEncoder(
            vocabulary_size=len(vocabulary()), embedding_dim=32, max_sequence_length=TEXT_LENGTH, name="text", **sizes),
        projection_dim=PROJECTION_SIZE,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if weight.name in ("kernel", "embeddings", "position_embeddings", "class_embedding"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    set_position_ids(network)
    return network


def set_position_ids(network: Any) -> None:
    """Number the positions of the image patches. keras-hub initialises them to 0 and expects them in the weights file."""
    embedding = network.vision_encoder.embedding
    embedding.position_ids.assign(np.arange(embedding.num_positions)[None])


def vocabulary() -> dict[str, int]:
    """Return {token: id}: every byte in CLIP's notation, alone and at the end of a word, the merged tokens, start and end."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*characters, *(character + "</w>" for character in characters), *merged, "<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}


def build_tokenizer() -> Any:
    """Return keras-hub's CLIP tokenizer with this vocabulary."""
    import keras_hub

    return keras_hub.models.CLIPTokenizer(vocabulary=vocabulary(), merges=MERGES)
