"""Plays an HLS URL with GStreamer until its end, or for some seconds, and prints how many buffers came, as JSON."""
import json
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

Gst.init(None)
uri, seconds = sys.argv[1], float(sys.argv[2])
result = {"video": 0, "audio": 0, "demuxer": "", "error": "", "ended": False}
loop = GLib.MainLoop()
pipeline = Gst.Pipeline.new()
source = Gst.ElementFactory.make("urisourcebin")
source.set_property("uri", uri)
source.set_property("parse-streams", True)
pipeline.add(source)


def added(_, pad):
    sink = Gst.ElementFactory.make("fakesink")
    sink.set_property("sync", False)
    sink.set_property("async", False)
    sink.set_property("signal-handoffs", True)

    def got(_, __, at):
        kind = at.get_current_caps().get_structure(0).get_name().split("/")[0]
        if kind in ("video", "audio"):
            result[kind] += 1

    sink.connect("handoff", got)
    pipeline.add(sink)
    sink.sync_state_with_parent()
    pad.link(sink.get_static_pad("sink"))


def deep(_, __, element):
    factory = element.get_factory()
    if factory and factory.get_name().startswith("hlsdemux"):
        result["demuxer"] = factory.get_name()


def message(_, m):
    if m.type == Gst.MessageType.ERROR:
        result["error"] = m.parse_error()[0].message
        loop.quit()
    elif m.type == Gst.MessageType.EOS:
        result["ended"] = True
        loop.quit()


source.connect("pad-added", added)
pipeline.connect("deep-element-added", deep)
bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message", message)
GLib.timeout_add(int(seconds * 1000), loop.quit)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
print(json.dumps(result))
