package negotiate

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/amphi-sfu/amphi/media/codec"
)

// Answer is what goes into an answer besides what it takes from the offer.
type Answer struct {
	SessionID uint64
	// Version grows with every answer of a session.
	Version     uint64
	Ufrag, Pwd  string
	Fingerprint Fingerprint
	// Active says that the answerer begins the DTLS handshake.
	Active bool
	// Candidates are the values of a=candidate lines. They are complete.
	Candidates []string
	// Sections answers each section of the offer, in order.
	Sections []SectionAnswer
}

// SectionAnswer answers one section. Its zero value rejects it.
type SectionAnswer struct {
	// Accept keeps the section, possibly inactive.
	Accept bool
	// Direction is that of the answerer.
	Direction Direction
	// RIDs are the simulcast streams accepted.
	RIDs []string
	// SSRC and RTX are those of what the answerer sends, 0 when it does not.
	SSRC, RTX     uint32
	Stream, Track string
	CNAME         string
}

// Marshal writes the answer to o. There must be one SectionAnswer per section.
func (a *Answer) Marshal(o *Offer) string {
	var b strings.Builder
	b.Grow(1024 * (1 + len(o.Sections)))
	fmt.Fprintf(&b, "v=0\r\no=- %d %d IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n", a.SessionID, a.Version)
	bundle := ""
	for i, s := range a.Sections {
		if s.Accept && o.Sections[i].hasMid {
			bundle += " " + o.Sections[i].Mid
		}
	}
	if bundle != "" {
		b.WriteString("a=group:BUNDLE" + bundle + "\r\n")
	}
	b.WriteString("a=msid-semantic: WMS *\r\n")
	first := true
	for i := range a.Sections {
		s, offered := &a.Sections[i], &o.Sections[i]
		if !s.Accept {
			reject(&b, offered)
			continue
		}
		a.section(&b, s, offered, first)
		first = false
	}
	return b.String()
}

func reject(b *strings.Builder, s *Section) {
	fmt.Fprintf(b, "m=%s 0 %s %s\r\nc=IN IP4 0.0.0.0\r\n", s.media, s.proto, strings.Join(s.formats, " "))
	if s.hasMid {
		b.WriteString("a=mid:" + s.Mid + "\r\n")
	}
	b.WriteString("a=inactive\r\n")
}

func (a *Answer) section(b *strings.Builder, s *SectionAnswer, o *Section, first bool) {
	fmt.Fprintf(b, "m=%s 9 %s", o.media, o.proto)
	for _, f := range o.Formats {
		if f.RED != 0 && f.redFirst {
			b.WriteString(" " + itoa(int(f.RED)))
		}
		b.WriteString(" " + itoa(int(f.PayloadType)))
		if f.RED != 0 && !f.redFirst {
			b.WriteString(" " + itoa(int(f.RED)))
		}
		if f.RTX != 0 {
			b.WriteString(" " + itoa(int(f.RTX)))
		}
	}
	b.WriteString("\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n")
	setup := "passive"
	if a.Active {
		setup = "active"
	}
	fmt.Fprintf(b, "a=ice-ufrag:%s\r\na=ice-pwd:%s\r\na=fingerprint:%s %s\r\na=setup:%s\r\n",
		a.Ufrag, a.Pwd, a.Fingerprint.Hash, a.Fingerprint.Value, setup)
	if o.hasMid {
		b.WriteString("a=mid:" + o.Mid + "\r\n")
	}
	b.WriteString("a=" + s.Direction.String() + "\r\na=rtcp-mux\r\n")
	if o.rtcpRsize {
		b.WriteString("a=rtcp-rsize\r\n")
	}
	if o.mixed {
		b.WriteString("a=extmap-allow-mixed\r\n")
	}
	o.Extensions.marshal(b)
	for i := range o.Formats {
		o.Formats[i].marshal(b, s.Direction)
	}
	for _, r := range s.RIDs {
		b.WriteString("a=rid:" + r + " recv\r\n")
	}
	if len(s.RIDs) > 0 {
		b.WriteString("a=simulcast:recv " + strings.Join(s.RIDs, ";") + "\r\n")
	}
	s.marshalSource(b)
	if first {
		for _, c := range a.Candidates {
			b.WriteString("a=candidate:" + c + "\r\n")
		}
		b.WriteString("a=end-of-candidates\r\n")
	}
}

func (s *SectionAnswer) marshalSource(b *strings.Builder) {
	if s.SSRC == 0 {
		return
	}
	fmt.Fprintf(b, "a=msid:%s %s\r\n", s.Stream, s.Track)
	if s.RTX != 0 {
		fmt.Fprintf(b, "a=ssrc-group:FID %d %d\r\n", s.SSRC, s.RTX)
	}
	for _, ssrc := range []uint32{s.SSRC, s.RTX} {
		if ssrc != 0 {
			fmt.Fprintf(b, "a=ssrc:%d cname:%s\r\na=ssrc:%d msid:%s %s\r\n", ssrc, s.CNAME, ssrc, s.Stream, s.Track)
		}
	}
}

func (e Extensions) marshal(b *strings.Builder) {
	for _, x := range []struct {
		id  uint8
		uri string
	}{
		{e.MID, uriMID}, {e.RID, uriRID}, {e.RepairedRID, uriRepairedRID},
		{e.AudioLevel, uriAudioLevel}, {e.TransportCC, uriTransportCC}, {e.Descriptor, uriDescriptor},
	} {
		if x.id != 0 {
			fmt.Fprintf(b, "a=extmap:%d %s\r\n", x.id, x.uri)
		}
	}
}

func (f *Format) marshal(b *strings.Builder, d Direction) {
	fmt.Fprintf(b, "a=rtpmap:%d %s\r\n", f.PayloadType, f.RTPMap)
	if fmtp := f.answered(d); fmtp != "" {
		fmt.Fprintf(b, "a=fmtp:%d %s\r\n", f.PayloadType, fmtp)
	}
	if f.RED != 0 {
		fmt.Fprintf(b, "a=rtpmap:%d %s\r\na=fmtp:%d %s\r\n", f.RED, f.redMap, f.RED, f.redFmtp)
	}
	for _, fb := range []struct {
		on   bool
		name string
	}{
		{f.Feedback.TransportCC, "transport-cc"}, {f.Feedback.NACK, "nack"},
		{f.Feedback.PLI, "nack pli"}, {f.Feedback.FIR, "ccm fir"},
	} {
		if fb.on {
			fmt.Fprintf(b, "a=rtcp-fb:%d %s\r\n", f.PayloadType, fb.name)
		}
	}
	if f.RTX != 0 {
		fmt.Fprintf(b, "a=rtpmap:%d rtx/%d\r\na=fmtp:%d apt=%d\r\n", f.RTX, f.Codec.ClockRate, f.RTX, f.PayloadType)
	}
}

// answered is what of a=fmtp goes into the answer: all as offered, so that stereo and
// discontinuous transmission stay as the client wants them. Publishers of Opus are asked
// for its error correction (RFC 7587 section 6.1) unless they said no.
func (f *Format) answered(d Direction) string {
	if f.Codec.Name != codec.Opus || d != RecvOnly || strings.Contains(f.Fmtp, "useinbandfec") {
		return f.Fmtp
	}
	if f.Fmtp == "" {
		return "useinbandfec=1"
	}
	return f.Fmtp + ";useinbandfec=1"
}

func itoa(n int) string { return strconv.Itoa(n) }
