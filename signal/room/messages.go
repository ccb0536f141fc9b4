package room

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Message types that the room treats in its own way; every other one is a custom event of the application.
const (
	TypeChat     = "chat"
	TypeReaction = "reaction"
)

const (
	// keptMessages is how many broadcast chat messages are kept at least, so that they can be pinned.
	keptMessages  = 50
	maxPinned     = 10
	maxReaction   = 64
	maxRecipients = 100
)

// chatView is the chat as its events tell it.
type chatView struct {
	paused bool
	// shown is how many messages a late joiner gets.
	shown int
	// kept are broadcast messages of type chat, oldest first; pinned ones stay.
	kept []*pb.Message
}

func newChatView(st *pb.RoomState) chatView {
	return chatView{
		paused: st.GetChatPaused(),
		shown:  int(st.GetTemplate().GetLimits().GetMessageHistory()),
		kept:   slices.Clone(st.GetMessages()),
	}
}

func (v *chatView) add(m *pb.Message) {
	if m.GetType() != TypeChat || !broadcast(m.GetTo()) {
		return
	}
	v.kept = append(v.kept, m)
	for extra := len(v.kept) - v.pins() - max(v.shown, keptMessages); extra > 0; extra-- {
		i := slices.IndexFunc(v.kept, func(m *pb.Message) bool { return !m.GetPinned() })
		v.kept = slices.Delete(v.kept, i, i+1)
	}
}

func (v *chatView) pins() int {
	n := 0
	for _, m := range v.kept {
		if m.GetPinned() {
			n++
		}
	}
	return n
}

func (v *chatView) index(id uint64) int {
	return slices.IndexFunc(v.kept, func(m *pb.Message) bool { return m.GetId() == id })
}

func (v *chatView) moderate(a *pb.ModerateChat) {
	switch b := a.GetAction().(type) {
	case *pb.ModerateChat_Pin:
		v.pin(b.Pin, true)
	case *pb.ModerateChat_Unpin:
		v.pin(b.Unpin, false)
	case *pb.ModerateChat_Hide:
		if i := v.index(b.Hide); i >= 0 {
			v.kept = slices.Delete(v.kept, i, i+1)
		}
	case *pb.ModerateChat_Pause:
		v.paused = b.Pause
	}
}

func (v *chatView) pin(id uint64, pinned bool) {
	i := v.index(id)
	if i < 0 {
		return
	}
	m := v.kept[i]
	v.kept[i] = &pb.Message{
		Id: m.GetId(), Sender: m.GetSender(), SenderName: m.GetSenderName(), SenderRole: m.GetSenderRole(),
		Type: m.GetType(), Text: m.GetText(), To: m.GetTo(), TimeMs: m.GetTimeMs(), Pinned: pinned,
	}
}

// history is what a late joiner gets: the last messages and the pinned ones.
func (v *chatView) history() []*pb.Message {
	var list []*pb.Message
	for i, m := range v.kept {
		if m.GetPinned() || i >= len(v.kept)-v.shown {
			list = append(list, m)
		}
	}
	return list
}

func (c *call) send(m *pb.SendMessage) (*pb.Result, error) {
	kind := m.GetType()
	if kind == "" {
		kind = TypeChat
	}
	if err := checkMessage(kind, m); err != nil {
		return nil, err
	}
	if err := maySend(c, kind, m.GetTo()); err != nil {
		return nil, err
	}
	if err := checkRecipients(c, m.GetTo()); err != nil {
		return nil, err
	}
	msg := &pb.Message{
		Id: c.seq + 1, Sender: c.peer.GetId(), SenderName: c.peer.GetName(), SenderRole: c.peer.GetRole(),
		Type: kind, Text: m.GetText(), TimeMs: c.now.UnixMilli(),
	}
	if !broadcast(m.GetTo()) {
		msg.To = m.GetTo()
	}
	c.emit(&pb.Event{Body: &pb.Event_Message{Message: msg}})
	return &pb.Result{Body: &pb.Result_Send{Send: &pb.SendResult{Id: msg.GetId(), TimeMs: msg.GetTimeMs()}}}, nil
}

func checkMessage(kind string, m *pb.SendMessage) error {
	limit := proto.MaxMessageText
	if kind == TypeReaction {
		limit = maxReaction
	}
	switch {
	case len(m.GetText()) > limit:
		return proto.Errorf(proto.MessageTooLarge, "the text is longer than %d bytes", limit)
	case !utf8.ValidString(m.GetText()):
		return proto.Errorf(proto.InvalidArgument, "the text is not UTF-8")
	case len(kind) > proto.MaxMessageType || strings.Trim(kind, typeCharacters) != "":
		return proto.Errorf(proto.InvalidArgument, "the type is 1 to %d of a-z, A-Z, 0-9 and ._:-", proto.MaxMessageType)
	case (kind == TypeChat || kind == TypeReaction) && strings.TrimSpace(m.GetText()) == "":
		return proto.Errorf(proto.InvalidArgument, "the text is empty")
	}
	return nil
}

const typeCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"

// maySend checks permissions: chat by whom it goes to, reactions to everybody, custom events as such.
func maySend(c *call, kind string, to *pb.Recipients) error {
	switch kind {
	case TypeChat:
		switch {
		case broadcast(to) && !c.may.GetSendBroadcast():
			return denied("send to everybody")
		case len(to.GetRoles()) > 0 && !c.may.GetSendToRoles():
			return denied("send to roles")
		case len(to.GetPeers()) > 0 && !c.may.GetSendDirect():
			return denied("send to single people")
		}
	case TypeReaction:
		if !c.may.GetReact() {
			return denied("react")
		}
		if !broadcast(to) {
			return proto.Errorf(proto.InvalidArgument, "reactions go to everybody")
		}
	default:
		if !c.may.GetSendEvents() {
			return denied("send custom events")
		}
		return nil
	}
	if c.peer.GetChatBlocked() {
		return proto.Errorf(proto.ChatBlocked, "you were blocked from the chat")
	}
	if c.chat.paused && kind == TypeChat && !c.may.GetModerateChat() {
		return proto.Errorf(proto.ChatPaused, "the chat is paused")
	}
	return nil
}

func checkRecipients(c *call, to *pb.Recipients) error {
	if len(to.GetRoles()) > maxRecipients || len(to.GetPeers()) > maxRecipients {
		return proto.Errorf(proto.InvalidArgument, "more than %d recipients; send to roles or to everybody", maxRecipients)
	}
	for _, r := range to.GetRoles() {
		if c.roles[r] == nil {
			return proto.Errorf(proto.NotFound, "this room has no role %q", clip(r))
		}
	}
	for _, id := range to.GetPeers() {
		if _, err := find(&c.view, id); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) moderate(m *pb.ModerateChat) error {
	if !c.may.GetModerateChat() {
		return denied("moderate the chat")
	}
	switch b := m.GetAction().(type) {
	case *pb.ModerateChat_BlockPeer:
		return block(c, b.BlockPeer, true)
	case *pb.ModerateChat_UnblockPeer:
		return block(c, b.UnblockPeer, false)
	case *pb.ModerateChat_Pause:
		if b.Pause == c.chat.paused {
			return nil
		}
	case *pb.ModerateChat_Pin:
		i := c.chat.index(b.Pin)
		switch {
		case i < 0:
			return proto.Errorf(proto.NotFound, "there is no such message, or it is too old")
		case c.chat.kept[i].GetPinned():
			return nil
		case c.chat.pins() >= maxPinned:
			return proto.Errorf(proto.LimitExceeded, "%d messages are pinned already", maxPinned)
		}
	case *pb.ModerateChat_Unpin:
		if i := c.chat.index(b.Unpin); i < 0 || !c.chat.kept[i].GetPinned() {
			return nil
		}
	case *pb.ModerateChat_Hide:
		// Also a message that is no longer kept may still be on screens.
		if b.Hide == 0 || b.Hide > c.seq {
			return proto.Errorf(proto.NotFound, "there is no such message")
		}
	default:
		return proto.Errorf(proto.InvalidArgument, "the action is missing")
	}
	c.emit(&pb.Event{Body: &pb.Event_ChatModerated{ChatModerated: &pb.ChatModerated{Action: m, By: c.by()}}})
	return nil
}

func block(c *call, id string, blocked bool) error {
	p, err := find(&c.view, id)
	if err != nil {
		return err
	}
	if p.GetChatBlocked() != blocked {
		p = clonePeer(p)
		p.ChatBlocked = blocked
		update(c, p, pb.PeerUpdated_WHAT_CHAT_BLOCK, false)
	}
	return nil
}
