"""An independent WHIP publisher and WHEP player, on GStreamer's webrtcbin.

  gst_session.py publish URL TOKEN vp8|h264 SECONDS   a red picture and a 440 Hz tone
  gst_session.py play    URL TOKEN -        SECONDS   prints JSON: decoded frames, their colour, the sound's level
"""
import json
import sys
import threading
import urllib.error
import urllib.request
from urllib.parse import urljoin

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC

MODE, URL, TOKEN, CODEC, SECONDS = sys.argv[1:5] + [float(sys.argv[5])]

ENCODERS = {
    "vp8": "vp8enc deadline=1 keyframe-max-dist=60 target-bitrate=400000 ! rtpvp8pay pt=96",
    "h264": "openh264enc bitrate=400000 gop-size=60 ! h264parse config-interval=-1 ! rtph264pay pt=96",
}
PUBLISH = (
    "webrtcbin name=rtc bundle-policy=max-bundle "
    "videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=30/1 ! videoconvert ! queue ! {encoder} ! rtc. "
    "audiotestsrc is-live=true freq=440 ! audioconvert ! audioresample ! queue ! opusenc ! rtpopuspay pt=97 ! rtc."
)
VIDEO_CAPS = "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000"
AUDIO_CAPS = "application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000"


class Session:
    def __init__(self):
        self.loop = GLib.MainLoop()
        self.location = None
        self.report = {"frames": 0, "colour": None, "level": None, "states": []}
        if MODE == "publish":
            self.pipeline = Gst.parse_launch(PUBLISH.format(encoder=ENCODERS[CODEC]))
            self.rtc = self.pipeline.get_by_name("rtc")
        else:
            self.pipeline = Gst.Pipeline.new("player")
            self.rtc = Gst.ElementFactory.make("webrtcbin", "rtc")
            self.rtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
            self.pipeline.add(self.rtc)
            for caps in (VIDEO_CAPS, AUDIO_CAPS):
                self.rtc.emit("add-transceiver", GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY, Gst.Caps.from_string(caps))
            self.rtc.connect("pad-added", self.pad_added)
        self.rtc.connect("on-negotiation-needed", self.negotiate)
        self.rtc.connect("notify::ice-gathering-state", self.gathered)
        self.rtc.connect("notify::connection-state", self.state)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.failed)
        bus.connect("message::element", self.element)

    def state(self, rtc, _):
        self.report["states"].append(rtc.get_property("connection-state").value_nick)

    def failed(self, _, message):
        self.report["error"] = message.parse_error()[0].message
        self.loop.quit()

    def element(self, _, message):
        structure = message.get_structure()
        if structure and structure.get_name() == "level":
            self.report["level"] = max(structure.get_value("rms"))

    def negotiate(self, rtc):
        def created(promise, *_):
            # The reply owns the offer: it must live until the offer has been taken.
            reply = promise.get_reply()
            offer = reply.get_value("offer")
            self.rtc.emit("set-local-description", offer, Gst.Promise.new())

        rtc.emit("create-offer", None, Gst.Promise.new_with_change_func(created, None, None))

    def gathered(self, rtc, _):
        if rtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            offer = rtc.get_property("local-description").sdp.as_text()
            threading.Thread(target=self.post, args=(offer,), daemon=True).start()

    def post(self, offer):
        request = urllib.request.Request(
            URL, offer.encode(), {"Content-Type": "application/sdp", "Authorization": "Bearer " + TOKEN})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                self.report["status"] = answer.status
                self.location = answer.headers["Location"]
                text = answer.read().decode()
        except urllib.error.HTTPError as refusal:
            self.report["status"] = refusal.code
            self.report["error"] = refusal.read().decode()
            GLib.idle_add(self.loop.quit)
            return
        _, sdp = GstSdp.SDPMessage.new_from_text(text)
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        self.rtc.emit("set-remote-description", description, Gst.Promise.new())
        print("answered", flush=True)

    def pad_added(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        if pad.get_current_caps().get_structure(0).get_string("media") == "video":
            sink = "queue ! rtpvp8depay ! vp8dec ! videoconvert ! video/x-raw,format=RGB ! appsink name=frames emit-signals=true sync=false"
        else:
            sink = "queue ! rtpopusdepay ! opusdec ! audioconvert ! level ! fakesink sync=false"
        branch = Gst.parse_bin_from_description(sink, True)
        frames = branch.get_by_name("frames")
        if frames:
            frames.connect("new-sample", self.frame)
        self.pipeline.add(branch)
        branch.sync_state_with_parent()
        pad.link(branch.get_static_pad("sink"))

    def frame(self, sink):
        sample = sink.emit("pull-sample")
        shape = sample.get_caps().get_structure(0)
        width, height = shape.get_int("width")[1], shape.get_int("height")[1]
        buffer = sample.get_buffer()
        middle = (height // 2) * ((width * 3 + 3) // 4 * 4) + (width // 2) * 3
        self.report["colour"] = list(buffer.extract_dup(middle, 3))
        self.report["frames"] += 1
        return Gst.FlowReturn.OK

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        GLib.timeout_add(int(SECONDS * 1000), self.loop.quit)
        self.loop.run()
        if self.location:
            end = urllib.request.Request(
                urljoin(URL, self.location), method="DELETE", headers={"Authorization": "Bearer " + TOKEN})
            try:
                with urllib.request.urlopen(end, timeout=5) as answer:
                    self.report["ended"] = answer.status
            except urllib.error.HTTPError as refusal:
                self.report["ended"] = refusal.code
        self.pipeline.set_state(Gst.State.NULL)
        print(json.dumps(self.report), flush=True)


Gst.init(None)
Session().run()
