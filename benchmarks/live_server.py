"""GStreamer's RTSP server, run by the Python that has GStreamer: PORT NAME=FILE...

Serves H.264 in MP4 files as they are at rtsp://127.0.0.1:PORT/NAME, in real time, each from its
first frame for whoever connects, and prints a line once it listens.
"""

import sys


def serve(port, *named):
    """Serve until the process is killed."""
    import gi  # noqa: PLC0415 - of Debian's Python

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # noqa: PLC0415

    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=port)
    for each in named:
        name, _, file = each.partition("=")
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(
            f'( filesrc location="{file}" ! qtdemux ! h264parse ! '
            f"rtph264pay name=pay0 pt=96 config-interval=-1 )"
        )
        server.get_mount_points().add_factory(f"/{name}", factory)
    if server.attach(None) == 0:
        sys.exit("it cannot listen there")
    print("listening", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(*sys.argv[1:])
