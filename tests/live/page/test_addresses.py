"""Names and sources that the API takes, and those that it refuses."""

import numpy as np
import pytest
import torch

from eventful.live.page import ALLOWED, app
from eventful.live.page.addresses import check_name, check_source, masked
from eventful.live.page.plain import to_json
from eventful.live.page.refusals import Refusal


@pytest.mark.parametrize(
    "source",
    ["rtsp://10.0.0.7/live", "RTSP://cam.local:8554/a?b=c&d", "rtsps://user:pa%40ss@10.0.0.7/", "rtsp://[fd00::7]/x",
     "rtsp://192.168.1.4:554/Streaming/Channels/101", "rtsp://127.0.0.1:8554/loop"],
)  # fmt: skip
def test_sources_of_allowed_schemes(source):
    check_source(source, ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "", "-", "video.mp4", "/etc/passwd", "./a.mp4", "C:\\a.mp4", "\\\\host\\share", "0",
        "/dev/video0",
        "file:///etc/passwd", "file:/etc/passwd", "FILE:///etc/passwd", "http://10.0.0.1/a.m3u8",
        "concat:rtsp://a/|file:///etc/passwd", "concat:a|b", "pipe:0", "pipe:", "tee:a",
        "subfile,,start,0,end,9,,:/a",
        "data:text/plain,x", "crypto:file:///a", "cache:rtsp://a/", "async:rtsp://a/",
        "lavfi:testsrc", "v4l2:///dev/video0",
        "rtp://10.0.0.1/", "srt://10.0.0.1", "unix:///run/a", "ftp://a/b", "javascript:alert(1)",
        "rtsp:/a", "rtsp:a",
        "rtsp://", "rtsp:///a", "rtsp://:554/", "rtsp://user@/", " rtsp://a/", "rtsp://a/ b",
        "rtsp://a/\n", "rtsp://a/\0",
        "rtsp://a\\@b/", "rtsp://a:99999/", "rtsp://a:x/", "rtsp://[::1/", "rtsp://ü/",
        "-rtsp://a/", "@rtsp://a/",
        "rtsp://" + 1100 * "a",
    ],
)  # fmt: skip
def test_sources_of_others(source):
    with pytest.raises(Refusal) as refused:
        check_source(source, ALLOWED)
    assert refused.value.kind == "source_not_allowed"


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.43518",
     "[fe80::1]", "[fe80::1%25eth0]",
     "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.100.100.200", "0.0.0.0", "[::]", "0"],
)  # fmt: skip
def test_addresses_of_metadata_in_all_their_forms(host):
    for source in (f"http://{host}/latest", f"http://user:word@{host}:80/", f"http://user@{host}"):
        with pytest.raises(Refusal, match="metadata"):
            check_source(source, ("http",))


def test_schemes_are_the_operators():
    check_source("http://10.0.0.1/live.m3u8", ("http", "rtmp"))
    check_source("file://localhost/videos/a.mp4", ("file",))
    with pytest.raises(Refusal, match="begins with http:// or rtmp://"):
        check_source("rtsp://10.0.0.1/", ("http", "rtmp"))
    with pytest.raises(Refusal, match="no source is allowed"):
        check_source("rtsp://10.0.0.1/", ())


@pytest.mark.parametrize("allow", ["rtsp", ("rtsp://",), ("RTSP",), ("",), ("a b",)])
def test_schemes_that_are_none(allow):
    with pytest.raises(ValueError, match="scheme"):
        app(..., allow=allow)


@pytest.mark.parametrize(
    "name", ["a", "1", "front door", "Straße 2", "cam_1.b", "Tor (Nord)", "画面", 64 * "a"]
)
def test_names(name):
    check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../a", "a/b", "a\\b", ".hidden", "-x", "a ", "a.", "a\n", "a\0b", "<b>",
     "a'b", 'a"b', "a:b",
     "a|b", "a*", "a\u202eb", "a\ud800", 65 * "a", "_a", "a\u00a0b\u2028", "$(a)", "a;b", "a,b",
     "a=b", "a%2fb"],
)  # fmt: skip
def test_names_that_are_none(name):
    with pytest.raises(Refusal) as refused:
        check_name(name)
    assert refused.value.kind == "invalid"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://a:b@c/d", "rtsp://***@c/d"),
        ("x rtsp://a@c, then http://e:f@g:1/h?i@j", "x rtsp://***@c, then http://***@g:1/h?i@j"),
        ("rtsp://a:p@ss@c/d", "rtsp://***@c/d"),
        ("rtsp://c/d?mail=a@b", "rtsp://c/d?mail=a@b"),
        ("a@b", "a@b"),
        ("", ""),
    ],
)
def test_credentials_are_masked(text, shown):
    assert masked(text) == shown


def test_values_of_all_sorts_are_json():
    value = {
        "array": np.float32([[1, np.nan], [np.inf, 4]]), "scalar": np.int64(3),
        "tensor": torch.ones(2),
        "large": np.zeros((70, 71)), "bytes": b"abc", "none": None, "flag": True, 5: {"a": (1,
        "b")}, "object": Ellipsis,
    }  # fmt: skip
    assert to_json(value) == (
        b'{"array":[[1.0,null],[null,4.0]],"scalar":3,"tensor":[1.0,1.0],'
        b'"large":{"omitted":"float64","shape":[70,71]},"bytes":{"omitted":"bytes","shape":[3]},'
        b'"none":null,"flag":true,"5":{"a":[1,"b"]},"object":"Ellipsis"}'
    )
