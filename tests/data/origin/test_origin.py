"""Metadata that cameras, programs and generators leave are found and told apart, and hostile ones cost nothing but a note."""

import io
import json
import struct
import sys
import time
import zlib

import av
import heic
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tfdetect.data.media.sniff import MediaError
from tfdetect.data.origin import content, images, meaning
from tfdetect.data.origin.read import POSITION, OriginReader, read_origin
from tfdetect.data.origin.statement import KINDS, MAX_STATEMENTS, MAX_TEXT

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
A1111 = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: 6ce0161689"
XMP = ('<?xpacket begin="\ufeff"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
       '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
       '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
       'xmlns:iptc="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:tc="http://www.tc260.org.cn/ns/AIGC/1.0/" '
       'xmlns:evt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#" {}</rdf:RDF></x:xmpmeta>')  # fmt: skip


def picture(path, **save):
    """Write an image with these arguments of Pillow's `save`, and return its path."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, **save)
    return path


def png(path, **texts):
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    return picture(path, pnginfo=info)


def exif_of(main=(), shot=(), gps=()):
    exif = Image.Exif()
    exif.update(main)
    exif.get_ifd(0x8769).update(shot)
    exif.get_ifd(0x8825).update(gps)
    return exif


def found(path, **settings):
    """Return {place: (kind, text, meaning)} of a file without notes."""
    origin = read_origin(path, **settings)
    assert not origin.notes
    return {each.place: (each.kind, each.text, each.meaning) for each in origin.statements}


@pytest.mark.parametrize("key, text, name", [
    ("parameters", A1111, "AUTOMATIC1111"),
    ("prompt", '{"3": {"inputs": {"seed": 1}, "class_type": "KSampler"}}', "ComfyUI"),
    ("workflow", '{"last_node_id": 9, "nodes": []}', "ComfyUI"),
    ("invokeai_metadata", '{"positive_prompt": "a cat"}', "InvokeAI"),
    ("sd-metadata", '{"model": "stable diffusion", "image": {}}', "InvokeAI"),
    ("Dream", '"a cat" -s 50 -S 123 -W 512 -H 512 -C 7.5 -A k_lms', "InvokeAI before"),
    ("Comment", '{"prompt": "a cat", "steps": 28, "sampler": "k_euler", "uc": "lowres"}', "NovelAI"),
    ("fooocus_scheme", "fooocus", "Fooocus"),
    ("parameters", '{"sui_image_params": {"prompt": "a cat"}}', "SwarmUI"),
    ("Description", "a cat --v 6 Job ID: 12345678-1234-1234-1234-123456789abc", "Midjourney"),
    ("AIGC", '{"Label":"1","ContentProducer":"001191"}', "GB 45438"),
])  # fmt: skip
def test_texts_of_generators_are_recognised(tmp_path, key, text, name):
    kind, shown, said = found(png(tmp_path / "a.png", **{key: text}))[f"PNG text {key}"]
    assert kind == "generator" and name in said and shown.startswith(text[:5])


@pytest.mark.parametrize("key, text, kind", [
    ("Software", "NovelAI", "generator"), ("Software", "Adobe Photoshop 25.0", "program"), ("Software", "HDR+ 1.0", "program"),
    ("Comment", "made with GIMP", "other"), ("prompt", "Steps: to the church, Sampler: none", "other"),
    ("Warning", "our trip with NovelAI", "other"), ("workflow", "scan, crop, print", "other"),
])  # fmt: skip
def test_texts_of_photographs_are_no_generators(tmp_path, key, text, kind):
    assert found(png(tmp_path / "a.png", **{key: text}))[f"PNG text {key}"][0] == kind


@pytest.mark.parametrize("ext", ["jpg", "webp", "png", "avif"])
def test_exif_of_a_camera(tmp_path, ext):
    exif = exif_of({271: "Canon", 272: "EOS R5", 305: "Firmware 1.8"}, {0x829A: 0.008, 0x829D: 1.8, 0x8827: 100})
    said = found(picture(tmp_path / f"a.{ext}", exif=exif))
    assert said["EXIF Make"] == ("camera", "Canon", "") and said["EXIF Software"][0] == "program"
    assert said["EXIF exposure"][:2] == ("camera", "1/125 s, f/1.8, ISO 100")


def test_exif_of_a_phone_in_heic(tmp_path):
    path, exif = tmp_path / "a.heic", exif_of({271: "Apple", 272: "iPhone 15"}).tobytes()[6:]
    path.write_bytes(heic.write_heic([heic.encode_item(np.zeros((64, 64, 3), np.uint8))], exif=exif))
    assert found(path)["EXIF Model"][:2] == ("camera", "iPhone 15")


@pytest.mark.parametrize("comment", [
    b"ASCII\0\0\0" + A1111.encode(), b"UNICODE\0" + A1111.encode("utf-16-be"), b"UNICODE\0" + A1111.encode("utf-16-le"),
    A1111.encode(),
])  # fmt: skip
def test_settings_of_a_generator_in_a_comment_of_exif(tmp_path, comment):
    kind, text, said = found(picture(tmp_path / "a.jpg", exif=exif_of(shot={0x9286: comment})))["EXIF UserComment"]
    assert kind == "generator" and "AUTOMATIC1111" in said and text == " ".join(A1111.split())


def test_webp_of_comfyui_names_no_camera(tmp_path):  # which writes into the fields of make and model
    exif = exif_of({0x010F: 'workflow:{"nodes": []}', 0x0110: 'prompt:{"1": {"class_type": "SaveAnimatedWEBP"}}'})
    assert {kind for kind, *_ in found(picture(tmp_path / "a.webp", exif=exif)).values()} == {"generator"}


@pytest.mark.parametrize("form", [
    'iptc:DigitalSourceType="{}"/>', '><iptc:DigitalSourceType rdf:resource="{}"/></rdf:Description>',
    "><iptc:DigitalSourceType>{}</iptc:DigitalSourceType></rdf:Description>",
])  # fmt: skip
@pytest.mark.parametrize("ext", ["jpg", "webp"])
def test_digital_source_type_of_iptc(tmp_path, form, ext):
    for name, (kind, said) in meaning.DIGITAL_SOURCES.items():
        path = picture(tmp_path / f"a.{ext}", xmp=XMP.format(form.format(IPTC + name)).encode())
        assert found(path)["XMP DigitalSourceType"] == (kind, IPTC + name, f"declared as {said}")
    assert {kind for kind, _ in meaning.DIGITAL_SOURCES.values()} <= set(KINDS)


def test_xmp_names_programs_and_labels(tmp_path):
    packet = XMP.format(
        'xmp:CreatorTool="Adobe Firefly" tc:AIGC="{&quot;Label&quot;:&quot;1&quot;}"><evt:History><rdf:Seq>'
        '<rdf:li evt:softwareAgent="Adobe Photoshop 25.0"/></rdf:Seq></evt:History></rdf:Description>'
    )
    info = PngInfo()
    info.add_itxt(images.XMP_KEY, packet, zip=True)
    said = found(picture(tmp_path / "a.png", pnginfo=info))
    assert said["XMP CreatorTool"][0] == "generator" and "GB 45438" in said["XMP AIGC"][2]
    assert said["XMP HistorySoftwareAgent"][:2] == ("program", "Adobe Photoshop 25.0")
    packet = packet.replace('begin="\ufeff"', "").encode("utf-16")
    assert found(picture(tmp_path / "a.jpg", xmp=packet))["XMP CreatorTool"][0] == "generator"


def test_the_position_is_shown_only_on_request(tmp_path):
    exif = exif_of(gps={1: "S", 2: (33.0, 51.0, 24.48), 3: "E", 4: (151.0, 12.0, 54.0)})
    xmp = XMP.format('exif:GPSLatitude="33,51.408S" exif:GPSLongitude="151,12.9E"/>').encode()
    path = picture(tmp_path / "a.jpg", exif=exif, xmp=xmp)
    origin = read_origin(path)
    assert origin.has_position and {each.text for each in origin.statements} == {POSITION}
    assert "151" not in json.dumps({**origin.to_dict(), "sha256": ""})
    said = found(path, coordinates=True)
    assert said["EXIF position"][1] == "-33.85680, 151.21500" and said["XMP position"][1] == "33,51.408S, 151,12.9E"
    assert read_origin(png(tmp_path / "a.png", **{"exif:GPSLatitude": "33/1"})).statements[0].text == POSITION
    path = video(tmp_path / "a.mov", **{"com.apple.quicktime.location.ISO6709": "-33.8568+151.2150/"})
    assert found(path)["MP4/MOV position"][1] == POSITION
    assert found(path, coordinates=True)["MP4/MOV position"][1] == "-33.8568+151.2150/"


def video(path, **metadata):
    options = {"movflags": "use_metadata_tags"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(metadata)
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for frame in [*(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24") for _ in range(3)), None]:
            container.mux(stream.encode(frame))
    return path


@pytest.mark.parametrize("ext, place", [("mp4", "MP4/MOV"), ("mov", "MP4/MOV"), ("mkv", "Matroska")])
def test_metadata_of_a_video(tmp_path, ext, place):
    key = "com.apple.quicktime.make" if ext == "mov" else "make"
    path = video(tmp_path / f"a.{ext}", **{key: "Apple", "comment": '{"workflow": {"nodes": []}}', "artist": "Jane Doe"})
    said = {name.lower(): value for name, value in found(path).items()}
    assert said[f"{place} {key}".lower()][:2] == ("camera", "Apple")
    assert said[f"{place} comment".lower()][2] == "left by ComfyUI" and "Lavf" in said[f"{place} encoder".lower()][1]
    assert "Jane" not in str(said), "names of persons are left out"
    assert read_origin(png(tmp_path / "a.png", Author="Jane Doe", Title="my cat")).statements == ()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunks(path, *chunks, at_end=False):
    """Write a PNG with more chunks, before or behind its pixels."""
    buffer = io.BytesIO()
    picture(buffer, format="png")
    data = buffer.getvalue()
    place = len(data) - 12 if at_end else 33  # of IEND, or behind IHDR
    path.write_bytes(data[:place] + b"".join(chunk(*each) for each in chunks) + data[place:])
    return path


def test_texts_behind_the_pixels_are_found(tmp_path):
    path = with_chunks(tmp_path / "a.png", (b"tEXt", b"parameters\0" + A1111.encode()), at_end=True)
    assert found(path)["PNG text parameters"][0] == "generator"


def test_bombs_cost_a_note(tmp_path):
    bomb = zlib.compress(b"\0" * 10**8)
    parameters = (b"tEXt", b"parameters\0" + A1111.encode())
    path = with_chunks(tmp_path / "a.png", (b"zTXt", b"Comment\0\0" + bomb), (b"iTXt", b"Warning\0\1\0\0\0" + bomb), parameters)
    origin = read_origin(path)
    assert origin.statements[0].kind == "generator" and len(origin.notes) == 2 and "unpacks to more than" in origin.notes[0]
    origin = read_origin(with_chunks(tmp_path / "b.png", *[(b"tEXt", b"k%d\0t" % i) for i in range(content.MAX_TEXTS + 5)]))
    assert len(origin.statements) == MAX_STATEMENTS and len(origin.notes) == 2
    entities = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + XMP.format('xmp:CreatorTool="&b;"/>')
    for packet in (entities.encode(), entities.encode("utf-16"), b"<a>" * 10000, b"<a" * 100, b"\xff" * 100, b"\xfe\xff\0"):
        origin = read_origin(picture(tmp_path / "a.jpg", xmp=packet, comment=b"hello"))
        assert [each.text for each in origin.statements] == ["hello"] and origin.notes[0].startswith("XMP cannot be read"), packet
    xmp = images.XMP_KEY.encode() + b"\0" * 5 + b"<" * 10**7
    long = (b"tEXt", b"Comment\0" + b"x" * 10**7), (b"eXIf", b"II*\0" * 10**7), (b"iTXt", xmp)
    origin = read_origin(with_chunks(tmp_path / "a.png", *long, parameters))
    assert [each.kind for each in origin.statements] == ["generator", "other"] and "XMP packet has more than" in str(origin.notes)
    many = b"Steps: 1, " * 2**18
    start = time.monotonic()
    assert meaning.recognise("parameters", many.decode()) == "" and time.monotonic() - start < 2


def test_text_is_shown_on_one_printable_line(tmp_path):
    path = png(tmp_path / "a.png", Comment="red \x1b[31m\n<b>\u202e" + "x" * 5000)
    text = found(path)["PNG text Comment"][1]
    assert text.startswith("red \\x1b[31m <b>\\u202ex") and text.isprintable() and len(text) < MAX_TEXT + 40
    assert text.endswith(f"({len('red ' + chr(27) + '[31m x<b>x') + 5000 - 1:,} characters)")


@pytest.mark.parametrize("ext", ["jpg", "png", "webp", "tif", "avif", "mp4"])
def test_no_damage_raises_anything_but_a_media_error(tmp_path, ext, rng):
    exif = exif_of({271: "Canon", 305: "NovelAI"}, {0x9286: b"ASCII\0\0\0" + A1111.encode(), 0x829A: 0.01}, {2: (1.0, 2.0, 3.0)})
    path = tmp_path / f"a.{ext}"
    intact = (video(path, comment="x") if ext == "mp4" else picture(path, exif=exif)).read_bytes()
    head = 1200 if ext == "mp4" else 700  # where the metadata are
    for _ in range(40):
        data = bytearray(intact)
        for at in rng.integers(12, min(head, len(data)), 12):
            data[at] = rng.integers(256)
        path.write_bytes(data[: rng.integers(13, len(data))] if rng.integers(4) == 0 else data)
        origin = OriginReader()(str(path))
        assert origin.error is None or "not an image or video" in origin.error
    with pytest.raises(MediaError, match="not an image or video"):
        read_origin(__file__)


def jpeg_with_credentials(path):
    data = picture(path).read_bytes()
    body = b"JP\0\1\0\0\0\1" + struct.pack(">I4s", 60, b"jumb") + b"\0\0\0\x1ejumd" + b"c2pa" + b"\0" * 40
    path.write_bytes(data[:2] + b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body + data[2:])
    return path


def mp4_with_credentials(path):
    video(path).write_bytes(video(path).read_bytes() + struct.pack(">I4s", 64, b"uuid") + images.C2PA_UUID + b"\0" * 40)
    return path


@pytest.mark.parametrize("write, name", [(jpeg_with_credentials, "a.jpg"), (mp4_with_credentials, "a.mp4"),
                                         (lambda path: with_chunks(path, (b"caBX", b"jumb")), "a.png")])  # fmt: skip
def test_content_credentials_are_told_without_c2pa(tmp_path, write, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    kind, text, _ = found(write(tmp_path / name))["C2PA"]
    assert kind == "credentials" and "unread: pip install 'tfdetect[c2pa]'" in text


def with_iptc(path, *records, charset=b"\x1b%G"):
    """Write a JPEG file with records of IPTC-IIM, (number in record 2, text), in a Photoshop segment."""
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "JPEG")
    coded = [(1, 90, charset), *((2, number, text.encode()) for number, text in records)]
    data = b"".join(b"\x1c" + struct.pack(">BBH", record, number, len(text)) + text for record, number, text in coded)
    block = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(data)) + data + b"\0" * (len(data) % 2)
    body = b"Photoshop 3.0\0" + block
    path.write_bytes(b"\xff\xd8\xff\xed" + struct.pack(">H", len(body) + 2) + body + image.getvalue()[2:])
    return path


def test_iptc_iim_is_read_and_names_of_persons_are_not_shown(tmp_path):
    records = (110, "Made with Google AI"), (80, "Jané Doe"), (115, "Agentur Süd")
    assert found(with_iptc(tmp_path / "a.jpg", *records)) == {
        "IPTC-IIM Credit": ("generator", "Made with Google AI", "names a generator"),
        "IPTC-IIM By-line": ("other", "there is one, which is not shown", ""),
        "IPTC-IIM Source": ("program", "Agentur Süd", "")}  # fmt: skip
    assert found(with_iptc(tmp_path / "b.jpg", (80, "Midjourney")))["IPTC-IIM By-line"][0] == "generator"


@pytest.mark.parametrize("tracks", [0, 1])
def test_audio_tracks_of_a_video_are_counted(tmp_path, tracks):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        video, *sound = (container.add_stream(name, rate=rate) for name, rate in (("mpeg4", 5), ("aac", 8000))[: 1 + tracks])
        video.width = video.height = 32
        for stream in sound:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
            samples.sample_rate = 8000
            container.mux([*stream.encode(samples), *stream.encode()])
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        container.mux([*video.encode(frame), *video.encode()])
    assert read_origin(tmp_path / "a.mp4").audio_tracks == tracks
    assert read_origin(png(tmp_path / "a.png")).audio_tracks is None
