"""What the texts mean that cameras, programs and generators leave in files.

Sources: the documentation and the source texts of the generators named in MARKS; IPTC's NewsCodes "Digital Source Type"
(cv.iptc.org/newscodes/digitalsourcetype); for the label AIGC, the Chinese standard GB 45438-2025.
"""

import re
from dataclasses import dataclass

from tfdetect.data.origin.statement import Statement, shorten

MAX_SEARCHED = 2**16  # characters of a text that are searched for a generator's settings
CAMERA_KEYS = ("make", "model", "manufacturer", "lensmodel", "exposure", "makernote")
PROGRAM_KEYS = ("software", "processingsoftware", "creatortool", "encoder", "writing_app", "handler_name", "vendor_id",
                "historysoftwareagent", "credit", "source", "originating program", "aisystemused")  # fmt: skip
DIGITAL_SOURCE_KEYS = ("digitalsourcetype", "digitalsourcefiletype")


@dataclass(frozen=True)
class Mark:
    """How the texts of one generator are recognised: both patterns must be found, the key's in the whole key."""

    name: str
    text: str
    key: str = ".*"


# Bounded repetitions only, since hostile texts are searched, too.
MARKS = (
    Mark("ComfyUI", r'"(class_type|last_node_id|nodes)"\s*:', "prompt|workflow|make|model|comment|usercomment"),
    Mark("InvokeAI", r"\{", "invokeai|invokeai_(metadata|graph|workflow)|sd-metadata"),
    Mark("InvokeAI before version 1.15", r"-s ?\d", "dream"),
    Mark("Fooocus", r".", "fooocus_scheme"),
    Mark("SwarmUI", r'"sui_image_params"'),
    Mark("Easy Diffusion", r".", "use_stable_diffusion_model"),
    Mark("NovelAI", r'"(uc|noise_schedule|request_type)"\s*:', "comment"),
    Mark("Midjourney", r"Job ID: [0-9a-f]{8}-", "description|imagedescription"),
    Mark("AUTOMATIC1111's web UI or a compatible program", r"\bSteps: \d{1,6}(, [^,\n]{1,80}){0,4}, Sampler: "),
    Mark("a generator under the Chinese standard GB 45438-2025", r'(?i)"?label"?\s{0,9}:\s{0,9}"?[123]', "aigc"),
    Mark("a generator under the Chinese standard GB 45438-2025", r'"AIGC"\s{0,9}:\s{0,9}\{.{0,9}"Label"'),
)
# Of programs and services that only generate, in fields that name a program or give credit.
NAMES = re.compile(r"NovelAI|Midjourney|DALL[-·. ]?E\b|Adobe Firefly|Stable ?Diffusion|ComfyUI|InvokeAI|Fooocus|SwarmUI|"
                   r"Draw Things|Made with Google AI|Edited with Google AI|\bAI[- ]generated", re.IGNORECASE)  # fmt: skip
DIGITAL_SOURCES = {
    "trainedAlgorithmicMedia": ("generator", "created by a generative model"),
    "compositeWithTrainedAlgorithmicMedia": ("generator", "a composite or edit with parts that a generative model created"),
    "compositeSynthetic": ("generator", "a composite with at least one synthetic element"),
    "algorithmicMedia": ("generator", "created by an algorithm that was not trained on media"),
    "dataDrivenMedia": ("program", "a picture of data"),
    "digitalCapture": ("camera", "captured from real life by a digital device"),
    "computationalCapture": ("camera", "captured from real life, and computed from several frames or sensors"),
    "compositeCapture": ("camera", "a composite of several captures"),
    "negativeFilm": ("camera", "scanned from a negative"),
    "positiveFilm": ("camera", "scanned from a positive"),
    "print": ("camera", "scanned from a print"),
    "humanEdits": ("program", "edited by a person"),
    "minorHumanEdits": ("program", "slightly edited by a person"),
    "algorithmicallyEnhanced": ("program", "enhanced by an algorithm"),
    "composite": ("program", "a composite of several elements"),
    "digitalCreation": ("program", "created by a person with a program"),
    "digitalArt": ("program", "created by a person with a program"),
    "screenCapture": ("program", "a picture or recording of a screen"),
    "virtualRecording": ("program", "a recording of a virtual event"),
}


def statement(place: str, key: str, text: str) -> Statement:
    """Return the statement that a text makes under a key of the file, such as "Make", at a place, such as "EXIF"."""
    name, where = key.lower().removeprefix("com.apple.quicktime.").removeprefix("com.android."), f"{place} {key}".strip()
    if name in DIGITAL_SOURCE_KEYS:
        return digital_source(where, text)
    if generator := recognise(name, text):
        return Statement("generator", where, shorten(text), f"left by {generator}")
    if name in (*PROGRAM_KEYS, "by-line") and NAMES.search(text[:MAX_SEARCHED]):
        return Statement("generator", where, shorten(text), "names a generator")
    kind = "camera" if name in CAMERA_KEYS else "program" if name in PROGRAM_KEYS else "other"
    return Statement(kind, where, shorten(text))


def recognise(key: str, text: str) -> str:
    """Return which generator leaves such a text under such a key, in lower case; "" if none is known."""
    searched = text[:MAX_SEARCHED]
    return next((mark.name for mark in MARKS if re.fullmatch(mark.key, key) and re.search(mark.text, searched)), "")


def digital_source(where: str, text: str) -> Statement:
    """Return the statement of IPTC's Digital Source Type, given as an address or as its last part."""
    kind, meaning = DIGITAL_SOURCES.get(text.rstrip("/").rpartition("/")[2], ("other", ""))
    return Statement(kind, where, shorten(text), meaning and f"declared as {meaning}")
