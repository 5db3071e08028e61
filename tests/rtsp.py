"""An RTSP server that shows a test pattern at /test: rtsp.py PORT WIDTH. It needs GStreamer's RTSP server and its Python binding."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
PATTERN = "videotestsrc is-live=true ! video/x-raw,format=I420,width={},height=240,framerate=30/1"
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( {PATTERN.format(sys.argv[2])} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )")
server = GstRtspServer.RTSPServer()
server.set_service(sys.argv[1])
server.get_mount_points().add_factory("/test", factory)
server.attach(None)
GLib.MainLoop().run()
