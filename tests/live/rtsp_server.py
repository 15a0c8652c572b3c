"""GStreamer's RTSP server, run by the Python that has GStreamer.

Arguments: PORT WIDTH HEIGHT RATE [USER PASSWORD]. Serves a moving test picture, with a key frame
every four tenths of a second, at rtsp://127.0.0.1:PORT/live and prints a line once it listens.
"""

import sys


def serve(port, width, height, rate, *login):
    import gi  # noqa: PLC0415 - of Debian's Python

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # noqa: PLC0415

    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=port)
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    factory.set_launch(
        f"( videotestsrc is-live=true pattern=ball ! "
        f"video/x-raw,width={width},height={height},framerate={rate}/1 ! "
        f"x264enc tune=zerolatency speed-preset=ultrafast threads=1 "
        f"key-int-max={2 * int(rate) // 5} ! "
        f"rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    if login:
        user, password = login
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        factory.add_role_from_structure(
            Gst.Structure.new_from_string(
                "user, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
            )
        )
    server.get_mount_points().add_factory("/live", factory)
    if server.attach(None) == 0:
        sys.exit("it cannot listen there")
    print("listening", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(*sys.argv[1:])
