"""Which cameras are meant, and what is hidden of where they are."""

import pytest

from eventful.live.sources import Source, mask, read


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("rtsp://10.0.0.5/live", "network"),
        ("rtsps://10.0.0.5:322/live", "network"),
        ("rtmp://host/app/key", "network"),
        ("HTTP://host/a.m3u8", "network"),
        ("https://host/video.mjpg", "network"),
        ("/dev/video0", "webcam"),
        ("clips/a.mp4", "file"),
        ("-", "input"),
    ],
)
def test_kinds(place, kind):
    assert Source("a", place).kind == kind


@pytest.mark.parametrize("place", ["file:///etc/passwd", "concat://a|b", "ftp://host/a", ""])
def test_other_schemes_are_refused(place):
    with pytest.raises(ValueError, match=r"expected rtsp|has no place"):
        Source("a", place)


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a" * 65, "a\nb", "a?b"])
def test_names_that_could_be_something_else_are_refused(name):
    with pytest.raises(ValueError, match="a camera's name"):
        Source(name, "rtsp://h/a")


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://me:s3cr3t@host/live",
        "rtsp://me:p@s3cr3t@host/live",
        "rtsp://s3cr3t@host/live",
        "http://host/a.m3u8?token=s3cr3t",
        "http://host/a?x=1&key=s3cr3t#end",
        "https://me:s3cr3t@host:8443/a?b=c",
        "rtsp://me:s3/cr3t@host/live",
        "rtsp://me:p/s3cr3t@host/live",
        "rtsp://me:p?s3cr3t@host/live",
        "rtsp://me:p#s3cr3t@host/live",
        "http://host/a.m3u8?s3cr3t",
        "http://host/a.m3u8?x=1&s3cr3t",
        "rtsp://host/user=me_password=s3cr3t_channel=1_stream=0.sdp",
        "rtsp://host/user=me&password=s3cr3t&channel=1",
    ],
)
def test_secrets_are_hidden(url):
    source = Source("a", url)
    told = [repr(source), source.masked, mask(f"cannot open {url} now"), source.hide(f"<{url}>")]
    assert not any("s3cr3t" in text for text in told)
    assert "host" in source.masked


def test_a_password_is_hidden_where_a_message_has_it_alone():
    source = Source("a", "rtsp://admin:s3%20cr3t@host/live")
    assert source.hide("login admin with s3 cr3t (s3%20cr3t) failed") == (
        "login *** with *** (***) failed"
    )


def test_a_password_with_spaces_is_hidden_in_all_of_it():
    source = Source("a", "rtsp://me:my s3cr3t word@host/live")
    told = [repr(source), source.masked, source.hide(f"no way to {source.place}")]
    assert not any("s3cr3t" in text or "word" in text for text in told)


def test_a_password_is_hidden_where_the_scheme_was_forgotten():
    for place in ("me:s3cr3t@10.0.0.5/live", " rtsp://me:s3cr3t@10.0.0.5/live"):
        with pytest.raises(FileNotFoundError) as refused:
            read([f"door={place}"])
        assert "s3cr3t" not in str(refused.value)
        assert "10.0.0.5" in str(refused.value)


@pytest.mark.parametrize("sign", ["\x1b[2J", "\n", "\0", "\r", "\u202e", "\u200b", "\x9b"])
def test_signs_that_nobody_sees_are_refused(sign):
    with pytest.raises(ValueError, match="nobody sees"):
        Source("a", f"rtsp://host/{sign}live")


def test_names_come_with_places_or_from_them(tmp_path):
    (tmp_path / "hall way.mp4").touch()
    given = ["door=rtsp://h/a?b=c", "rtsp://10.0.0.5/x=1", "rtsp://10.0.0.5/2"]
    found = read([*given, str(tmp_path / "hall way.mp4")])
    assert [s.name for s in found] == ["door", "10.0.0.5", "10.0.0.5-2", "hall-way"]
    assert found[1].place == "rtsp://10.0.0.5/x=1"


@pytest.mark.parametrize("suffix", ["yaml", "toml"])
def test_a_file_of_cameras(tmp_path, suffix):
    (tmp_path / "a.mp4").touch()
    path = tmp_path / f"cameras.{suffix}"
    text = {
        "yaml": "cameras:\n  front door: rtsp://h/1\n  file: a.mp4\n",
        "toml": '[cameras]\n"front door" = "rtsp://h/1"\nfile = "a.mp4"\n',
    }
    path.write_text(text[suffix])
    found = read(["back=rtsp://h/2"], path)
    assert [s.name for s in found] == ["front door", "file", "back"]
    assert found[1].place == str(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "cameras: [a]",
        "door: rtsp://me:s3cr3t@h/1",
        "cameras: {a: 1}",
        "cameras: {}\nrtsp://me:s3cr3t@h/1: x",
        "a: b: s3cr3t@",
        "x",
    ],
)
def test_a_file_of_something_else_is_refused_without_showing_it(tmp_path, text):
    path = tmp_path / "cameras.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cameras\.yaml") as refused:
        read([], path)
    assert "s3cr3t" not in str(refused.value)


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="two cameras are called a"):
        read(["a=rtsp://h/1", "a=rtsp://h/2"])
    with pytest.raises(ValueError, match="no camera is given"):
        read([])
    with pytest.raises(ValueError, match="only one camera"):
        read(["a=-", "-"])
    with pytest.raises(FileNotFoundError, match=r"nothing at nowhere\.mp4"):
        read(["nowhere.mp4"])
