"""Encoders, where they need help."""

from types import SimpleNamespace

from tfdetect.data.media import encode


def test_a_packet_is_decoded_before_it_is_shown_and_in_order():
    packets = [SimpleNamespace(pts=pts, dts=1) for pts in (0, 4, 2, 1, 3)]  # as with B-frames; x265's own times are wrong here
    found = encode._with_decoding_times(packets)
    assert [packet.dts for packet in found] == [-2, -1, 0, 1, 2]
    assert [packet.pts for packet in found] == [0, 4, 2, 1, 3] and all(packet.dts <= packet.pts for packet in found)
