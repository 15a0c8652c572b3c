"""Streams of few bytes that claim huge pictures."""

import struct

import cv2
import numpy as np


class _Bits:
    """A unit of H.264, bit by bit."""

    def __init__(self):
        self._bits = ""

    def bits(self, *pairs):
        """Numbers of so many bits."""
        self._bits += "".join(f"{value:0{count}b}" for count, value in pairs)

    def golomb(self, *values):
        """Numbers in the Exp-Golomb code."""
        coded = (f"{value + 1:b}" for value in values)
        self._bits += "".join("0" * (len(code) - 1) + code for code in coded)

    def unit(self, kind):
        """The unit with its start code; two zeros are never followed by a byte below 4."""
        bits = self._bits + "1"
        raw = int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
        escaped, zeros = bytearray(), 0
        for byte in raw:
            if zeros >= 2 and byte <= 3:
                escaped.append(3)
                zeros = 0
            escaped.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return b"\0\0\0\1" + bytes([kind]) + bytes(escaped)


def h264(side):
    """Squares in H.264, a key frame of which only the beginning is there, thirty times."""
    sequence, picture, key = _Bits(), _Bits(), _Bits()
    sequence.bits((8, 66), (8, 0), (8, 62))  # baseline, level 6.2
    sequence.golomb(0, 0, 2, 1)
    sequence.bits((1, 0))
    sequence.golomb(side // 16 - 1, side // 16 - 1)
    sequence.bits((4, 0b1100))
    picture.golomb(0, 0)
    picture.bits((2, 0))
    picture.golomb(0, 0, 0)
    picture.bits((3, 0))
    picture.golomb(0, 0, 0)
    picture.bits((3, 0))
    key.golomb(0, 7, 0)
    key.bits((4, 0))
    key.golomb(0)
    key.bits((2, 0))
    key.golomb(0, 3, 0)
    key.bits((40_000, (1 << 40_000) - 1))
    return 30 * (sequence.unit(0x67) + picture.unit(0x68) + key.unit(0x65))


def mjpeg(side):
    """Squares as JPEG pictures with the boundary `frame`, eight of them."""
    noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), dtype=np.uint8)
    coded = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    size = coded.index(b"\xff\xc0") + 5
    coded[size : size + 4] = struct.pack(">HH", side, side)
    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(coded)
    return 8 * (head + bytes(coded) + b"\r\n")
