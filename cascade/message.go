package cascade

import (
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"google.golang.org/protobuf/proto"
)

const (
	// maxMessage bounds what one message may be, in bytes.
	maxMessage = 256 << 10
	// maxLabels is how many labels one message may name.
	maxLabels = 4096
)

// TrunkMessage takes a message that another node sent by Trunks.Message.
func (m *Manager) TrunkMessage(from string, raw []byte) {
	var msg amphiv1.RelayMessage
	if len(raw) > maxMessage || proto.Unmarshal(raw, &msg) != nil {
		m.drops.add(dropMalformed)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	switch b := msg.GetBody().(type) {
	case *amphiv1.RelayMessage_Wants:
		m.wantsLocked(from, b.Wants)
	case *amphiv1.RelayMessage_Answer:
		m.answerLocked(from, b.Answer)
	case *amphiv1.RelayMessage_Reports:
		m.reportsLocked(from, b.Reports)
	case *amphiv1.RelayMessage_Keyframes:
		m.keyframesLocked(from, b.Keyframes)
	default:
		m.drops.add(dropMalformed)
	}
}

func (m *Manager) answerLocked(from string, a *amphiv1.RelayAnswer) {
	if len(a.GetOffers())+len(a.GetRefused()) > 2*maxWants {
		m.drops.add(dropMalformed)
		return
	}
	r := m.rooms[a.GetRoom()]
	if r == nil { // closed a moment ago
		return
	}
	if f := r.feeds[a.GetHome()]; f != nil {
		f.answerLocked(from, a, m.now())
	}
}

// reportsLocked takes sender reports by label.
func (m *Manager) reportsLocked(from string, reports *amphiv1.RelayReports) {
	if len(reports.GetReports()) > maxLabels {
		m.drops.add(dropMalformed)
		return
	}
	for _, r := range reports.GetReports() {
		m.in.mu.RLock()
		l := m.in.labels[r.GetLabel()]
		m.in.mu.RUnlock()
		switch {
		case l == nil || l.source.node != from:
			m.drops.add(dropLabel)
		case !l.awaited.Load():
			l.intake.reportLocked(l.encoding, r)
		}
	}
}

// keyframesLocked asks for keyframes; media merges requests.
func (m *Manager) keyframesLocked(from string, k *amphiv1.RelayKeyframes) {
	if len(k.GetLabels()) > maxLabels {
		m.drops.add(dropMalformed)
		return
	}
	for _, number := range k.GetLabels() {
		r := m.out.find(from, number)
		if r == nil {
			m.drops.add(dropLabel)
			continue
		}
		r.enc.RequestKeyframe()
	}
}

// sendLocked sends a message; one that is lost is made up for by the next refresh, or the trunk is down.
func (m *Manager) sendLocked(node string, msg *amphiv1.RelayMessage) (sent bool) {
	raw, err := proto.Marshal(msg)
	if err == nil {
		err = m.trunks.Message(node, raw)
	}
	if err != nil {
		m.log.Debug("telling another node about relays", "node", node, "err", err)
	}
	return err == nil
}

func (m *Manager) sendAnswerLocked(node string, a *amphiv1.RelayAnswer) {
	if m.sendLocked(node, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Answer{Answer: a}}) || len(a.GetOffers()) == 0 {
		return
	}
	for _, o := range a.GetOffers() { // to be told again
		if s := m.rooms[a.GetRoom()].serves[o.GetTrackId()][node]; s != nil {
			s.told = nil
		}
	}
}

// sendReports sends the sender reports that have come.
func (m *Manager) sendReports() {
	all := m.pending.take()
	if len(all) == 0 {
		return
	}
	byNode := map[string][]*amphiv1.RelayReport{}
	for r, x := range all {
		byNode[r.node] = append(byNode[r.node], &amphiv1.RelayReport{Label: r.label, Ntp: x.ntp, Rtp: x.rtp})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for node, reports := range byNode {
		for len(reports) > 0 {
			n := min(len(reports), maxLabels)
			m.sendLocked(node, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Reports{Reports: &amphiv1.RelayReports{Reports: reports[:n]}}})
			reports = reports[n:]
		}
	}
}

// eachSecond measures rates and logs what was refused.
func (m *Manager) eachSecond() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eachRelayLocked(func(r *relay) {
		bytes := r.bytes.Load()
		r.rate.Store((bytes - r.lastBytes) * 8)
		r.lastBytes = bytes
	})
	m.drops.log(m.log)
}

func (m *Manager) eachRelayLocked(f func(*relay)) {
	for _, room := range m.rooms {
		for _, of := range room.serves {
			for _, s := range of {
				for _, r := range s.relays {
					if r != nil {
						f(r)
					}
				}
			}
		}
	}
}
