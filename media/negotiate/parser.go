package negotiate

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/amphi-sfu/amphi/media/codec"
)

// parser reads an offer line by line; section collects what is known of a media
// section until its end, when the lines about formats can be joined.
type parser struct {
	offer   *Offer
	section *Section

	rtpmap   map[uint8]string
	fmtp     map[uint8]string
	feedback map[uint8]Feedback
	anyFB    Feedback // a=rtcp-fb:*
	rids     map[string]bool
	simul    []string
	zeroPort bool
	bundled  bool // a=bundle-only
	// sessionDirection is what sections without a direction have.
	sessionDirection Direction
	sessionSet       bool
	// sessionMixed is what extmap-allow-mixed says for all sections.
	sessionMixed bool
}

func (p *parser) line(kind byte, v string) error {
	switch kind {
	case 'm':
		return p.media(v)
	case 'a':
		name, value, _ := strings.Cut(v, ":")
		if p.section == nil {
			p.sessionAttribute(name, value)
			return nil
		}
		return p.attribute(name, value)
	}
	return nil
}

func (p *parser) media(v string) error {
	if err := p.endSection(); err != nil {
		return err
	}
	if len(p.offer.Sections) >= MaxSections {
		return refuse(TooManySections, "at most %d media sections are accepted", MaxSections)
	}
	f := strings.Fields(v)
	if len(f) < 4 {
		return refuse(Malformed, "an m= line has fewer than four fields")
	}
	if len(f)-3 > maxCodecs {
		return refuse(Malformed, "an m= line has more than %d formats", maxCodecs)
	}
	port, _, _ := strings.Cut(f[1], "/")
	n, ok := parseUint(port, 16)
	if !ok || len(f[0]) > maxToken || len(f[2]) > maxToken {
		return refuse(Malformed, "an m= line has no valid port")
	}
	direction := SendRecv
	if p.sessionSet {
		direction = p.sessionDirection
	}
	p.section = &Section{media: f[0], proto: f[2], formats: f[3:], Direction: direction}
	p.section.Kind, _ = codec.ParseKind(f[0])
	if !strings.Contains(f[2], "RTP/SAVP") {
		p.section.Kind = 0
	}
	p.zeroPort, p.bundled = n == 0, false
	p.rtpmap, p.fmtp, p.feedback = map[uint8]string{}, map[uint8]string{}, map[uint8]Feedback{}
	p.rids, p.simul, p.anyFB = map[string]bool{}, nil, Feedback{}
	return nil
}

func (p *parser) sessionAttribute(name, value string) {
	switch name {
	case "group":
		if mids, ok := strings.CutPrefix(value, "BUNDLE"); ok {
			p.offer.bundle = append(p.offer.bundle, strings.Fields(mids)...)
		}
	case "sendrecv", "sendonly", "recvonly", "inactive":
		p.sessionDirection, p.sessionSet = direction(name), true
	case "extmap-allow-mixed":
		p.sessionMixed = true
	case "ice-lite":
		p.offer.lite = true
	default:
		p.transport(name, value)
	}
}

// transport reads what may stand at session or at media level; bundled sections
// all have the same, so the first one counts.
func (p *parser) transport(name, value string) bool {
	o := p.offer
	switch name {
	case "ice-ufrag":
		if o.Ufrag == "" && len(value) <= maxToken {
			o.Ufrag = value
		}
	case "ice-pwd":
		if o.Pwd == "" && len(value) <= maxToken {
			o.Pwd = value
		}
	case "setup":
		if value != "" && value != "holdconn" {
			o.Setup = value
		}
	case "fingerprint":
		p.fingerprint(value)
	default:
		return false
	}
	return true
}

func (p *parser) fingerprint(value string) {
	hash, digest, ok := strings.Cut(value, " ")
	hash = strings.ToLower(hash)
	size := map[string]int{"sha-256": 32, "sha-384": 48, "sha-512": 64}[hash]
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(digest), ":", ""))
	if !ok || err != nil || size == 0 || len(raw) != size {
		return
	}
	fp := Fingerprint{Hash: hash, Value: FormatFingerprint(raw)}
	if !slices.Contains(p.offer.Fingerprints, fp) && len(p.offer.Fingerprints) < 8 {
		p.offer.Fingerprints = append(p.offer.Fingerprints, fp)
	}
}

// FormatFingerprint writes a digest as a=fingerprint does.
func FormatFingerprint(digest []byte) string {
	parts := make([]string, len(digest))
	for i, b := range digest {
		parts[i] = strings.ToUpper(hex.EncodeToString([]byte{b}))
	}
	return strings.Join(parts, ":")
}

func (p *parser) attribute(name, value string) error {
	s := p.section
	switch name {
	case "mid":
		if value == "" || len(value) > maxToken || strings.ContainsAny(value, " \t") {
			return refuse(Malformed, "an a=mid is empty or too long")
		}
		s.Mid, s.hasMid = value, true
	case "sendrecv", "sendonly", "recvonly", "inactive":
		s.Direction = direction(name)
	case "bundle-only":
		p.bundled = true
	case "rtcp-mux":
		s.rtcpMux = true
	case "rtcp-rsize":
		s.rtcpRsize = true
	case "msid":
		if f := strings.Fields(value); len(f) > 0 && s.Stream == "" && len(value) <= maxToken {
			s.Stream = f[0]
			if len(f) > 1 {
				s.Track = f[1]
			}
		}
	case "rtpmap", "fmtp", "rtcp-fb":
		p.format(name, value)
	case "extmap":
		p.extension(value)
	case "extmap-allow-mixed":
		s.mixed = true
	case "rid":
		if f := strings.Fields(value); len(f) >= 2 && f[1] == "send" && len(f[0]) <= 16 && len(p.rids) < maxRIDs {
			p.rids[f[0]] = true
		}
	case "simulcast":
		p.simulcast(value)
	case "ssrc", "ssrc-group":
		p.ssrc(name, value)
	default:
		p.transport(name, value)
	}
	return nil
}

func direction(name string) Direction {
	switch name {
	case "sendrecv":
		return SendRecv
	case "sendonly":
		return SendOnly
	case "recvonly":
		return RecvOnly
	}
	return Inactive
}

func (p *parser) format(name, value string) {
	id, rest, ok := strings.Cut(value, " ")
	if !ok {
		return
	}
	if name == "rtcp-fb" && id == "*" {
		p.anyFB.add(rest)
		return
	}
	pt, ok := parseUint(id, 7)
	if !ok {
		return
	}
	switch name {
	case "rtpmap":
		p.rtpmap[uint8(pt)] = strings.TrimSpace(rest)
	case "fmtp":
		p.fmtp[uint8(pt)] = strings.TrimSpace(rest)
	case "rtcp-fb":
		fb := p.feedback[uint8(pt)]
		fb.add(rest)
		p.feedback[uint8(pt)] = fb
	}
}

func (f *Feedback) add(v string) {
	switch strings.TrimSpace(v) {
	case "nack":
		f.NACK = true
	case "nack pli":
		f.PLI = true
	case "ccm fir":
		f.FIR = true
	case "transport-cc":
		f.TransportCC = true
	case "goog-remb":
		f.REMB = true
	}
}

func (f Feedback) or(g Feedback) Feedback {
	return Feedback{
		NACK: f.NACK || g.NACK, PLI: f.PLI || g.PLI, FIR: f.FIR || g.FIR,
		TransportCC: f.TransportCC || g.TransportCC, REMB: f.REMB || g.REMB,
	}
}

func (p *parser) extension(value string) {
	f := strings.Fields(value)
	if len(f) < 2 {
		return
	}
	id, _, _ := strings.Cut(f[0], "/")
	n, ok := parseUint(id, 8)
	e := &p.section.Extensions
	if ok && n > 0 && n != 15 && f[1] == uriDescriptor { // browsers give it an id of the two-byte form
		e.Descriptor = uint8(n)
	}
	if !ok || n == 0 || n > 14 { // the one-byte form, RFC 8285 section 4.2
		return
	}
	switch f[1] {
	case uriMID:
		e.MID = uint8(n)
	case uriRID:
		e.RID = uint8(n)
	case uriRepairedRID:
		e.RepairedRID = uint8(n)
	case uriAudioLevel:
		e.AudioLevel = uint8(n)
	case uriTransportCC:
		e.TransportCC = uint8(n)
	}
}

// simulcast reads a=simulcast:send a;b,c;~d recv … (RFC 8853): of alternatives the
// first counts, and a stream offered as paused counts like the others.
func (p *parser) simulcast(value string) {
	f := strings.Fields(value)
	for i := 0; i+1 < len(f); i += 2 {
		if f[i] != "send" {
			continue
		}
		for stream := range strings.SplitSeq(f[i+1], ";") {
			first, _, _ := strings.Cut(stream, ",")
			first = strings.TrimPrefix(first, "~")
			if first != "" && len(first) <= 16 && len(p.simul) < maxRIDs && !slices.Contains(p.simul, first) {
				p.simul = append(p.simul, first)
			}
		}
	}
}

func (p *parser) ssrc(name, value string) {
	s := p.section
	f := strings.Fields(value)
	if name == "ssrc" {
		if len(f) == 0 {
			return
		}
		if v, ok := parseUint(f[0], 32); ok && !slices.Contains(s.SSRCs, uint32(v)) && len(s.SSRCs) < maxSSRCs {
			s.SSRCs = append(s.SSRCs, uint32(v))
		}
		return
	}
	if len(f) != 3 || f[0] != "FID" {
		return
	}
	media, ok1 := parseUint(f[1], 32)
	rtx, ok2 := parseUint(f[2], 32)
	if ok1 && ok2 && len(s.RTX) < maxSSRCs {
		if s.RTX == nil {
			s.RTX = map[uint32]uint32{}
		}
		s.RTX[uint32(rtx)] = uint32(media)
	}
}

// endSection joins what the lines of a section said about its formats.
func (p *parser) endSection() error {
	s := p.section
	if s == nil {
		return nil
	}
	if !s.hasMid {
		s.Mid = "section-" + itoa(len(p.offer.Sections))
	}
	s.Rejected = p.zeroPort && !p.bundled
	if s.mixed = s.mixed || p.sessionMixed; !s.mixed || s.Kind != codec.Video {
		s.Extensions.Descriptor = 0
	}
	for _, r := range p.simul {
		if p.rids[r] {
			s.RIDs = append(s.RIDs, r)
		}
	}
	s.SSRCs = slices.DeleteFunc(s.SSRCs, func(v uint32) bool { _, isRTX := s.RTX[v]; return isRTX })
	if s.Kind != 0 {
		p.joinFormats()
	}
	p.offer.Sections = append(p.offer.Sections, *s)
	p.section = nil
	return nil
}

func (p *parser) joinFormats() {
	s := p.section
	rtx := map[uint8]uint8{}
	for pt, m := range p.rtpmap {
		if name, _, _ := strings.Cut(m, "/"); !strings.EqualFold(name, "rtx") {
			continue
		}
		if apt, ok := parseUint(codec.ParseFmtp(p.fmtp[pt])["apt"], 7); ok {
			rtx[uint8(apt)] = pt
		}
	}
	for _, f := range s.formats {
		n, ok := parseUint(f, 7)
		if !ok {
			continue
		}
		pt := uint8(n)
		name, rest, _ := strings.Cut(p.rtpmap[pt], "/")
		rate, _, _ := strings.Cut(rest, "/")
		clock, ok := parseUint(rate, 32)
		if !ok {
			continue
		}
		c, ok := codec.Match(name, uint32(clock), p.fmtp[pt])
		if !ok || c.Kind() != s.Kind {
			continue
		}
		s.Formats = append(s.Formats, Format{
			PayloadType: pt, Codec: c, RTPMap: p.rtpmap[pt], Fmtp: p.fmtp[pt], RTX: rtx[pt],
			Feedback: p.feedback[pt].or(p.anyFB),
		})
	}
	p.joinRedundancy()
}

// joinRedundancy finds the payload type of redundant audio (RFC 2198 section 5) whose frames
// are all of one format.
func (p *parser) joinRedundancy() {
	for i := range p.section.Formats {
		f := &p.section.Formats[i]
		if f.Codec.Name != codec.Opus {
			continue
		}
		own := false
		for _, name := range p.section.formats {
			n, ok := parseUint(name, 7)
			pt := uint8(n)
			own = own || ok && pt == f.PayloadType
			if !ok || f.RED != 0 || !isRedundancy(p.rtpmap[pt], p.fmtp[pt], f.PayloadType) {
				continue
			}
			f.RED, f.redFirst, f.redMap, f.redFmtp = pt, !own, p.rtpmap[pt], p.fmtp[pt]
		}
	}
}

func isRedundancy(rtpmap, fmtp string, of uint8) bool {
	if fmtp == "" || !strings.HasPrefix(strings.ToLower(rtpmap), "red/48000") {
		return false
	}
	for block := range strings.SplitSeq(fmtp, "/") {
		if n, ok := parseUint(strings.TrimSpace(block), 7); !ok || uint8(n) != of {
			return false
		}
	}
	return true
}
