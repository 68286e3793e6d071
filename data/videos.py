"""Reading videos for the converters, with PyAV (pip install -e '.[bench]').

FFmpeg would follow a playlist to other files and into the network, whatever its file is called. So
only MP4, MOV, MKV and WebM are opened, which are known by their first bytes.
"""

from contextlib import contextmanager
from functools import cache

from data.convert import PACKAGES, Damaged
from nanoladder.command import UserError

MATROSKA = b"\x1a\x45\xdf\xa3"  # how a file of MKV or WebM starts
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # the first box of an MP4 or MOV


@contextmanager
def opened(path):
    """The video in a file. Damaged where there is none, or where it cannot be decoded."""
    try:
        import av
    except ImportError:
        raise UserError(f"decoding videos needs av (PyAV): {PACKAGES}") from None
    if not path.is_file():
        raise Damaged("no such video", path)
    with open(path, "rb") as file:
        start = file.read(8)
    if start[4:] not in BOXES and start[:4] != MATROSKA:
        raise Damaged("a video cannot be read", f"{path} (it is none of MP4, MOV, MKV and WebM)")
    kind = "mov" if start[4:] in BOXES else "matroska"
    try:
        with av.open(str(path), format=kind, options={"protocol_whitelist": "file"}) as video:
            yield video
    except (av.error.FFmpegError, IndexError) as error:  # IndexError: there is no video stream
        raise Damaged("a video cannot be read", f"{path} ({error})") from None


@cache
def probe(path):
    """(number of frames, frames a second) of a video."""
    with opened(path) as video:
        stream = video.streams.video[0]
        expected, rate = stream.frames, stream.average_rate  # 0, None where not stated
        total = sum(packet.size > 0 for packet in video.demux(stream))
    if total < max(1, 0.99 * expected):
        found = f"{path}, {total} frames where its header says {expected}"
        raise Damaged("a video is cut short", found)
    if not rate:
        raise Damaged("a video cannot be read", f"{path} (it does not state its frames a second)")
    return total, float(rate)


def decode(path, wanted):
    """{number: picture} of the wanted frames, as far as they can be decoded."""
    with opened(path) as video:
        video.streams.video[0].thread_type = "AUTO"
        frames = enumerate(video.decode(video=0))
        return {k: frame.to_image() for k, frame in frames if k in wanted}
