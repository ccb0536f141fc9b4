package client

import (
	"fmt"
	"io"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/logging"
	"github.com/pion/sdp/v3"
	"github.com/pion/transport/v4"
	"github.com/pion/webrtc/v4"
)

const (
	// Values of ice.MulticastDNSMode and dtls.SRTPProtectionProfile, whose packages only media imports.
	mdnsDisabled     = 1
	srtpAES128GCM    = 0x0007
	srtpAES128CMSHA1 = 0x0001
)

const audioLevelURI = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"

// TransportConfig chooses what a PeerConnection does besides carrying packets: each costs CPU, which
// counts when a process holds many.
type TransportConfig struct {
	// Loopback gathers on the loopback interface only, which is enough for a node on this machine.
	Loopback bool
	// Answer retransmission requests for what is published.
	Respond bool
	// Ask for what got lost on the way here.
	NACK bool
	// Report what is received: receiver reports and transport-wide feedback.
	Feedback bool
	// VP8 or H264 alone instead of both.
	Codec string
	// Net replaces the operating system's network; nil keeps it.
	Net transport.Net
}

// NewAPI makes what NewMedia builds PeerConnections with. One API may serve many.
func NewAPI(cfg TransportConfig) (*webrtc.API, error) {
	media := &webrtc.MediaEngine{}
	if err := registerCodecs(media, cfg); err != nil {
		return nil, fmt.Errorf("registering codecs: %w", err)
	}
	registry := &interceptor.Registry{}
	if err := registerInterceptors(media, registry, cfg); err != nil {
		return nil, fmt.Errorf("registering interceptors: %w", err)
	}
	set := webrtc.SettingEngine{LoggerFactory: silent()}
	set.SetICEMulticastDNSMode(mdnsDisabled)
	set.SetSRTPProtectionProfiles(srtpAES128GCM, srtpAES128CMSHA1)
	set.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	if cfg.Loopback {
		set.SetIncludeLoopbackCandidate(true)
		set.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	}
	if cfg.Net != nil {
		set.SetNet(cfg.Net)
	}
	return webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(registry),
		webrtc.WithSettingEngine(set)), nil
}

// silent keeps pion quiet: what matters to the caller comes back as an error, the rest is teardown.
func silent() logging.LoggerFactory {
	return &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}
}

func registerCodecs(media *webrtc.MediaEngine, cfg TransportConfig) error {
	feedback := []webrtc.RTCPFeedback{{Type: "ccm", Parameter: "fir"}, {Type: "nack", Parameter: "pli"}}
	if cfg.NACK || cfg.Respond {
		feedback = append(feedback, webrtc.RTCPFeedback{Type: "nack"})
	}
	if err := media.RegisterCodec(webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
		},
		PayloadType: 111,
	}, webrtc.RTPCodecTypeAudio); err != nil {
		return err
	}
	for _, v := range []struct {
		name, mime, fmtp string
		pt               webrtc.PayloadType
	}{
		{"vp8", webrtc.MimeTypeVP8, "", 96},
		{"h264", webrtc.MimeTypeH264, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", 102},
	} {
		if cfg.Codec != "" && cfg.Codec != v.name {
			continue
		}
		main := webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: v.mime, ClockRate: 90000, SDPFmtpLine: v.fmtp, RTCPFeedback: feedback,
			},
			PayloadType: v.pt,
		}
		rtx := webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: fmt.Sprintf("apt=%d", v.pt),
			},
			PayloadType: v.pt + 1,
		}
		if err := media.RegisterCodec(main, webrtc.RTPCodecTypeVideo); err != nil {
			return err
		}
		if err := media.RegisterCodec(rtx, webrtc.RTPCodecTypeVideo); err != nil {
			return err
		}
	}
	return registerExtensions(media)
}

func registerExtensions(media *webrtc.MediaEngine) error {
	if err := webrtc.ConfigureSimulcastExtensionHeaders(media); err != nil {
		return err
	}
	for _, uri := range []string{sdp.SDESMidURI, audioLevelURI} {
		err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, webrtc.RTPCodecTypeAudio)
		if err != nil {
			return err
		}
	}
	return nil
}

func registerInterceptors(media *webrtc.MediaEngine, registry *interceptor.Registry, cfg TransportConfig) error {
	if cfg.Respond {
		responder, err := nack.NewResponderInterceptor(nack.WithResponderLoggerFactory(silent()))
		if err != nil {
			return err
		}
		sender, err := report.NewSenderInterceptor(report.WithSenderLoggerFactory(silent()))
		if err != nil {
			return err
		}
		registry.Add(responder)
		registry.Add(sender)
		if err := webrtc.ConfigureTWCCHeaderExtensionSender(media, registry); err != nil {
			return err
		}
	}
	if cfg.NACK {
		generator, err := nack.NewGeneratorInterceptor(nack.WithGeneratorLoggerFactory(silent()))
		if err != nil {
			return err
		}
		registry.Add(generator)
	}
	if cfg.Feedback {
		receiver, err := report.NewReceiverInterceptor(report.WithReceiverLoggerFactory(silent()))
		if err != nil {
			return err
		}
		feedback, err := twcc.NewSenderInterceptor(twcc.WithLoggerFactory(silent()))
		if err != nil {
			return err
		}
		for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
			media.RegisterFeedback(webrtc.RTCPFeedback{Type: webrtc.TypeRTCPFBTransportCC}, kind)
			if cfg.Respond {
				continue // the extension is registered above
			}
			if err := media.RegisterHeaderExtension(
				webrtc.RTPHeaderExtensionCapability{URI: sdp.TransportCCURI}, kind); err != nil {
				return err
			}
		}
		registry.Add(receiver)
		registry.Add(feedback)
	}
	return nil
}
